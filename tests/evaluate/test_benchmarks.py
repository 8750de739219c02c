"""Test sets: found, paired, checked, read, and known by their pictures."""

import cv2
import numpy as np
import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate.benchmarks import read_benchmark
from tests.support.networks import write_set


def test_a_set(tmp_path):
    benchmark = read_benchmark(write_set(tmp_path, 'Waves', 2), 2)
    assert (benchmark.name, benchmark.scale, list(benchmark.images)) == ('Waves', 2, ['a', 'b'])
    gt, lq = benchmark.read('b')
    assert gt.shape == (40, 48, 3) and lq.shape == (20, 24, 3) and gt.dtype == lq.dtype == np.uint8
    assert np.array_equal(gt, cv2.imread(benchmark.images['b'][0]))
    assert read_benchmark(str(tmp_path / 'Waves') + '/', 2).name == 'Waves'


def test_lr_pictures_may_carry_the_scale(tmp_path):
    folder = write_set(tmp_path)
    (folder / 'LRbicx4' / 'a.png').rename(folder / 'LRbicx4' / 'ax4.png')
    assert read_benchmark(folder, 4).images['a'][1].endswith('ax4.png')


def test_grey_and_16_bit_pictures_are_read_as_basicsr_does(tmp_path):
    folder = write_set(tmp_path, pictures=('a',))
    grey = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) * 34
    cv2.imwrite(str(folder / 'GTmod4' / 'a.png'), grey)
    gt, _ = read_benchmark(folder, 4).read('a')
    assert gt.dtype == np.uint8 and gt.shape == (40, 48, 3)
    assert np.array_equal(gt, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2))


def test_the_checksum_is_that_of_all_pictures(tmp_path):
    folder, same = write_set(tmp_path, 'A'), write_set(tmp_path, 'B')
    before = read_benchmark(folder, 4).checksum
    assert read_benchmark(same, 4).checksum == before
    for kind in ('GTmod4', 'LRbicx4'):
        path = str(folder / kind / 'b.png')
        image = cv2.imread(path)
        image[0, 0, 0] ^= 1
        cv2.imwrite(path, image)
        after = read_benchmark(folder, 4).checksum
        assert after != before
        before = after
    (same / 'GTmod4' / 'b.png').rename(same / 'GTmod4' / 'c.png')
    (same / 'LRbicx4' / 'b.png').rename(same / 'LRbicx4' / 'c.png')
    assert read_benchmark(same, 4).checksum != read_benchmark(write_set(tmp_path, 'C'), 4).checksum


def drop_lr(folder):
    (folder / 'LRbicx4' / 'a.png').unlink()


def drop_hr(folder):
    (folder / 'GTmod4' / 'a.png').unlink()


def shrink_lr(folder):
    cv2.imwrite(str(folder / 'LRbicx4' / 'a.png'), np.zeros((10, 11, 3), np.uint8))


def shrink_both(folder):
    cv2.imwrite(str(folder / 'LRbicx4' / 'a.png'), np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite(str(folder / 'GTmod4' / 'a.png'), np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    'spoil, message',
    [
        (drop_lr, 'a.png has no LR picture ax4'),
        (drop_hr, 'LRbicx4/a.png belongs to no HR picture'),
        (shrink_lr, 'a.png is 48×40 pixels and .*LRbicx4/a.png is 11×10, which is not 4 times less'),
        (shrink_both, 'a.png is 16×16 pixels, and SSIM needs 19'),
    ],
)
def test_sets_that_cannot_be_used(spoil, message, tmp_path):
    folder = write_set(tmp_path)
    spoil(folder)
    with pytest.raises(InputError, match=message):
        read_benchmark(folder, 4)


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match='has no folder GTmod3: .*prepare_benchmark.py --hr DIR --out .* --scale 3'):
        read_benchmark(write_set(tmp_path), 3)
    with pytest.raises(InputError, match='has no folder GTmod4'):
        read_benchmark(tmp_path / 'nowhere', 4)


def test_a_damaged_picture(tmp_path):
    folder = write_set(tmp_path)
    path = folder / 'GTmod4' / 'a.png'
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match='GTmod4/a.png is damaged'):
        read_benchmark(folder, 4).read('a')


def test_set5(shared):
    benchmark = read_benchmark(shared / 'data' / 'Set5', 4)
    assert (benchmark.name, len(benchmark.images)) == ('Set5', 5)
