"""A small test set, and methods whose pictures of it are made by formula."""

import cv2
import numpy as np

from lkdn_basicsr.data import imresize
from lkdn_basicsr.evaluate.benchmarks import read_benchmark
from lkdn_basicsr.evaluate.results import BenchmarkScores, Result


def benchmark(folder, sizes, scale=4, seed=0):
    """A set of smoothed noise pictures, ``p0``, ``p1``, … of (height, width); returns the Benchmark."""
    rng = np.random.default_rng(seed)
    for kind in ('GTmod', 'LRbicx'):
        (folder / f'{kind}{scale}').mkdir(parents=True)
    for i, (height, width) in enumerate(sizes):
        gt = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 1.5)
        cv2.imwrite(str(folder / f'GTmod{scale}' / f'p{i}.png'), gt)
        cv2.imwrite(str(folder / f'LRbicx{scale}' / f'p{i}.png'), imresize(gt, 1 / scale))
    return read_benchmark(str(folder), scale)


benchmark.__test__ = False


def result(method, folder, sets, change, params=100_000, multi_adds=5_000_000_000, psnr=30.0):
    """A method whose SR pictures are ``change(gt, picture)``; its scores are made up: ``psnr`` and 0.8."""
    scores = {}
    for one in sets:
        place = folder / method.encode().hex() / one.name
        place.mkdir(parents=True)
        for picture in one.images:
            cv2.imwrite(str(place / f'{picture}.png'), change(one.read(picture)[0].copy(), picture))
        scores[one.name] = BenchmarkScores(dict.fromkeys(one.images, psnr), dict.fromkeys(one.images, 0.8), str(place))
    return Result(method, sets[0].scale, scores, params, multi_adds)


def bicubic(folder, sets):
    """What ``measure_bicubic`` gives: no costs."""
    made = result('Bicubic', folder, sets, lambda gt, picture: cv2.GaussianBlur(gt, (0, 0), 2), psnr=25.0)
    made.params = made.multi_adds = None
    return made


def noisy(level, seed=0):
    """A change by noise of ±level."""

    def change(gt, picture):
        noise = np.random.default_rng(seed).integers(-level, level + 1, gt.shape)
        return np.clip(gt + noise, 0, 255).astype(np.uint8)

    return change
