import pickle
import re

import pytest
import torch

from lkdn_basicsr.options.check_networks import TooLarge, build_network, limit_size
from tests.support.images import flipped
from tests.support.option_files import small_network


@pytest.fixture
def write(tmp_path, monkeypatch, test_opt):
    """Write ``net.pth`` and return the options of a test that loads it; keywords are options of ``path``."""
    monkeypatch.chdir(tmp_path)

    def write(content, **path):
        if isinstance(content, bytes):
            (tmp_path / 'net.pth').write_bytes(content)
        else:
            torch.save(content, tmp_path / 'net.pth')
        return test_opt | {'path': test_opt['path'] | path}

    return write


@pytest.mark.parametrize(
    'content, path',
    [
        (lambda weights: {'params': weights}, {}),
        (lambda weights: {'params': weights}, {'param_key_g': 'params_ema'}),
        (lambda weights: {'params_ema': weights, 'params': weights}, {'param_key_g': 'params_ema'}),
        (lambda weights: weights, {'param_key_g': None}),
        (lambda weights: {'params': {**weights, 'extra': torch.zeros(1)}}, {'strict_load_g': False}),
        (lambda weights: {'params': {f'module.{name}': value for name, value in weights.items()}}, {}),  # of a wrapper
    ],
)
def test_forms_that_load(write, parse, content, path):
    parse(write(content(small_network().state_dict()), **path), is_train=False)


def flip_a_bit(data):
    weight = small_network().state_dict()['conv_first.weight'].numpy().tobytes()
    return flipped(data, data.index(weight) + 5)


@pytest.mark.parametrize(
    'content',
    [
        *(lambda data, part=part: data[: int(len(data) * part)] for part in (0.01, 0.5, 0.99)),
        flip_a_bit,
        *(b'', b'hello', pickle.dumps([1]), [1, 2], {'other': {}}, {'params': 3}),
        {'params': {'a.weight': torch.zeros(3)}},
    ],
)
def test_files_that_are_damaged_or_not_checkpoints_are_refused(write, refused, tmp_path, content):
    opt = write(content((tmp_path / 'net.pth').read_bytes()) if callable(content) else content)
    message = refused(opt, is_train=False)
    assert re.search(r'x\.yml, line \d+: path:pretrain_network_g is .*net\.pth', message)


def test_a_folder_is_not_a_checkpoint(test_opt, refused, tmp_path):
    (tmp_path / 'net.pth').unlink()
    (tmp_path / 'net.pth').mkdir()
    assert 'path:pretrain_network_g is' in refused(test_opt, is_train=False)


def test_not_one_tensor_fits(write, refused):
    opt = write({'params': {'a.weight': torch.zeros(3)}}, strict_load_g=False)
    assert 'does not fit network_g' in refused(opt, is_train=False)


def test_pretrained_weights_matter_only_when_training_starts(tmp_path, opt, refused):
    states = tmp_path / 'experiments/small/training_states'
    states.mkdir(parents=True)
    torch.save({'iter': 5}, states / '5.state')
    opt['path']['pretrain_network_g'] = 'gone.pth'
    assert '5.state is no training state' in refused(opt, '--auto_resume')
    assert 'path:pretrain_network_g is gone.pth' in refused(opt)


ECBSR = dict(num_in_ch=1, num_out_ch=1, num_block=1, num_channel=4, with_idt=True, act_type='prelu', scale=2)


@pytest.mark.parametrize(
    'name, arguments',
    [
        ('LKDN_S', dict(num_feat=8, num_atten=8, num_block=1)),
        ('SwinIR', dict(embed_dim=12, depths=[1], num_heads=[2], window_size=4)),
        ('ECBSR', ECBSR),
    ],
)
def test_networks_build_with_or_without_memory(name, arguments):
    state = torch.get_rng_state()
    devices = {parameter.device.type for parameter in build_network({'type': name, **arguments}).parameters()}
    assert devices in ({'meta'}, {'cpu'})
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize('limits, most', [(dict(values=700), 700), (dict(tensors=12), 12)])
def test_a_constructor_ends_where_a_network_gets_too_large(limits, most):
    built = []

    class Layer(torch.nn.Conv2d):
        def reset_parameters(self):  # which is where its memory would be used
            built.append(sum(parameter.numel() for parameter in self.parameters()))

    with pytest.raises(TooLarge, match='it has more than'), limit_size(**limits):
        torch.nn.Sequential(*(Layer(4, 8, 3) for _ in range(1000)))
    assert len(built) == most // 2 if 'tensors' in limits else sum(built) <= most
    Layer(4, 8, 30)  # there is no limit any more


@pytest.mark.parametrize(
    'options, reason',
    [
        (dict(type='SwinIR', depths=[10**9], num_heads=[2]), 'depths is'),
        (
            dict(type='SwinIR', embed_dim=30_000, depths=[1], num_heads=[2], window_size=4),
            '.*more than 1,000,000,000 param',
        ),
        (dict(type='EDSR', num_in_ch=3, num_out_ch=3, num_feat=0), 'has no values'),
        (dict(type='RCAN', num_in_ch=3, num_out_ch=3, squeeze_factor=0), 'is refused by RCAN: .*zero'),
    ],
)
def test_absurd_networks_are_refused(opt, refused, options, reason):
    opt['network_g'] = options | {'upscale': 2}
    assert re.search(f'network_g.* {reason}', refused(opt))
