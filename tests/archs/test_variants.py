"""Every variant of the networks: it builds, trains a step, is rebuilt from its checkpoint, and fuses exactly."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from basicsr.models.base_model import BaseModel
from torch import nn

from lkdn_basicsr import archs, checkpoints, reparam
from lkdn_basicsr.archs.attention import CCA, ESA, LKA
from lkdn_basicsr.archs.blocks import ACTIVATIONS, ATTENTIONS
from lkdn_basicsr.archs.convs import CONVS
from lkdn_basicsr.optim import Adan
from lkdn_basicsr.training import loop
from tests.conftest import fill, picture

SMALL = dict(num_feat=8, num_atten=6, num_block=2, upscale=2)
VARIANTS = [
    *(dict(conv=conv, attention=attention) for conv, attention in itertools.product(CONVS, ATTENTIONS)),
    *(dict(activation=activation, conv='BSConvU_idt') for activation in ACTIVATIONS),
    *(dict(lka_kernel=kernel, lka_dilation=d) for kernel, d in ((7, 3), (14, 3), (11, 3), (5, 1), (1, 1))),
    dict(conv='BSConvU_dbb', attention='esa', activation='prelu', upsampler='pixelshuffle_rep', num_in=1),
    dict(num_in_ch=1, num_out_ch=4, upscale=1, num_in=3),
]


def name(arguments):
    return '-'.join(map(str, arguments.values()))


def build(**arguments):
    """A small network in float64, evaluation mode, whose weights and statistics are random, as after training."""
    torch.manual_seed(0)
    network = archs.LKDN(**dict(SMALL, **arguments)).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1), nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2), nn.init.uniform_(module.bias, -1, 1)
            module.num_batches_tracked.fill_(7)
    return network


def given(arguments):
    """All arguments, where those without effect have the value that is read for them."""
    full = dict(build(**arguments).built_with)
    if full['attention'] != 'lka':
        full['num_atten'] = full['num_feat']
    return full


@pytest.mark.parametrize('arguments', VARIANTS, ids=name)
def test_variant_trains_in_all_its_parameters(arguments):
    torch.manual_seed(0)
    network = archs.LKDN(**dict(SMALL, **arguments))
    optimizer = Adan(network.parameters(), lr=1e-3)
    lq = torch.rand(2, network.built_with['num_in_ch'], 8, 9)
    before = network(lq).abs().mean()
    for _ in range(3):
        optimizer.zero_grad()
        loss = network(lq).abs().mean()
        loss.backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        optimizer.step()
    assert loss < before


@pytest.mark.parametrize('form', ['network', 'state dict'])
@pytest.mark.parametrize('arguments', VARIANTS, ids=name)
@torch.no_grad()
def test_variant_is_rebuilt_from_its_checkpoint_and_fuses_exactly(tmp_path, arguments, form):
    network = build(**arguments)
    x = picture(9, 7, network.built_with['num_in_ch'])
    fused = dict(given(arguments), upsampler='pixelshuffledirect')
    if fused['conv'] in ('BSConvU_rep', 'BSConvU_dbb'):
        fused['conv'] = 'BSConvU'
    plain = reparam.fuse(network).state_dict() if form == 'network' else reparam.fuse_state_dict(network.state_dict())
    for state, expected in ((network.state_dict(), given(arguments)), (plain, fused)):
        torch.save({'params': state, 'params_ema': state}, tmp_path / 'net.pth')
        for read in (state, checkpoints.load(tmp_path / 'net.pth')):
            assert archs.config_from_state_dict(read) == ('LKDN', expected)
        rebuilt = archs.LKDN(**expected).double().eval()
        rebuilt.load_state_dict(state)
        # float64 rounding through some forty layers, on values around 1; the borders are in it.
        torch.testing.assert_close(rebuilt(x), network(x), rtol=0, atol=1e-12)


BSRN = dict(num_feat=64, num_block=8, upscale=4, attention='esa_cca', conv='BSConvU_idt')


@pytest.mark.parametrize(
    'arguments, parameters',
    [
        (BSRN, 352_400),  # by the authors' code; 352 K in the paper
        (dict(BSRN, conv='BSConvU'), 352_400),
        # ESA has 4,064 parameters at this width, CCA 580.
        (dict(BSRN, attention='esa'), 352_400 - 8 * 580),
        (dict(BSRN, attention='cca'), 352_400 - 8 * 4_064),
        (dict(BSRN, attention='none'), 352_400 - 8 * 4_644),
        # LKDN has 321,992, and 24 convolutions of 56 channels to distil through: C² + 10 C parameters each.
        (dict(conv='Conv'), 321_992 + 24 * (8 * 56**2 - 9 * 56)),
        (dict(conv='BSConvU_rep'), 321_992 + 24 * 2 * 56),
        (dict(conv='BSConvU_dbb'), 321_992 + 24 * (33 - 10) * 56),
        (dict(lka_kernel=21), 321_992 + 8 * (7**2 - 5**2) * 56),
        (dict(activation='prelu'), 321_992 + 8 + 1),
    ],
)
def test_size_is_the_expected_one(arguments, parameters):
    assert sum(p.numel() for p in archs.LKDN(**arguments).parameters()) == parameters


@torch.no_grad()
def test_output_is_that_of_bsrn():
    # Computed once by the authors' code (BSRN_arch.py), its weights and input by the formula of `fill` and `picture`,
    # in float64: sum, sum of squares, and two pixels. The largest difference to ours was 2e-15 at any pixel, so the
    # sums of 16,320 values agree to 1e-10.
    network = fill(archs.LKDN(**BSRN))
    output = network(picture(20, 17))
    sums = torch.stack([output.sum(), output.square().sum()])
    expected = torch.tensor([256.81419498626826, 1039.219236967961], dtype=torch.float64)
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-10)
    pixels = torch.stack([output[0, :, 3, 5], output[0, :, -1, -1]])
    expected = torch.tensor(
        [
            [0.03637970936764755, 0.4169054583924041, 0.09826241004686485],
            [-0.370623237097915, 0.003532654858905646, 0.3804934236304245],
        ]
    ).double()
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize('height, width', [(3, 3), (4, 4), (4, 30), (14, 15), (15, 14)])
def test_small_pictures_have_esa(height, width):
    x = torch.rand(1, 8, height, width, requires_grad=True)
    output = ESA(8)(x)
    output.sum().backward()
    assert output.shape == x.shape and x.grad.isfinite().all() and (x.grad != 0).all()


def test_flat_pictures_have_channel_attention_with_a_gradient():
    attention = CCA(16)
    x = torch.full((2, 16, 5, 6), 0.5)
    x[1, :, 2, 3] = 0.7
    x.requires_grad_()
    attention(x).sum().backward()
    assert x.grad.isfinite().all() and (x.grad != 0).all()
    expected = x + 0  # the formula of IMDN
    mean = expected.mean((2, 3), keepdim=True)
    contrast = (expected - mean).square().mean((2, 3), keepdim=True).sqrt()
    # A unit in the last place of the float32 numbers on the way; that of a flat channel's mean is its contrast.
    torch.testing.assert_close(attention(x), x * attention.conv_du(contrast + mean), rtol=0, atol=1e-6)


@pytest.mark.parametrize('kernel, dilation', [(15, 3), (21, 3), (7, 3), (14, 4), (11, 3), (9, 9), (6, 1), (1, 1)])
def test_large_kernel_sees_the_square_that_is_documented(kernel, dilation):
    attention = LKA(1, kernel, dilation).double()
    for parameter in attention.parameters():
        nn.init.constant_(parameter, 1)
    ratio = -(-kernel // dilation)
    side = dilation * (ratio + 1) - 1
    assert kernel <= side <= kernel + 2 * (dilation - 1)
    assert attention.depthwise.kernel_size == (2 * dilation - 1,) * 2
    assert attention.depthwise_dilated.kernel_size == (ratio,) * 2
    x = torch.ones(1, 1, 61, 60, dtype=torch.float64, requires_grad=True)
    output = attention(x)
    assert output.shape == x.shape
    (seen,) = torch.autograd.grad(output[0, 0, 30, 30], x)
    rows, columns = seen[0, 0].nonzero().T
    assert rows.min() == columns.min() and rows.max() == columns.max()
    assert rows.max() - rows.min() + 1 == side and seen.count_nonzero() == side**2
    assert 0 <= rows.max() + rows.min() - 60 <= 1  # in the centre, or one over to the right and below


def test_attention_is_what_its_name_says():
    present = {
        attention: {
            child
            for child, module in build(attention=attention).B1.named_children()
            if not isinstance(module, nn.Identity)
        }
        & {'atten', 'c6', 'pixel_norm', 'esa', 'cca'}
        for attention in ATTENTIONS
    }
    assert present == {
        'lka': {'atten', 'c6', 'pixel_norm'},
        'esa_cca': {'esa', 'cca'},
        'esa': {'esa'},
        'cca': {'cca'},
        'none': set(),
    }


@pytest.mark.parametrize(
    'activation, function',
    [
        ('gelu', F.gelu),
        ('relu', F.relu),
        ('lrelu', lambda x: F.leaky_relu(x, 0.05)),
        ('silu', F.silu),
        ('prelu', lambda x: F.leaky_relu(x, 0.25)),
    ],
)
def test_activation_is_that_of_blocks_and_trunk(activation, function):
    network, x = build(activation=activation), torch.linspace(-3, 3, 20, dtype=torch.float64)
    for act in (network.act, network.B1.act, network.B2.act):
        torch.testing.assert_close(act(x), function(x), rtol=0, atol=0)


# ------------------------------------------------- what a checkpoint notes ----------------------------------------- #

HIDDEN = dict(conv='BSConvU_idt', activation='relu', lka_kernel=14)


def without_notes(state):
    return {key: value for key, value in state.items()}


def test_checkpoint_without_notes_is_guessed_as_documented():
    state = without_notes(build(**HIDDEN, lka_dilation=4, num_atten=7).state_dict())
    cls, arguments = archs.config_from_state_dict(state)
    assert cls == 'LKDN'
    assert arguments == dict(build(lka_kernel=16, lka_dilation=4, num_atten=7).built_with)
    archs.LKDN(**arguments).load_state_dict(state)


def test_class_is_noted():
    assert archs.config_from_state_dict(archs.LKDN_S(num_feat=8, num_block=1).state_dict())[0] == 'LKDN_S'
    assert archs.config_from_state_dict(archs.LKDN(num_feat=42, num_block=1).state_dict())[0] == 'LKDN'
    assert archs.config_from_state_dict(without_notes(archs.LKDN(num_feat=42, num_block=1).state_dict()))[0] == 'LKDN_S'


def test_checkpoint_whose_shortcut_was_marked_by_a_module_is_read():
    state = build(**HIDDEN).state_dict()
    del state._metadata['']['architecture'], state._metadata['']['arguments']
    state._metadata['B1.c1_r.shortcut'] = {'version': 1}
    assert archs.config_from_state_dict(state)[1]['conv'] == 'BSConvU_idt'


def test_keys_and_shapes_win_over_notes():
    state = build(conv='BSConvU_rep', lka_kernel=14).state_dict()
    notes = state._metadata['']['arguments']
    notes.update(conv='BSConvU_idt', lka_kernel=9, activation='prelu', num_feat=99, upscale=7)
    arguments = archs.config_from_state_dict(state)[1]
    assert arguments == dict(build(conv='BSConvU_rep', lka_kernel=15).built_with)


@torch.no_grad()
def test_notes_are_of_the_network_and_not_of_the_form_it_is_brought_to():
    network = build(**HIDDEN, num_in_ch=1, num_in=6)
    fused = reparam.fuse(network, fold_input=True)
    cls, arguments = archs.config_from_state_dict(fused.state_dict())
    assert arguments == dict(network.built_with, num_in=1)


@pytest.mark.parametrize('wrapped', [False, True])
def test_notes_survive_what_basicsr_does_to_a_checkpoint(tmp_path, wrapped):
    network = build(**HIDDEN)
    model = BaseModel(dict(num_gpu=0, is_train=True, path=dict(models=str(tmp_path))))
    if wrapped:  # as DistributedDataParallel names things
        network = nn.ModuleDict({'module': network})
    loop.save_network(model, [network, network], 'net_g', 3, ['params', 'params_ema'])
    saved = checkpoints.load(tmp_path / 'net_g_3.pth')
    assert archs.config_from_state_dict(saved) == ('LKDN', given(HIDDEN))


def test_notes_of_a_class_of_ones_own_and_of_numpy_numbers_are_read(tmp_path):

    class Mine(archs.LKDN):
        pass

    network = Mine(num_feat=np.int64(8), num_block=np.int32(1), activation='silu')
    torch.save(network.state_dict(), tmp_path / 'net.pth')
    cls, arguments = archs.config_from_state_dict(checkpoints.load(tmp_path / 'net.pth'))
    assert cls == 'LKDN' and arguments == dict(network.built_with)


def test_notes_are_left_out_where_there_is_no_place_for_them():
    network = build()
    assert network.state_dict(destination={}).keys() == network.state_dict().keys()


# ------------------------------------------------- arguments ------------------------------------------------------- #


@pytest.mark.parametrize('cls', [archs.LKDN, archs.LKDN_S])
@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(attention='lsk'), 'attention: lsk is not known; it is one of lka, esa_cca, esa, cca, none'),
        (dict(activation='tanh'), 'activation: tanh is not known; it is one of gelu, relu, lrelu, silu, prelu'),
        (dict(conv=None), 'conv: None is not known; it is one of Conv, BSConvU'),
        (dict(lka_kernel=0), 'lka_kernel: 0 is not a whole number from 1 on'),
        (dict(lka_dilation=2.5), 'lka_dilation: 2.5 is not a whole number from 1 on'),
        (dict(num_block=None), 'num_block: None is not a whole number'),
        (dict(lka_kernel=3, lka_dilation=5), 'lka_dilation: 5 is more than lka_kernel, 3'),
    ],
)
def test_argument_out_of_range_is_refused_by_name(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**arguments)


def test_smaller_network_takes_every_variant():
    network = archs.LKDN_S(conv='Conv', attention='cca', lka_kernel=9, lka_dilation=2, activation='silu')
    assert list(network.built_with.values()) == [
        3,
        3,
        42,
        42,
        5,
        4,
        4,
        'Conv',
        'pixelshuffledirect',
        'cca',
        9,
        2,
        'silu',
    ]
