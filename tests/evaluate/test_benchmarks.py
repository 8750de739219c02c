"""Benchmarks: found, paired, checked, read, and identified by their images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate.benchmarks import read_benchmark
from tests.support.results import make_benchmark


@pytest.fixture
def folder(tmp_path):
    """A benchmark of p0 and p1, 40×48 pixels."""
    return Path(make_benchmark(tmp_path / 'Waves').folder)


def test_read_benchmark(folder):
    benchmark = read_benchmark(f'{folder}/', 4)
    assert (benchmark.name, benchmark.scale, list(benchmark.images)) == ('Waves', 4, ['p0', 'p1'])
    gt, lq = benchmark.read('p1')
    assert gt.shape == (40, 48, 3) and lq.shape == (10, 12, 3) and gt.dtype == lq.dtype == np.uint8
    assert np.array_equal(gt, cv2.imread(benchmark.images['p1'][0]))


def test_lr_names_may_end_with_the_scale(folder):
    (folder / 'LRbicx4' / 'p0.png').rename(folder / 'LRbicx4' / 'p0x4.png')
    assert read_benchmark(folder, 4).images['p0'][1].endswith('p0x4.png')


def test_gray_images_are_read_as_basicsr_does_and_16_bit_images_are_refused(folder):
    gray = (np.arange(40 * 48) % 256).astype(np.uint8).reshape(40, 48)
    cv2.imwrite(str(folder / 'GTmod4' / 'p0.png'), gray)
    gt, _ = read_benchmark(folder, 4).read('p0')
    assert gt.dtype == np.uint8
    assert np.array_equal(gt, np.repeat(gray[..., None], 3, 2))
    cv2.imwrite(str(folder / 'GTmod4' / 'p0.png'), gray.astype(np.uint16))
    with pytest.raises(InputError, match='p0.png has 16 bits per channel'):
        read_benchmark(folder, 4)


def test_the_checksum_depends_on_all_images(folder, tmp_path):
    same = tmp_path / 'same'
    checksums = {read_benchmark(folder, 4).checksum, make_benchmark(same).checksum}
    assert len(checksums) == 1
    for kind in ('GTmod4', 'LRbicx4'):
        path = str(folder / kind / 'p1.png')
        image = cv2.imread(path)
        image[0, 0, 0] ^= 1
        cv2.imwrite(path, image)
        checksums.add(read_benchmark(folder, 4).checksum)
        (same / kind / 'p1.png').rename(same / kind / 'p2.png')
    checksums.add(read_benchmark(same, 4).checksum)
    assert len(checksums) == 4


@pytest.mark.parametrize(
    'sizes, message',
    [
        ({'LRbicx4': None}, 'p0.png has no LR .*p0x4'),
        ({'GTmod4': None}, 'LRbicx4/p0.png .*no HR'),
        ({'LRbicx4': (10, 11)}, 'p0.png is 48×40 pixels, which is not 4 times .*LRbicx4/p0.png with 11×10'),
        ({'GTmod4': (16, 16), 'LRbicx4': (4, 4)}, 'p0.png is 16×16 pixels, but SSIM needs at least 19'),
    ],
)
def test_images_that_cannot_be_used(sizes, message, folder):
    for kind, size in sizes.items():
        path = folder / kind / 'p0.png'
        path.unlink() if size is None else cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))
    with pytest.raises(InputError, match=message):
        read_benchmark(folder, 4)


def test_a_missing_folder(folder, tmp_path):
    with pytest.raises(InputError, match='has no folder GTmod3: .*prepare benchmark --hr DIR --out .* --scale 3'):
        read_benchmark(folder, 3)
    with pytest.raises(InputError, match='has no folder GTmod4'):
        read_benchmark(tmp_path / 'nowhere', 4)


def test_a_damaged_image(folder):
    path, benchmark = folder / 'GTmod4' / 'p0.png', read_benchmark(folder, 4)
    path.write_bytes(path.read_bytes()[:200])
    for read in (lambda: benchmark.read('p0'), lambda: read_benchmark(folder, 4)):
        with pytest.raises(InputError, match='GTmod4/p0.png is '):
            read()
