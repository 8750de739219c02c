import copy
import inspect
import json
import pickle

import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr import archs, checkpoints
from tests.support.golden import fill, image

GOLDEN = ['lkdn_x4', 'lkdn_x3', 'lkdn_x2', 'lkdn_x4_idt', 'lkdn_x2_rep', 'lkdn_s_x4', 'lkdn_s_x4_rep', 'lkdn_s_x3_rep']
BSRN = dict(num_feat=64, num_block=8, upscale=4, attention='esa_cca', conv='BSConvU_idt')


@pytest.mark.parametrize('name', GOLDEN)
@torch.no_grad()
def test_variant_equals_the_official_network(shared, name):
    variant = json.loads((shared / 'golden/arch.json').read_text())[name]
    network = ARCH_REGISTRY.get(variant['cls'])(**variant['kwargs'])
    state = network.state_dict()
    assert list(state) == variant['keys']
    assert [list(value.shape) for value in state.values()] == variant['shapes']
    assert sum(p.numel() for p in network.parameters()) == variant['params']

    output = fill(network)(image(20, 17)).numpy()
    # The golden outputs are float64 stored as float32: half a unit in the last place of values up to 2.
    np.testing.assert_allclose(output, np.load(shared / 'golden/arch.npz')[name], rtol=0, atol=2e-7)


@pytest.mark.parametrize('name', ['LKDN_x4', 'LKDN-S_x4', 'LKDN-S_del_rep_x4'])
@torch.no_grad()
def test_official_checkpoint_gives_the_official_output(shared, name):
    weights = checkpoints.read(str(shared / f'official/{name}.pth'), 'params_ema').weights
    cls, arguments = archs.config_from_state_dict(weights)
    network = ARCH_REGISTRY.get(cls)(**arguments)
    network.load_state_dict(weights)
    output = network.double()(image(24, 19)).numpy()
    np.testing.assert_allclose(output, np.load(shared / 'golden/arch.npz')[f'official_{name}'], rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    'cls, arguments, parameters',
    [
        # Published figures.
        *(('LKDN', dict(upscale=scale), n) for scale, n in ((2, 303_812), (3, 311_387), (4, 321_992))),
        ('LKDN_S', dict(upscale=4), 129_177),
        ('LKDN_S', dict(upscale=4, conv='BSConvU_rep', upsampler='pixelshuffle_rep'), 172_449),
        ('LKDN', BSRN, 352_400),  # by the authors' code; 352 K in the paper
        ('LKDN', dict(BSRN, conv='BSConvU'), 352_400),
        # ESA has 4,064 parameters at this width, CCA 580.
        *(('LKDN', dict(BSRN, attention=a), 352_400 - 8 * n) for a, n in dict(esa=580, cca=4_064, none=4_644).items()),
        # LKDN distils through 24 convolutions of 56 channels: C² + 10 C parameters each.
        ('LKDN', dict(conv='Conv'), 321_992 + 24 * (8 * 56**2 - 9 * 56)),
        ('LKDN', dict(conv='BSConvU_rep'), 321_992 + 24 * 2 * 56),
        ('LKDN', dict(conv='BSConvU_dbb'), 321_992 + 24 * (33 - 10) * 56),
        ('LKDN', dict(lka_kernel=21), 321_992 + 8 * (7**2 - 5**2) * 56),
        ('LKDN', dict(activation='prelu'), 321_992 + 8 + 1),
    ],
)
def test_number_of_parameters(cls, arguments, parameters):
    assert sum(p.numel() for p in ARCH_REGISTRY.get(cls)(**arguments).parameters()) == parameters


@torch.no_grad()
def test_output_equals_that_of_bsrn():
    # Computed once by the authors' code (BSRN_arch.py) with the weights of `fill` and the input of `image`, in
    # float64: sum, sum of squares, and two pixels. No pixel of this network differs from it by more than 2e-15, so the
    # sums of 16,320 values agree to 1e-10.
    network = fill(archs.LKDN(**BSRN))
    output = network(image(20, 17))
    sums = torch.stack([output.sum(), output.square().sum()])
    expected = torch.tensor([256.81419498626826, 1039.219236967961], dtype=torch.float64)
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-10)
    pixels = torch.stack([output[0, :, 3, 5], output[0, :, -1, -1]])
    expected = [[0.036379709, 0.416905458, 0.098262410], [-0.370623237, 0.003532655, 0.380493424]]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize('cls', [archs.LKDN, archs.LKDN_S])
@pytest.mark.parametrize(
    'arguments, message',
    [
        *((dict(conv=conv), f'conv is {conv}, but must be one of Conv, BSConvU') for conv in ('BSConv', None)),
        (dict(upsampler='bicubic'), 'upsampler is bicubic, but must be one of pixelshuffledirect'),
        (dict(attention='lsk'), 'attention is lsk, but must be one of lka, esa_cca, esa, cca, none'),
        (dict(activation='tanh'), 'activation is tanh, but must be one of gelu, relu, lrelu, silu, prelu'),
        (dict(num_feat=-3), 'num_feat is -3, but must be an integer of at least 2'),
        (dict(upscale=0), 'upscale is 0, but must be an integer of at least 1'),
        *((dict(num_block=n), f'num_block is {n}, but must be an integer') for n in (1.5, None)),
        (dict(lka_kernel=0), 'lka_kernel is 0, but must be an integer of at least 1'),
        (dict(lka_dilation=2.5), 'lka_dilation is 2.5, but must be an integer of at least 1'),
        (dict(lka_kernel=3, lka_dilation=5), 'lka_dilation is 5, but must be at most lka_kernel, 3'),
    ],
)
def test_invalid_argument_is_reported_by_name(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**arguments)


@pytest.mark.parametrize('cls, width, depth', [(archs.LKDN, 56, 8), (archs.LKDN_S, 42, 5)])
def test_signature_lists_the_arguments_with_their_defaults(cls, width, depth):
    parameters = inspect.signature(cls).parameters
    expected = [3, 3, width, width, depth, 4, 4, 'BSConvU', 'pixelshuffledirect', 'lka', 15, 3, 'gelu']
    assert [p.default for p in parameters.values()] == expected
    assert dict(cls().config) == {'type': cls.__name__, **dict(zip(parameters, expected))}

    class Derived(cls):
        def __init__(self, depth=1):
            super().__init__(3, 3, 8, 8, depth)

    assert list(inspect.signature(Derived).parameters) == ['depth']
    assert Derived(2).config == dict(cls(num_feat=8, num_atten=8, num_block=2).config, type='Derived')
    with pytest.raises(TypeError, match='atention'):
        cls(atention='lka')


def test_network_can_be_copied_and_pickled():
    network = archs.LKDN_S(3, 3, 8, 8, 1, conv='Conv', attention='cca', activation='silu')
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert copied.config == network.config
        assert all(torch.equal(value, copied.state_dict()[key]) for key, value in network.state_dict().items())
