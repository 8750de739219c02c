"""Benchmarks: found, paired, checked, read, and identified by their images."""

import cv2
import numpy as np
import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate.benchmarks import read_benchmark
from tests.support.networks import write_benchmark


def test_read_benchmark(tmp_path):
    benchmark = read_benchmark(write_benchmark(tmp_path, 'Waves', 2), 2)
    assert (benchmark.name, benchmark.scale, list(benchmark.images)) == ('Waves', 2, ['a', 'b'])
    gt, lq = benchmark.read('b')
    assert gt.shape == (40, 48, 3) and lq.shape == (20, 24, 3) and gt.dtype == lq.dtype == np.uint8
    assert np.array_equal(gt, cv2.imread(benchmark.images['b'][0]))
    assert read_benchmark(str(tmp_path / 'Waves') + '/', 2).name == 'Waves'


def test_lr_names_may_end_with_the_scale(tmp_path):
    folder = write_benchmark(tmp_path)
    (folder / 'LRbicx4' / 'a.png').rename(folder / 'LRbicx4' / 'ax4.png')
    assert read_benchmark(folder, 4).images['a'][1].endswith('ax4.png')


def test_gray_and_16_bit_images_are_read_as_basicsr_does(tmp_path):
    folder = write_benchmark(tmp_path, images=('a',))
    gray = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) * 34
    cv2.imwrite(str(folder / 'GTmod4' / 'a.png'), gray)
    gt, _ = read_benchmark(folder, 4).read('a')
    assert gt.dtype == np.uint8 and gt.shape == (40, 48, 3)
    assert np.array_equal(gt, np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, 2))


def test_the_checksum_depends_on_all_images(tmp_path):
    folder, same = write_benchmark(tmp_path, 'A'), write_benchmark(tmp_path, 'B')
    original = read_benchmark(folder, 4).checksum
    assert read_benchmark(same, 4).checksum == original
    checksums = {original}
    for kind in ('GTmod4', 'LRbicx4'):
        path = str(folder / kind / 'b.png')
        image = cv2.imread(path)
        image[0, 0, 0] ^= 1
        cv2.imwrite(path, image)
        checksums.add(read_benchmark(folder, 4).checksum)
        (same / kind / 'b.png').rename(same / kind / 'c.png')
    checksums.add(read_benchmark(same, 4).checksum)
    assert len(checksums) == 4


def write_images(height, width, lr_height, lr_width):
    def spoil(folder):
        for kind, size in (('GTmod4', (height, width, 3)), ('LRbicx4', (lr_height, lr_width, 3))):
            cv2.imwrite(str(folder / kind / 'a.png'), np.zeros(size, np.uint8))

    return spoil


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda folder: (folder / 'LRbicx4' / 'a.png').unlink(), 'a.png has no LR .*ax4'),
        (lambda folder: (folder / 'GTmod4' / 'a.png').unlink(), 'LRbicx4/a.png .*no HR'),
        (write_images(40, 48, 10, 11), 'a.png is 48×40 pixels, which is not 4 times .*LRbicx4/a.png with 11×10'),
        (write_images(16, 16, 4, 4), 'a.png is 16×16 pixels, but SSIM needs at least 19'),
    ],
    ids=['no LR', 'no HR', 'other sizes', 'too small'],
)
def test_images_that_cannot_be_used(spoil, message, tmp_path):
    folder = write_benchmark(tmp_path)
    spoil(folder)
    with pytest.raises(InputError, match=message):
        read_benchmark(folder, 4)


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match='has no folder GTmod3: .*prepare benchmark --hr DIR --out .* --scale 3'):
        read_benchmark(write_benchmark(tmp_path), 3)
    with pytest.raises(InputError, match='has no folder GTmod4'):
        read_benchmark(tmp_path / 'nowhere', 4)


def test_a_damaged_image(tmp_path):
    folder = write_benchmark(tmp_path)
    path = folder / 'GTmod4' / 'a.png'
    benchmark = read_benchmark(folder, 4)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match='GTmod4/a.png is '):
        benchmark.read('a')
    with pytest.raises(InputError, match='GTmod4/a.png is '):
        read_benchmark(folder, 4)


def test_set5(shared):
    benchmark = read_benchmark(shared / 'data' / 'Set5', 4)
    assert (benchmark.name, len(benchmark.images)) == ('Set5', 5)
