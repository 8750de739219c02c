import os
import pickle

import pytest
import torch

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_networks import build_network
from tests.support.option_files import parse_run, small_network, test_options, train_options, write_options, write_pairs


class Planted:
    def __reduce__(self):
        return os.mkdir, ('planted',)


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """Write ``net.pth`` and parse a test file that names it; keywords are options of ``path``."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path)

    def parse(content, **path):
        file = tmp_path / 'net.pth'
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            torch.save(content, file)
        opt = test_options(tmp_path, file)
        opt['path'].update(path)
        return parse_run(str(tmp_path), False, ['-opt', write_options(tmp_path / 'x.yml', opt)])[0]

    return parse


def test_forms_that_load(parse):
    weights = small_network().state_dict()
    parse({'params': weights})
    parse({'params_ema': weights, 'params': weights}, param_key_g='params_ema')
    parse({'params': weights}, param_key_g='params_ema')
    parse(weights, param_key_g=None)
    parse({'params': {**weights, 'extra': torch.zeros(1)}}, strict_load_g=False)


@pytest.mark.parametrize(
    'damage', [lambda data: data[:100], lambda data: data[: len(data) // 2], lambda data: data[:-10]]
)
def test_files_cut_short_are_refused(parse, tmp_path, damage):
    torch.save({'params': small_network().state_dict()}, tmp_path / 'intact.pth')
    refused(parse, damage((tmp_path / 'intact.pth').read_bytes()))


@pytest.mark.parametrize(
    'content',
    [b'', b'hello', pickle.dumps([1]), [1, 2], {'other': {}}, {'params': {'a.weight': torch.zeros(3)}}, {'params': 3}],
)
def test_files_that_are_not_checkpoints_are_refused(parse, content):
    refused(parse, content)


def refused(parse, content):
    with pytest.raises(InputError, match=r'x\.yml, line \d+: path:pretrain_network_g is .*net\.pth') as caught:
        parse(content)
    assert '\n' not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(parse, tmp_path):
    for content in ({'params': Planted()}, pickle.dumps(Planted())):
        with pytest.raises(InputError, match='path:pretrain_network_g'):
            parse(content)
    assert not (tmp_path / 'planted').exists()


def test_a_folder_is_not_a_checkpoint(parse, tmp_path):
    (tmp_path / 'net.pth').mkdir()
    with pytest.raises(InputError, match='net.pth'):
        parse(None)


def test_not_one_tensor_fits(parse):
    with pytest.raises(InputError, match='does not fit network_g'):
        parse({'params': {'a.weight': torch.zeros(3)}}, strict_load_g=False)


@pytest.mark.parametrize('auto_resume', [True, False])
def test_pretrained_weights_matter_only_when_training_starts(tmp_path, auto_resume):
    write_pairs(tmp_path)
    states = tmp_path / 'experiments' / 'small' / 'training_states'
    states.mkdir(parents=True)
    torch.save({'iter': 5}, states / '5.state')
    opt = train_options(tmp_path)
    opt['path']['pretrain_network_g'] = 'gone.pth'
    argv = ['-opt', write_options(tmp_path / 'x.yml', opt)] + ['--auto_resume'] * auto_resume
    if auto_resume:
        parse_run(str(tmp_path), True, argv)
    else:
        with pytest.raises(InputError, match='path:pretrain_network_g is gone.pth'):
            parse_run(str(tmp_path), True, argv)


@pytest.mark.parametrize(
    'options',
    [
        {'type': 'LKDN_S', 'num_feat': 8, 'num_atten': 8, 'num_block': 1},
        {'type': 'SwinIR', 'embed_dim': 12, 'depths': [1], 'num_heads': [2], 'window_size': 4},
        dict(
            type='ECBSR',
            num_in_ch=1,
            num_out_ch=1,
            num_block=1,
            num_channel=4,
            with_idt=True,
            act_type='prelu',
            scale=2,
        ),
    ],
    ids=lambda options: options['type'],
)
def test_networks_build_with_or_without_memory(options):
    state = torch.get_rng_state()
    names = {parameter.device.type for parameter in build_network(options).parameters()}
    assert names in ({'meta'}, {'cpu'})
    assert names == {'cpu'} or torch.equal(state, torch.get_rng_state())


def test_one_flipped_bit_is_detected(parse, tmp_path):
    torch.save({'params': small_network().state_dict()}, tmp_path / 'intact.pth')
    data = bytearray((tmp_path / 'intact.pth').read_bytes())
    start = data.index(small_network().state_dict()['conv_first.weight'].numpy().tobytes())
    data[start + 5] ^= 1
    with pytest.raises(InputError, match='path:pretrain_network_g is unusable'):
        parse(bytes(data))


def test_weights_saved_under_a_wrapper(parse):
    parse({'params': {f'module.{name}': value for name, value in small_network().state_dict().items()}})
