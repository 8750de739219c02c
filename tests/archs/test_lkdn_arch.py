"""The networks: that they are the official ones, and that every variant can be built and rebuilt."""

import json

import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr import archs, checkpoints
from tests.conftest import fill, picture

GOLDEN = ['lkdn_x4', 'lkdn_x3', 'lkdn_x2', 'lkdn_x4_idt', 'lkdn_x2_rep', 'lkdn_s_x4', 'lkdn_s_x4_rep', 'lkdn_s_x3_rep']
SMALL = dict(num_feat=8, num_atten=6, num_block=2)


@pytest.mark.parametrize('name', GOLDEN)
@torch.no_grad()
def test_variant_is_the_official_network(shared, name):
    variant = json.loads((shared / 'golden/arch.json').read_text())[name]
    network = ARCH_REGISTRY.get(variant['cls'])(**variant['kwargs'])
    state = network.state_dict()
    assert list(state) == variant['keys']
    assert [list(value.shape) for value in state.values()] == variant['shapes']
    assert sum(p.numel() for p in network.parameters()) == variant['params']

    output = fill(network)(picture(20, 17)).numpy()
    # The golden outputs are float64 stored as float32: half a unit in the last place of values up to 2.
    np.testing.assert_allclose(output, np.load(shared / 'golden/arch.npz')[name], rtol=0, atol=2e-7)


@pytest.mark.parametrize('name', ['LKDN_x4', 'LKDN-S_x4', 'LKDN-S_del_rep_x4'])
@torch.no_grad()
def test_official_checkpoint_gives_the_official_output(shared, name):
    weights, _ = checkpoints.pick_weights(checkpoints.load(shared / f'official/{name}.pth'), 'params_ema')
    cls, arguments = archs.config_from_state_dict(weights)
    network = ARCH_REGISTRY.get(cls)(**arguments)
    network.load_state_dict(weights)
    output = network.double()(picture(24, 19)).numpy()
    np.testing.assert_allclose(output, np.load(shared / 'golden/arch.npz')[f'official_{name}'], rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    'cls, parameters, arguments',
    [
        ('LKDN', 303_812, dict(upscale=2)),
        ('LKDN', 311_387, dict(upscale=3)),
        ('LKDN', 321_992, dict(upscale=4)),
        ('LKDN_S', 129_177, dict(upscale=4)),
        ('LKDN_S', 172_449, dict(upscale=4, conv='BSConvU_rep', upsampler='pixelshuffle_rep')),
    ],
)
def test_size_is_the_published_one(cls, parameters, arguments):
    assert sum(p.numel() for p in ARCH_REGISTRY.get(cls)(**arguments).parameters()) == parameters


@pytest.mark.parametrize('upscale', [1, 2, 3, 5, 8])
@pytest.mark.parametrize('num_block', [1, 9])
@torch.no_grad()
def test_any_depth_and_scale(upscale, num_block):
    network = archs.LKDN(num_feat=8, num_atten=8, num_block=num_block, upscale=upscale)
    assert network(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * upscale, 7 * upscale)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(conv='BSConv'), 'BSConv is not known; it is one of Conv, BSConvU'),
        (dict(upsampler='bicubic'), 'bicubic is not known; it is one of pixelshuffledirect'),
        (dict(num_feat=-3), 'num_feat: -3'),
        (dict(upscale=0), 'upscale: 0'),
        (dict(num_block=1.5), 'num_block: 1.5'),
    ],
)
def test_argument_out_of_range_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        archs.LKDN(**arguments)


@pytest.mark.parametrize('conv', ['BSConvU', 'BSConvU_idt', 'BSConvU_rep'])
@pytest.mark.parametrize('upsampler', ['pixelshuffledirect', 'pixelshuffle_rep'])
@pytest.mark.parametrize('colours', [1, 3])
@pytest.mark.parametrize('upscale, num_in', [(1, 1), (2, 4), (3, 4), (4, 1)])
def test_configuration_is_read_from_the_checkpoint(tmp_path, conv, upsampler, colours, upscale, num_in):
    arguments = dict(
        SMALL, num_in_ch=colours, num_out_ch=colours, upscale=upscale, num_in=num_in, conv=conv, upsampler=upsampler
    )
    network = archs.LKDN(**arguments)
    arguments.update(attention='lka', lka_kernel=15, lka_dilation=3, activation='gelu')
    torch.save({'params': network.state_dict()}, tmp_path / 'net.pth')  # what a file keeps is what counts
    assert archs.config_from_state_dict(checkpoints.load(tmp_path / 'net.pth')) == ('LKDN', arguments)
    if conv != 'BSConvU_idt':  # an official checkpoint has no notes, and needs none
        assert archs.config_from_state_dict(dict(network.state_dict())) == ('LKDN', arguments)


def test_configuration_names_the_class_by_its_width():
    assert archs.config_from_state_dict(archs.LKDN_S().state_dict())[0] == 'LKDN_S'
    assert archs.config_from_state_dict(archs.LKDN().state_dict())[0] == 'LKDN'


@pytest.mark.parametrize(
    'state',
    [
        {},
        {'conv.weight': torch.zeros(3, 3, 3, 3)},
        {'params': {}},
        {'fea_conv.pw.weight': torch.zeros(8, 3, 1, 1), 'upsampler.0.weight': torch.zeros(48, 8, 3, 3)},
    ],
)
def test_configuration_of_another_network_is_refused(state):
    with pytest.raises(ValueError, match='not the weights of an LKDN'):
        archs.config_from_state_dict(state)
