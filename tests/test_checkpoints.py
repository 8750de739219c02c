"""Checkpoint files: the download of the official ones, and what is refused."""

import functools
import hashlib
import http.server
import threading

import pytest
import torch

from lkdn_basicsr import archs, checkpoints
from lkdn_basicsr.errors import InputError


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server on this machine in the place of the authors' repository; gives its folder."""
    folder = tmp_path / 'served'
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(checkpoints, 'OFFICIAL_URL', f'http://127.0.0.1:{server.server_port}')
    monkeypatch.setenv('no_proxy', '*')
    yield folder
    server.shutdown()


def test_missing_official_weights_are_downloaded_once(served, tmp_path, monkeypatch):
    (served / 'LKDN_x4.pth').write_bytes(b'weights')
    monkeypatch.setitem(checkpoints.OFFICIAL_SHA256, 'LKDN_x4.pth', hashlib.sha256(b'weights').hexdigest())
    path = tmp_path / 'new/folder/LKDN_x4.pth'
    checkpoints.ensure(str(path))
    assert path.read_bytes() == b'weights'
    (served / 'LKDN_x4.pth').unlink()
    checkpoints.ensure(str(path))  # nothing is asked for


@pytest.mark.parametrize('content', [b'other weights', None], ids=['wrong sum', 'not found'])
def test_failed_download_leaves_nothing_and_says_where_the_file_belongs(served, tmp_path, content):
    if content is not None:
        (served / 'LKDN_x4.pth').write_bytes(content)
    path = tmp_path / 'folder/LKDN_x4.pth'
    with pytest.raises(InputError, match=f'put it at {path}'):
        checkpoints.ensure(str(path))
    assert not list(path.parent.iterdir())


def test_file_that_nobody_publishes_is_not_looked_for(tmp_path):
    with pytest.raises(InputError, match='mine.pth is not there'):
        checkpoints.ensure(str(tmp_path / 'mine.pth'))


def test_official_files_are_those_of_the_published_sums(shared):
    for path in (shared / 'official').iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == checkpoints.OFFICIAL_SHA256[path.name]


@pytest.mark.parametrize('how', ['missing', 'empty', 'text', 'cut short', 'flipped byte', 'a tensor', 'code'])
def test_file_that_is_no_checkpoint_is_refused_by_name(tmp_path, how):
    path = tmp_path / 'net.pth'
    torch.save({'a tensor': torch.zeros(1), 'code': {'f': print}}.get(how, {'w': torch.arange(5000.0)}), path)
    if how == 'a tensor':
        torch.save(torch.zeros(1), path)
    data = bytearray(path.read_bytes())
    if how == 'missing':
        path.unlink()
    elif how == 'flipped byte':
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how in ('empty', 'text', 'cut short'):
        path.write_bytes({'empty': b'', 'text': b'hello', 'cut short': data[: len(data) // 2]}[how])
    with pytest.raises(InputError, match='net.pth'):
        checkpoints.load(path)


@pytest.mark.parametrize(
    'checkpoint, param_key, found',
    [
        ({'params': {'w': 1}, 'params_ema': {'w': 2}}, 'params', 'params'),
        ({'params': {'w': 1}, 'params_ema': {'w': 2}}, 'params_ema', 'params_ema'),
        ({'params': {'w': 1}, 'params_ema': {'w': 2}}, None, 'params_ema'),
        ({'params': {'w': 1}}, 'params_ema', 'params'),
        ({'w': 1}, 'params', None),
        ({'module.w': 1}, None, None),
    ],
)
def test_weights_are_found_wherever_they_are(checkpoint, param_key, found):
    weights, key = checkpoints.pick_weights(checkpoint, param_key)
    assert key == found and set(weights) == {'w'}


def test_what_a_checkpoint_notes_of_its_network_outlives_a_wrap():
    network = archs.LKDN(num_feat=8, num_atten=8, num_block=1, conv='BSConvU_idt', activation='silu')
    weights, _ = checkpoints.pick_weights({'params': torch.nn.DataParallel(network).state_dict()})
    _, arguments = archs.config_from_state_dict(weights)
    assert (arguments['conv'], arguments['activation']) == ('BSConvU_idt', 'silu')


@pytest.mark.parametrize(
    'contents', [b'# Read me\n' * 9, b'\x89PNG\r\n\x1a\n' + bytes(90), b''], ids=['text', 'picture', 'nothing']
)
def test_what_is_no_checkpoint_is_not_said_to_hold_code(tmp_path, contents):
    (tmp_path / 'net.pth').write_bytes(contents)
    with pytest.raises(InputError, match='net.pth is damaged, or no PyTorch checkpoint'):
        checkpoints.load(tmp_path / 'net.pth')
