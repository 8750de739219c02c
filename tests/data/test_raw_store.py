import json
import multiprocessing
import os
import pickle
import shutil

import cv2
import numpy as np
import pytest

from lkdn_basicsr.data.prepare.stores import prepare_folder
from lkdn_basicsr.data.raw_store import RawStore, is_raw_store, write_index
from lkdn_basicsr.errors import InputError

SIZES = [(40, 64), (64, 40), (48, 48), (8, 8)]  # the last shares a page of LMDB with others


@pytest.fixture
def pictures(tmp_path):
    """Name to RGB pixels of the pictures in the store."""
    rng = np.random.default_rng(0)
    (tmp_path / 'hr').mkdir()
    images = {f'p{n}': rng.integers(0, 256, (*size, 3), dtype=np.uint8) for n, size in enumerate(SIZES)}
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / 'hr' / f'{name}.png'), image[..., ::-1])
    return images


@pytest.fixture
def path(tmp_path, pictures):
    return prepare_folder(str(tmp_path / 'out'), str(tmp_path / 'hr'), workers=1)[0]


def rewrite_index(path, **changes):
    """Change index.json as another release might have written it: with a checksum that fits."""
    with open(f'{path}/index.json', encoding='utf-8') as file:
        content = json.load(file)
    del content['checksum']
    write_index(path, dict(content, **changes))


def test_pictures_come_back_as_they_were(path, pictures):
    store = RawStore(path)
    assert store.path == path and len(store) == 4 and store.names == list(pictures)
    assert store.shapes.dtype == np.int64 and store.shapes.tolist() == [[*size, 3] for size in SIZES]
    for n, image in enumerate(pictures.values()):
        np.testing.assert_array_equal(store.image(n), image)
    np.testing.assert_array_equal(store.image(-1), pictures['p3'])
    with pytest.raises(IndexError):
        store.image(4)


def test_whole_pictures_are_views_that_nobody_can_write_to_and_crops_are_copies(path, pictures):
    store = RawStore(path)
    image = store.image(0)
    assert not image.flags.owndata and not image.flags.writeable
    crop = store.crop(0, 5, 7, 20, 30)
    assert crop.flags.owndata and crop.flags.writeable and crop.flags.c_contiguous
    np.testing.assert_array_equal(crop, pictures['p0'][5:25, 7:37])
    del store  # views outlive their store
    np.testing.assert_array_equal(image, pictures['p0'])


@pytest.mark.parametrize('top, left, height, width', [(-1, 0, 8, 8), (0, -1, 8, 8), (33, 0, 8, 8), (0, 57, 8, 8)])
def test_crops_that_leave_the_picture_are_refused(path, top, left, height, width):
    with pytest.raises(IndexError, match='leaves p0'):
        RawStore(path).crop(0, top, left, height, width)


def test_readers_share_one_map_in_a_process(path):
    first, second = RawStore(path), RawStore(os.path.join(path, '..', os.path.basename(path)))
    addresses = {store.image(0).ctypes.data for store in (first, second)}
    assert len(addresses) == 1


def same_crop(store, expected):
    assert (store.crop(1, 3, 4, 30, 20) == expected).all()
    assert (RawStore(store.path).image(1)[3:33, 4:24] == expected).all()


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_a_store_in_use_can_be_handed_to_other_processes(path, pictures, method):
    store = RawStore(path)
    expected = store.crop(1, 3, 4, 30, 20)
    process = multiprocessing.get_context(method).Process(target=same_crop, args=(store, expected))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    same_crop(pickle.loads(pickle.dumps(store)), expected)
    assert len(pickle.dumps(store)) < 500


def test_a_store_made_anew_under_the_same_name_is_read_anew(tmp_path, path, pictures):
    before = RawStore(path).image(0)
    shutil.rmtree(path)
    cv2.imwrite(str(tmp_path / 'hr' / 'p0.png'), 255 - pictures['p0'][..., ::-1])
    shutil.rmtree(tmp_path / 'out')
    prepare_folder(str(tmp_path / 'out'), str(tmp_path / 'hr'), workers=1)
    np.testing.assert_array_equal(RawStore(path).image(0), 255 - pictures['p0'])
    np.testing.assert_array_equal(before, pictures['p0'])


def test_what_is_no_store_is_refused_by_name(tmp_path, path):
    assert is_raw_store(path) and not is_raw_store(tmp_path) and not is_raw_store(tmp_path / 'nowhere')
    for other in (tmp_path / 'hr', tmp_path / 'nowhere', tmp_path / 'hr' / 'p0.png'):
        with pytest.raises(InputError, match='is not a store'):
            RawStore(other)


def test_a_format_or_version_of_another_release_is_refused(path):
    rewrite_index(path, version=2)
    with pytest.raises(InputError, match=r'format version 2, and this release reads version 1'):
        RawStore(path)
    rewrite_index(path, format='lkdn-png', version=1)
    with pytest.raises(InputError, match='format lkdn-png'):
        RawStore(path)


def test_a_damaged_index_is_refused(path):
    whole = open(f'{path}/index.json', 'rb').read()
    for damaged in (whole[:-9], whole.replace(b'"p1"', b'"p7"'), b'', b'[]', b'\xff' + whole):
        with open(f'{path}/index.json', 'wb') as file:
            file.write(damaged)
        with pytest.raises(InputError, match=r'index\.json'):
            RawStore(path)


def test_missing_or_short_data_are_refused_before_they_are_read(path):
    size = os.path.getsize(f'{path}/data.mdb')
    os.truncate(f'{path}/data.mdb', size // 2)
    with pytest.raises(InputError, match='cut short'):
        RawStore(path)
    os.remove(f'{path}/data.mdb')
    with pytest.raises(InputError, match='data.mdb is missing'):
        RawStore(path)


def test_data_short_by_one_page_are_refused_and_never_end_in_a_bus_error(path):
    os.truncate(f'{path}/data.mdb', os.path.getsize(f'{path}/data.mdb') - 4096)
    with pytest.raises(InputError, match='cut short'):
        RawStore(path).image(0)


def test_a_picture_that_is_not_the_one_of_the_index_is_refused(path):
    shapes = RawStore(path).shapes.tolist()
    rewrite_index(path, shapes=[[64, 40, 3], *shapes[1:]])
    with pytest.raises(InputError, match=r'ImagePair 0 \(p0\)'):
        RawStore(path).image(0)
    RawStore(path).image(1)
