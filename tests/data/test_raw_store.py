import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from lkdn_basicsr.data.raw_store import RawStore, is_raw_store, read_index, write_index
from lkdn_basicsr.errors import InputError
from tests.support.images import prepare, write_folder, write_images

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


def test_a_damaged_index_and_one_of_another_release_are_refused(path):
    file = Path(path, 'index.json')
    content, index = file.read_bytes(), read_index(path)
    for damaged in (content[:-9], content.replace(b'"p1"', b'"p7"'), b'', b'[]', b'\xff' + content):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r'index\.json'):
            RawStore(path)
    for change in ({'version': 2}, {'format': 'lkdn-png'}):
        write_index(path, index | change)
        with pytest.raises(InputError, match='format version 2, and this release reads version 1|format lkdn-png,'):
            RawStore(path)


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


def test_an_image_that_does_not_match_the_index_is_refused(path):
    index = read_index(path)
    index['shapes'][0] = [64, 40, 3]
    write_index(path, index)
    with pytest.raises(InputError, match=r'Image 0 \(p0\)'):
        RawStore(path).image(0)
    RawStore(path).image(1)
