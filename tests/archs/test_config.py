from collections import OrderedDict

import numpy as np
import pytest
import torch

from lkdn_basicsr import archs, checkpoints, reparam

SMALL = dict(num_feat=8, num_atten=6, num_block=2)
HIDDEN = dict(SMALL, conv='BSConvU_idt', activation='relu', lka_kernel=14)  # without a trace in keys and shapes


def read(path, network, entry=True):
    """The class and arguments that are found after the network is saved and loaded."""
    contents = {'params': network.state_dict()}
    if entry:
        contents['network_g'] = checkpoints.network_entry(network, None)
    checkpoints.save(contents, path)
    cls, arguments = archs.config_from_state_dict(checkpoints.load(path))
    return {'type': cls, **arguments}


@pytest.mark.parametrize('conv', ['BSConvU', 'BSConvU_idt', 'BSConvU_rep'])
@pytest.mark.parametrize('upsampler', ['pixelshuffledirect', 'pixelshuffle_rep'])
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('upscale, num_in', [(1, 1), (2, 4), (3, 4), (4, 1)])
def test_arguments_are_read_from_the_checkpoint(tmp_path, conv, upsampler, channels, upscale, num_in):
    arguments = dict(num_in_ch=channels, num_out_ch=channels, upscale=upscale, num_in=num_in, upsampler=upsampler)
    network = archs.LKDN(**SMALL, **arguments, conv=conv)
    assert read(tmp_path / 'net.pth', network) == network.config
    if conv != 'BSConvU_idt':  # an official checkpoint has no entry, and needs none
        assert read(tmp_path / 'net.pth', network, entry=False) == network.config


def test_entry_decides_what_keys_and_shapes_leave_open(tmp_path):
    network = archs.LKDN(**HIDDEN, lka_dilation=4, num_in_ch=1, num_in=6)
    assert read(tmp_path / 'net.pth', network) == network.config
    weights = {f'module.{key}': value for key, value in network.state_dict().items()}
    for wrapped in (weights, {'params': weights}):
        cls, arguments = archs.config_from_state_dict(checkpoints.parse(wrapped, 'net.pth').weights, network.config)
        assert {'type': cls, **arguments} == network.config


def test_arguments_without_an_entry_are_guessed_as_documented(tmp_path):
    network = archs.LKDN(**HIDDEN, lka_dilation=4)
    found = read(tmp_path / 'net.pth', network, entry=False)
    assert found == dict(network.config, conv='BSConvU', activation='gelu', lka_kernel=16)
    assert read(tmp_path / 'net.pth', archs.LKDN(), entry=False)['type'] == 'LKDN'
    assert read(tmp_path / 'net.pth', archs.LKDN_S(), entry=False)['type'] == 'LKDN_S'
    assert read(tmp_path / 'net.pth', archs.LKDN(num_feat=42, num_block=1), entry=False)['type'] == 'LKDN_S'
    assert read(tmp_path / 'net.pth', archs.LKDN_S(num_feat=8, num_block=1))['type'] == 'LKDN_S'
    assert read(tmp_path / 'net.pth', archs.LKDN(num_feat=42, num_block=1))['type'] == 'LKDN'


@pytest.mark.parametrize(
    'wrong',
    [
        dict(conv='BSConvU_idt', lka_kernel=9, activation='prelu', num_feat=99, upscale=7),
        dict(conv=['BSConvU_rep'], lka_kernel=15.0, upscale=torch.ones(2), type={}),
        None,
        'LKDN',
    ],
)
def test_keys_and_shapes_win_over_the_entry(wrong):
    network = archs.LKDN(**SMALL, conv='BSConvU_rep')
    entry = {**network.config, **wrong} if isinstance(wrong, dict) else wrong
    cls, arguments = archs.config_from_state_dict({'params': network.state_dict(), 'network_g': entry})
    assert {'type': cls, **arguments} == network.config


@pytest.mark.parametrize('mark', ['arguments', 'shortcut'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_checkpoints_of_earlier_releases_are_read(tmp_path, mark, prefix):
    network = archs.LKDN(**dict(HIDDEN, **({'lka_kernel': 15, 'activation': 'gelu'} if mark == 'shortcut' else {})))
    weights = OrderedDict((prefix + key, value) for key, value in network.state_dict().items())
    weights._metadata = OrderedDict({'': {'version': 1}, prefix[:-1]: {'version': 1}})
    if mark == 'arguments':
        arguments = {key: value for key, value in network.config.items() if key != 'type'}
        weights._metadata[prefix[:-1]].update(architecture='LKDN', arguments=arguments)
    else:  # before the arguments were stored
        weights._metadata[f'{prefix}B1.c1_r.shortcut'] = {'version': 1}
    checkpoints.save({'params': weights, 'params_ema': weights}, tmp_path / 'net.pth')
    loaded = checkpoints.load(tmp_path / 'net.pth')
    for found in (loaded['params_ema'], reparam.fuse_state_dict(loaded)['params']):
        cls, arguments = archs.config_from_state_dict(checkpoints.parse(found, 'net.pth').weights)
        assert {'type': cls, **arguments} == network.config


def test_subclasses_and_numpy_numbers_are_described_by_plain_values(tmp_path):
    class Derived(archs.LKDN):
        pass

    network = Derived(num_feat=np.int64(8), num_block=np.int32(1), activation='silu')
    assert network.config['type'] == 'Derived'
    assert read(tmp_path / 'net.pth', network) == dict(network.config, type='LKDN')


@pytest.mark.parametrize(
    'state',
    [
        {},
        {'conv.weight': torch.zeros(3, 3, 3, 3)},
        {'params': {}},
        {'fea_conv.pw.weight': torch.zeros(8, 3, 1, 1), 'upsampler.0.weight': torch.zeros(48, 8, 3, 3)},
    ],
)
def test_weights_of_another_network_are_reported(state):
    with pytest.raises(ValueError, match='not the weights of an LKDN'):
        archs.config_from_state_dict(state)
