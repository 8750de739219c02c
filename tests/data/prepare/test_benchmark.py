import errno
import itertools
import os

import cv2
import numpy as np
import pytest

from lkdn_basicsr.data import imresize
from lkdn_basicsr.data.prepare import benchmark
from lkdn_basicsr.data.prepare.benchmark import prepare_benchmark
from lkdn_basicsr.errors import InputError
from tests.support.images import write_images


@pytest.fixture
def hr(tmp_path):
    write_images(tmp_path / 'hr', '0', (37, 50))
    write_images(tmp_path / 'hr', '1', (24, 31))
    return str(tmp_path / 'hr')


@pytest.mark.parametrize('edges', ['mirror', 'repeat'])
def test_folders_contain_cropped_images_and_their_bicubic(tmp_path, hr, edges):
    out = tmp_path / 'set'
    prepare_benchmark(hr, str(out), scales=(3, 4), edges=edges)
    assert sorted(os.listdir(out)) == ['.lock', 'GTmod3', 'GTmod4', 'LRbicx3', 'LRbicx4']
    for scale, name in itertools.product((3, 4), ('0.png', '1.png')):
        paths = f'{hr}/{name}', f'{out}/GTmod{scale}/{name}', f'{out}/LRbicx{scale}/{name}'
        original, gt, lq = map(cv2.imread, paths)
        height, width = (side // scale * scale for side in original.shape[:2])
        np.testing.assert_array_equal(gt, original[:height, :width])
        np.testing.assert_array_equal(lq, imresize(gt, 1 / scale, edges))


def test_a_second_run_changes_nothing_and_other_images_are_refused(tmp_path, hr):
    out, lines = tmp_path / 'set', []
    prepare_benchmark(hr, str(out))
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    prepare_benchmark(hr, str(out), log=lines.append)
    assert all('Already complete' in line for line in lines) and len(lines) == 2
    os.remove(f'{hr}/1.png')
    with pytest.raises(InputError, match='has other images'):
        prepare_benchmark(hr, str(out))
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before


def test_names_that_are_not_utf_8_are_kept(tmp_path, hr):
    name = os.fsdecode(b'\xff')
    os.rename(f'{hr}/1.png', f'{hr}/{name}.png')
    prepare_benchmark(hr, str(tmp_path / name))
    assert set(os.listdir(tmp_path / name / 'LRbicx4')) == {'0.png', f'{name}.png'}


def test_nothing_is_left_behind_after_an_error(tmp_path, hr, monkeypatch):
    def fail(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(benchmark, 'replace', fail)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        prepare_benchmark(hr, str(tmp_path / 'set'))
    assert os.listdir(tmp_path / 'set') == ['.lock']


def test_unusable_images_are_listed_together_and_nothing_is_made(tmp_path, hr):
    cv2.imwrite(f'{hr}/tiny.png', np.zeros((3, 9, 3), np.uint8))
    with open(f'{hr}/broken.png', 'wb') as file:
        file.write(b'not an image')
    with pytest.raises(InputError) as error:
        prepare_benchmark(hr, str(tmp_path / 'set'))
    assert 'tiny.png is smaller' in str(error.value) and 'broken.png' in str(error.value)
    assert not (tmp_path / 'set').exists()
