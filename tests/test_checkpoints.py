import hashlib
from collections import OrderedDict

import pytest
import torch

from lkdn_basicsr import archs, checkpoints
from lkdn_basicsr.errors import InputError
from tests.support.images import flipped


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder whose file:// URL replaces the authors' repository."""
    folder = tmp_path / 'served'
    folder.mkdir()
    monkeypatch.setattr(checkpoints, 'OFFICIAL_URL', folder.as_uri())
    return folder


def test_missing_official_weights_are_downloaded_once(served, tmp_path, monkeypatch):
    (served / 'LKDN_x4.pth').write_bytes(b'weights')
    monkeypatch.setitem(checkpoints.OFFICIAL_SHA256, 'LKDN_x4.pth', hashlib.sha256(b'weights').hexdigest())
    path = tmp_path / 'new/folder/LKDN_x4.pth'
    checkpoints.ensure(str(path))
    assert path.read_bytes() == b'weights'
    (served / 'LKDN_x4.pth').unlink()
    checkpoints.ensure(str(path))  # without a request


@pytest.mark.parametrize('name', ['LKDN_x4.pth', 'LKDN_x3.pth'], ids=['wrong checksum', 'not found'])
def test_failed_download_leaves_nothing_and_names_the_path_of_the_file(served, tmp_path, name):
    (served / 'LKDN_x4.pth').write_bytes(b'other weights')
    path = tmp_path / 'folder' / name
    with pytest.raises(InputError, match=f'put it at {path}'):
        checkpoints.ensure(str(path))
    assert not list(path.parent.iterdir())


def test_unknown_file_is_not_downloaded(tmp_path):
    with pytest.raises(InputError, match='mine.pth does not exist'):
        checkpoints.ensure(str(tmp_path / 'mine.pth'))


def test_official_files_have_the_published_checksums(shared):
    for path in (shared / 'official').iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == checkpoints.OFFICIAL_SHA256[path.name]


def test_checkpoint_that_cannot_be_used_is_reported_by_name(tmp_path):
    path = tmp_path / 'net.pth'

    def assert_refused(message):
        with pytest.raises(InputError, match=f'net.pth {message}'):
            checkpoints.load(path)

    assert_refused('does not exist')
    contents = {'contains a Tensor, not a state dict': torch.zeros(1), 'contains more than tensors': {'f': print}}
    for message, content in contents.items():
        torch.save(content, path)
        assert_refused(message)
    torch.save({'w': torch.arange(5000.0)}, path)
    data = path.read_bytes()
    middle = len(data) // 2
    for content in (b'', b'# Read me\n' * 9, b'\x89PNG\r\n\x1a\n' + bytes(90), data[:middle], flipped(data, middle)):
        path.write_bytes(content)
        assert_refused('is damaged, or no PyTorch')


BOTH = {'params': {'w': 1}, 'params_ema': {'w': 2}}


@pytest.mark.parametrize(
    'checkpoint, param_key, found',
    [
        (BOTH, 'params', 'params'),
        (BOTH, 'params_ema', 'params_ema'),
        (BOTH, None, 'params_ema'),
        ({'params': {'w': 1}}, 'params_ema', 'params'),
        ({'w': 1}, 'params', None),
        ({'module.w': 1}, None, None),
    ],
)
def test_weights_are_found_under_any_key(checkpoint, param_key, found):
    weights, key = checkpoints.pick_weights(checkpoint, param_key)
    assert key == found and set(weights) == {'w'}


def test_entry_of_a_network_is_its_config_or_a_copy_of_its_options(tmp_path):
    options = OrderedDict(type='EDSR', num_feat=8, rgb_mean=[0.4, 0.4, 0.4])
    network = archs.LKDN(num_feat=8, num_atten=8, num_block=1, activation='silu')
    entry = checkpoints.network_entry(torch.nn.Conv2d(3, 3, 1), options)
    assert entry == options and entry['rgb_mean'] is not options['rgb_mean']
    assert checkpoints.network_entry(network, options) == network.config
    assert checkpoints.network_entry(torch.nn.Conv2d(3, 3, 1), None) == {}
    for value in (entry, network.config):
        checkpoints.save({'params': network.state_dict(), 'network_g': value}, tmp_path / 'net.pth')
        loaded = checkpoints.load(tmp_path / 'net.pth')
        assert loaded['network_g'] == value
        assert checkpoints.pick_weights(loaded, 'params_ema')[0].keys() == network.state_dict().keys()
