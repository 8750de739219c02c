import hashlib
import io
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from basicsr.models.base_model import BaseModel

from lkdn_basicsr import archs, checkpoints
from lkdn_basicsr.errors import InputError
from tests.support.images import flipped
from tests.support.runs import same


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


STATE = {
    'iter': 4,
    'optimizers': [{'state': {0: {'step': torch.tensor(4.0), 'exp_avg': torch.arange(9.0)}}, 'param_groups': []}],
    'schedulers': [{'milestones': Counter([3]), '_last_lr': [0.1]}],
}


def test_no_flipped_bit_changes_what_is_loaded(tmp_path):
    path = tmp_path / '4.state'
    digest = checkpoints.save(STATE, path)
    data = path.read_bytes()
    assert digest == hashlib.sha256(data).hexdigest()
    accepted = []
    with open(path, 'r+b', buffering=0) as file:
        for place, byte in enumerate(data):
            file.seek(place)
            file.write(bytes([byte ^ 1 << place % 8]))
            try:
                assert same(checkpoints.load(path), STATE)
                accepted.append(place)
            except InputError:
                pass
            file.seek(place)
            file.write(bytes([byte]))
    # Only the mark of the checksum can change; the checksums of the ZIP archive, which remain, miss others.
    assert data[accepted[0] : accepted[-1] + 1] == b'lkdn_basicsr SHA-256 ' and len(accepted) == 21


def test_files_with_a_checksum_are_read_by_others(tmp_path):
    network = torch.nn.Conv2d(1, 1, 1)
    checkpoints.save({'params': network.state_dict()}, tmp_path / 'net.pth')
    weights = torch.load(tmp_path / 'net.pth', weights_only=True, mmap=True)['params']
    assert same(weights, network.state_dict())
    with zipfile.ZipFile(tmp_path / 'net.pth') as archive:  # as earlier releases verify a file
        assert archive.testzip() is None
    model, copy = object.__new__(BaseModel), torch.nn.Conv2d(1, 1, 1)
    model.opt = {'dist': False}
    BaseModel.load_network(model, copy, str(tmp_path / 'net.pth'))
    assert same(copy.state_dict(), weights)


@pytest.mark.parametrize('zipped', [True, False], ids=['BasicSR', 'PyTorch 1.5'])
def test_files_without_a_checksum_are_read(tmp_path, zipped):
    torch.save(STATE, tmp_path / '4.state', _use_new_zipfile_serialization=zipped)
    assert same(checkpoints.load(tmp_path / '4.state'), STATE)


def test_archive_that_would_need_more_memory_than_its_size_is_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({'w': torch.zeros(1_000_000)}, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(tmp_path / 'bomb.pth', 'w', zipfile.ZIP_DEFLATED) as bomb:
        for entry in archive.infolist():
            bomb.writestr(entry.filename, archive.read(entry))
    assert (tmp_path / 'bomb.pth').stat().st_size < 10_000
    with pytest.raises(InputError, match='bomb.pth is damaged'):
        checkpoints.load(tmp_path / 'bomb.pth')


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
