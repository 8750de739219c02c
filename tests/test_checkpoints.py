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
    (tmp_path / 'folder').mkdir()
    with pytest.raises(InputError, match='folder is not a file'):
        checkpoints.load(tmp_path / 'folder')
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


W = {'w': torch.ones(3)}
BOTH = {'params': W, 'params_ema': W}


@pytest.mark.parametrize(
    'contents, param_key, found',
    [
        (BOTH, 'params', 'params'),
        (BOTH, 'params_ema', 'params_ema'),
        (BOTH, None, 'params_ema'),
        ({'params': W}, 'params_ema', 'params'),
        (W, 'params', None),
        ({'module.w': torch.ones(3)}, None, None),
        ({'state_dict': W, 'epoch': 3}, 'params', 'state_dict'),
        ({'model': W['w']}, 'params', None),
    ],
)
def test_weights_are_found_under_any_key(contents, param_key, found):
    checkpoint = checkpoints.parse(contents, 'net.pth', param_key)
    assert checkpoint.key == found and set(checkpoint.weights) <= {'w', 'model'}


def with_metadata(value):
    weights = OrderedDict(W)
    weights._metadata = value
    return weights


@pytest.mark.parametrize('metadata', [5, {'': 5}, {3: {}}, {'': {'version': 'x'}}])
def test_metadata_of_another_form_is_ignored(metadata):
    checkpoint = checkpoints.parse({'params': with_metadata(metadata)}, 'net.pth')
    norm = torch.nn.BatchNorm1d(3)
    assert checkpoint.weights.keys() == {'w'} and checkpoint.config == {}
    norm.load_state_dict(checkpoint.weights, strict=False)


NOT_DENSE = [
    torch.Tensor.to_sparse,
    torch.Tensor.to_sparse_csr,
    lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    lambda w: w.to('meta'),
]


@pytest.mark.filterwarnings('ignore')  # of torch about these layouts
@pytest.mark.parametrize('convert', NOT_DENSE, ids=['sparse', 'CSR', 'quantized', 'meta'])
def test_tensors_that_are_not_dense_are_reported(tmp_path, convert):
    torch.save({'params': {'w': convert(torch.eye(3))}}, tmp_path / 'net.pth')
    with pytest.raises(InputError, match="net.pth: 'w' is a sparse, quantized or empty tensor"):
        checkpoints.read(str(tmp_path / 'net.pth'))


@pytest.mark.parametrize(
    'contents, problem',
    [
        ({}, 'has nothing in place of weights'),
        ({'params': {}}, 'has nothing in place of weights'),
        ({'params': None}, 'has a NoneType in place of weights'),
        ({'params': [torch.ones(3)]}, 'has a list in place of weights'),
        ({'params': {0: torch.ones(3)}}, '0 is not a name'),
        ({0: torch.ones(3)}, '0 is not a name'),
        ({'params': {'w': 1.0}}, "'w' is of type float, not a tensor"),
        ({'params': {'a': W}}, "'a' is of type dict, not a tensor"),
        ({**W, 'epoch': 3}, "'epoch' is of type int, not a tensor"),
        ({'params': {'w': torch.ones(3) + 1j}}, "'w' is a tensor of complex64"),
        ({'params': {'w': torch.ones(3).to(torch.float8_e5m2)}}, "'w' is a tensor of float8_e5m2"),
        (
            {'params': {'w': torch.ones(1).expand(10**12)}},
            r"'w' has the shape \(1000000000000,\), but the file contains 1",
        ),
        ({'params': {'w': torch.ones(0, 10**12)}}, "'w' has the shape"),
        ({'params': {'w': torch.tensor([1, float('nan')])}}, "'w' contains NaN or infinite values"),
        ({'params': {'w': torch.tensor([1, float('inf')])}}, "'w' contains NaN or infinite values"),
    ],
)
def test_contents_that_are_no_weights_are_reported(tmp_path, contents, problem):
    torch.save(contents, tmp_path / 'net.pth')
    with pytest.raises(InputError, match=f'net.pth:? {problem}') as caught:
        checkpoints.read(str(tmp_path / 'net.pth'), 'params')
    assert '\n' not in str(caught.value)


def test_parameters_views_and_shared_tensors_are_weights(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    weights = {'p': torch.nn.Parameter(base), 'v': base[:, 1], 't': base.t(), 's': base, 'n': torch.tensor(3)}
    torch.save({'params': weights}, tmp_path / 'net.pth')
    found = checkpoints.read(str(tmp_path / 'net.pth')).weights
    assert same(found, {key: value.detach() for key, value in weights.items()})
    assert {type(value) for value in found.values()} == {torch.Tensor}


@pytest.mark.parametrize(
    'change, message',
    [
        ({'B1.c1_r.pw.weight': torch.ones(8, 8, 5, 5)}, r'B1.c1_r.pw.weight is \(8, 8, 5, 5\) in the checkpoint'),
        ({'B1.c1_r.dw.weight': torch.ones(8, 1, 5, 5)}, r'B1.c1_r.dw.weight is \(8, 1, 5, 5\) in the checkpoint'),
        ({'upsampler.conv3.weight': torch.ones(8)}, r'upsampler.conv3.weight is \(8,\) in the checkpoint'),
        ({'c1.bias': torch.ones(8, dtype=torch.int32)}, r'c1.bias is \(8,\) of integers in the checkpoint'),
        ({'extra': torch.ones(3)}, 'the checkpoint has extra and the network has not'),
    ],
)
@pytest.mark.parametrize('form', [dict(conv='BSConvU_rep', upsampler='pixelshuffle_rep'), {}], ids=['train', 'fused'])
def test_weights_of_other_shapes_do_not_fit(form, change, message):
    small = dict(num_feat=8, num_atten=8, num_block=1)
    weights = archs.LKDN(**small, conv='BSConvU_rep', upsampler='pixelshuffle_rep').state_dict() | change
    with pytest.raises(InputError, match=message if form else 'in the checkpoint|the network has'):
        checkpoints.fit(archs.LKDN(**small, **form), weights)


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
        assert checkpoints.parse(loaded, 'net.pth', 'params_ema').weights.keys() == network.state_dict().keys()
