import json
import multiprocessing
import os
import pickle
import shutil
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lkdn_basicsr.data import background, raw_store
from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.data.raw_store import RawStore, is_raw_store, write_index
from lkdn_basicsr.errors import InputError, system_error
from tests.support.images import flipped, prepare, write_folder, write_images
from tests.support.system import as_nobody

SIZES = [(40, 64), (64, 40), (48, 48), (8, 8)]  # the last is in a page of LMDB with others


@pytest.fixture
def images(tmp_path):
    """Name to RGB pixels of the images in the store."""
    parts = [write_images(tmp_path / 'hr', [f'p{n}'], size, seed=n) for n, size in enumerate(SIZES)]
    return {name: image for part in parts for name, image in part.items()}


@pytest.fixture
def path(tmp_path, images):
    return prepare(tmp_path / 'out', tmp_path / 'hr')[0]


def test_images_are_read_as_they_were_written(path, images):
    store = RawStore(path)
    assert store.path == path and len(store) == 4 and store.names == list(images)
    assert store.shapes.dtype == np.int64 and store.shapes.tolist() == [[*size, 3] for size in SIZES]
    for n, image in enumerate(images.values()):
        np.testing.assert_array_equal(store.image(n), image)
    np.testing.assert_array_equal(store.image(-1), images['p3'])
    with pytest.raises(IndexError):
        store.image(4)


def test_images_are_read_only_views_into_one_map_and_outlive_their_store(path, images):
    first, second = RawStore(path), RawStore(os.path.join(path, '..', os.path.basename(path)))
    image = first.image(0)
    assert not image.flags.owndata and not image.flags.writeable
    assert image.ctypes.data == second.image(0).ctypes.data
    del first, second
    np.testing.assert_array_equal(image, images['p0'])


def assert_same_image(store, expected):
    assert (store.image(1) == expected).all()
    assert (RawStore(store.path).image(1) == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_an_open_store_can_be_passed_to_other_processes(path, images, method):
    store = RawStore(path)
    expected = store.image(1).copy()
    process = multiprocessing.get_context(method).Process(target=assert_same_image, args=(store, expected))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert_same_image(pickle.loads(pickle.dumps(store)), expected)
    assert len(pickle.dumps(store)) < 500


def test_a_store_that_is_replaced_under_the_same_name_is_read_again(tmp_path, path, images):
    before = RawStore(path).image(0)
    write_folder(tmp_path / 'hr', {'p0': 255 - images['p0']})
    shutil.rmtree(tmp_path / 'out')
    prepare(tmp_path / 'out', tmp_path / 'hr')
    np.testing.assert_array_equal(RawStore(path).image(0), 255 - images['p0'])
    np.testing.assert_array_equal(before, images['p0'])


def test_other_folders_and_files_are_refused_by_name(tmp_path, path):
    assert is_raw_store(path) and not is_raw_store(tmp_path) and not is_raw_store(tmp_path / 'nowhere')
    for other in (tmp_path / 'hr', tmp_path / 'nowhere', tmp_path / 'hr' / 'p0.png'):
        with pytest.raises(InputError, match='is not a store'):
            RawStore(other)


def edit_index(path, **changes):
    """Change entries of ``index.json``, or remove those that are None; its checksum matches again."""
    content = json.loads(Path(path, 'index.json').read_text())
    del content['checksum']
    write_index(path, {key: value for key, value in (content | changes).items() if value is not None})


def test_a_damaged_index_is_refused(path):
    file = Path(path, 'index.json')
    content = file.read_bytes()
    damages = [content[:-9], content.replace(b'"p1"', b'"p7"'), b'', b'[]', b'\xff' + content, b'[' * 100_000]
    for damaged in (*damages, b'{"checksum": 0, "names": ["\\udc80"]}'):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r'index\.json'):
            RawStore(path)


@pytest.mark.parametrize(
    'change, reason',
    [
        (dict(version=2), 'has format version 2, and this release reads version 1'),
        (dict(format='lkdn-png', crc32=[]), 'is a store of format lkdn-png, not a raw store'),
        (dict(format=7, crc32=[]), "no valid 'format'"),
        (dict(settings=None), "no valid 'settings'"),
        (dict(crc32=None), "no valid 'crc32'"),
        (dict(crc32=[1, 2, 3]), "no valid 'crc32'"),
        (dict(crc32=[1, 2, 3, 'x']), "no valid 'crc32'"),
        (dict(crc32=[1, 2, 3, 1 << 32]), "no valid 'crc32'"),
        (dict(names=['a', 'a', 'b', 'c']), "several images of one name in 'names'"),
        (dict(names=['a', 'b', 'c']), "no valid 'shapes'"),
        (dict(names=7), "no valid 'names'"),
        (dict(shapes=[[40, 64, 3]] * 3 + [[8, 8]]), "no valid 'shapes'"),
        (dict(shapes=[[40, 64, 3]] * 3 + [[8, -8, 3]]), "no valid 'shapes'"),
        (dict(shapes=[[40, 64, 3]] * 3 + [[8, 10**30, 3]]), "no valid 'shapes'"),
        (dict(shapes=[[40, 64, 3]] * 4), 'Image 1 (p1) of'),
        (dict(crc32=[1, 2, 3, 4]), 'Image 0 (p0) of'),
        (dict(names=list('abc'), shapes=[[40, 64, 3], [64, 40, 3], [48, 48, 3]], crc32=None), "no valid 'crc32'"),
    ],
)
def test_an_index_that_was_edited_is_refused_when_the_store_is_opened(path, change, reason):
    edit_index(path, **change)
    with pytest.raises(InputError) as error:
        RawStore(path)
    assert reason in str(error.value) and path in str(error.value) and '\n' not in str(error.value)


def test_pipes_are_not_opened(tmp_path, path):
    os.mkfifo(tmp_path / 'index.json')
    assert not is_raw_store(str(tmp_path))
    with pytest.raises(InputError, match='is not a store'):
        RawStore(str(tmp_path))
    os.remove(f'{path}/data.mdb')
    os.mkfifo(f'{path}/data.mdb')
    with pytest.raises(InputError, match='data.mdb is missing or not a file'):
        RawStore(path)


@pytest.mark.parametrize('file', ['index.json', 'data.mdb'])
def test_files_that_may_not_be_read_are_not_damaged(tmp_path, path, monkeypatch, file):
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    place = os.path.join(os.path.relpath(path), file)
    RawStore(os.path.relpath(path))
    os.chmod(place, 0)
    with as_nobody(), pytest.raises((InputError, OSError)) as caught:
        RawStore(os.path.relpath(path))
    assert str(system_error(caught.value) or caught.value).startswith(f'{place}: permission denied')


def test_missing_or_short_data_are_refused_and_never_end_in_a_bus_error(path):
    data = f'{path}/data.mdb'
    size = os.path.getsize(data)
    for length in (size - 4096, size // 2):
        os.truncate(data, length)
        with pytest.raises(InputError, match='cut short'):
            RawStore(path).image(0)
    os.remove(data)
    with pytest.raises(InputError, match='data.mdb is missing'):
        RawStore(path)


@pytest.mark.parametrize('part', ['all', 'meta', 'tree', 'header', 'place', 'entry', 'more'])
def test_damage_outside_of_pixels_is_found_when_the_store_is_opened(path, part):
    file = Path(path, 'data.mdb')
    data, places = bytearray(file.read_bytes()), locate(file)[0]
    begin, _ = places[b'00000001']
    key = data.rindex(b'00000001')  # in the newest leaf
    if part == 'entry':
        edit_lmdb(path, lambda transaction: transaction.delete(b'00000003'))
    elif part == 'more':
        edit_lmdb(path, lambda transaction: transaction.put(b'00000009', b'x'))
    else:
        damaged = {'all': slice(0, len(data)), 'meta': slice(0, 8192), 'header': slice(begin, begin + 32)}
        damaged |= {'tree': slice(key - 40, key + 40), 'place': slice(key + 8, key + 16)}
        data[damaged[part]] = bytes(len(data[damaged[part]]))
        file.write_bytes(data)
    with pytest.raises(InputError, match=path):
        RawStore(path)


def edit_lmdb(path, edit):
    with lmdb.open(path, lock=False, map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        edit(transaction)


@pytest.fixture
def damaged(path):
    """The store with one bit of ``p1`` flipped."""
    file = Path(path, 'data.mdb')
    begin, size = locate(file)[0][b'00000001']
    file.write_bytes(flipped(file.read_bytes(), begin + size // 2))
    return path


def test_pixels_are_verified_before_they_are_returned(damaged, images):
    store = RawStore(damaged)
    np.testing.assert_array_equal(store.image(0), images['p0'])
    with pytest.raises(InputError, match=r'Image 1 \(p1\) of .*HR.lmdb does not match its checksum; copy'):
        store.image(1)
    with pytest.raises(InputError, match='Image 1'):
        RawStore(damaged).image(0)  # once it is known, nothing is read
    with pytest.raises(InputError, match='Image 1'):
        RawStore(damaged).verify(1)


def wait_for_background():
    done = threading.Event()
    background.run_in_background(done.set)
    assert done.wait(60)


def test_pixels_are_verified_in_the_background(damaged, images):
    store = RawStore(damaged, verify_at_once=False)
    before = store.image(0)
    store.image(1)
    wait_for_background()
    for reader in (store, RawStore(damaged, verify_at_once=False)):
        with pytest.raises(InputError, match=r'Image 1 \(p1\)'):
            reader.image(0)
    np.testing.assert_array_equal(before, images['p0'])


def test_each_image_is_verified_once(path, monkeypatch):
    jobs = []
    monkeypatch.setattr(raw_store, 'run_in_background', lambda function, *arguments: jobs.append(arguments))
    store = RawStore(path, verify_at_once=False)
    for i in (0, 1, 1, 0, -1):
        store.image(i)
    assert jobs == [(0,), (1,), (3,)]
    for i in range(3):
        store.verify(i)
    other = RawStore(path, verify_at_once=False)
    for i in range(4):
        other.image(i)
    assert jobs[3:] == [(3,)]


@pytest.mark.parametrize('method', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_workers_verify_what_they_read(damaged, method):
    dataset = Images(RawStore(damaged, verify_at_once=False))
    with pytest.raises(InputError, match=r'^Image 1 \(p1\) of .* does not match'):
        list(DataLoader(dataset, None, sampler=[1, 2], num_workers=1, multiprocessing_context=method))


def test_what_a_process_finds_is_known_to_its_workers(damaged):
    store = RawStore(damaged, verify_at_once=False)
    process = multiprocessing.get_context('fork').Process(target=assert_damaged, args=(store,))
    store.image(1)
    wait_for_background()
    process.start()
    process.join(60)
    assert process.exitcode == 0


def assert_damaged(store):
    with pytest.raises(InputError, match=r'Image 1 \(p1\)'):
        store.image(2)


class Images(torch.utils.data.Dataset):
    """The images of a store; each is returned when the background has verified those before it."""

    def __init__(self, store):
        self.store = store

    def __getitem__(self, i):
        self.store.image(i)
        wait_for_background()
        return i
