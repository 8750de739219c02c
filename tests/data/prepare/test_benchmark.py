import os

import cv2
import numpy as np
import pytest

from lkdn_basicsr.data import imresize
from lkdn_basicsr.data.prepare.benchmark import prepare_benchmark
from lkdn_basicsr.errors import InputError


@pytest.fixture
def hr(tmp_path):
    (tmp_path / 'hr').mkdir()
    rng = np.random.default_rng(0)
    for n, size in enumerate([(37, 50), (24, 31)]):
        cv2.imwrite(f'{tmp_path}/hr/{n}.png', rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return str(tmp_path / 'hr')


@pytest.mark.parametrize('edges', ['mirror', 'repeat'])
def test_folders_hold_cropped_pictures_and_their_bicubic(tmp_path, hr, edges):
    out = tmp_path / 'set'
    prepare_benchmark(hr, str(out), scales=(3, 4), edges=edges)
    assert sorted(os.listdir(out)) == ['GTmod3', 'GTmod4', 'LRbicx3', 'LRbicx4']
    for scale in (3, 4):
        for name in ('0.png', '1.png'):
            original = cv2.imread(f'{hr}/{name}')
            height, width = (side // scale * scale for side in original.shape[:2])
            gt = cv2.imread(str(out / f'GTmod{scale}' / name))
            np.testing.assert_array_equal(gt, original[:height, :width])
            lq = cv2.imread(str(out / f'LRbicx{scale}' / name))
            np.testing.assert_array_equal(lq, imresize(gt, 1 / scale, edges))


def test_a_second_run_changes_nothing_and_other_pictures_are_refused(tmp_path, hr):
    out, said = tmp_path / 'set', []
    prepare_benchmark(hr, str(out))
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    prepare_benchmark(hr, str(out), say=said.append)
    assert all('Already complete' in line for line in said) and len(said) == 2
    os.remove(f'{hr}/1.png')
    with pytest.raises(InputError, match='has other pictures'):
        prepare_benchmark(hr, str(out))
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before


def test_unusable_pictures_are_listed_together_and_nothing_is_made(tmp_path, hr):
    cv2.imwrite(f'{hr}/tiny.png', np.zeros((3, 9, 3), np.uint8))
    with open(f'{hr}/broken.png', 'wb') as file:
        file.write(b'no picture')
    with pytest.raises(InputError) as error:
        prepare_benchmark(hr, str(tmp_path / 'set'))
    assert 'tiny.png is smaller' in str(error.value) and 'broken.png' in str(error.value)
    assert not (tmp_path / 'set').exists()
