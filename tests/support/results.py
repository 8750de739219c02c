"""Small benchmarks of synthetic images, and methods with synthetic outputs and scores."""

import cv2
import numpy as np

from lkdn_basicsr.data import imresize
from lkdn_basicsr.evaluate.benchmarks import read_benchmark
from lkdn_basicsr.evaluate.results import BenchmarkScores, Result


def make_benchmark(folder, sizes=((40, 48), (40, 48)), scale=4, seed=0):
    """Write a benchmark of smoothed noise, ``p0``, ``p1``, … of (height, width), and read it."""
    rng = np.random.default_rng(seed)
    for kind in ('GTmod', 'LRbicx'):
        (folder / f'{kind}{scale}').mkdir(parents=True)
    for i, (height, width) in enumerate(sizes):
        gt = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 1.5)
        cv2.imwrite(str(folder / f'GTmod{scale}' / f'p{i}.png'), gt)
        cv2.imwrite(str(folder / f'LRbicx{scale}' / f'p{i}.png'), imresize(gt, 1 / scale))
    return read_benchmark(str(folder), scale)


def make_result(method, folder, benchmarks, degrade, params=100_000, multi_adds=5_000_000_000, psnr=30.0):
    """Return a method whose outputs are ``degrade(gt, image name)`` and whose scores are all ``psnr`` and 0.8."""
    scores = {}
    for benchmark in benchmarks:
        outputs, names = folder / method.encode().hex() / benchmark.name, benchmark.images
        outputs.mkdir(parents=True)
        for name in names:
            cv2.imwrite(str(outputs / f'{name}.png'), degrade(benchmark.read(name)[0].copy(), name))
        scores[benchmark.name] = BenchmarkScores(dict.fromkeys(names, psnr), dict.fromkeys(names, 0.8), str(outputs))
    return Result(method, benchmarks[0].scale, scores, params, multi_adds)


def make_bicubic(folder, benchmarks):
    """Return a method without parameters and Multi-Adds, as ``measure_bicubic`` does."""
    return make_result('Bicubic', folder, benchmarks, lambda gt, _: cv2.GaussianBlur(gt, (0, 0), 2), None, None, 25.0)


def add_noise(level, seed=0):
    """Return a function that adds noise of ±``level`` to an image."""

    def degrade(gt, _):
        noise = np.random.default_rng(seed).integers(-level, level + 1, gt.shape)
        return np.clip(gt + noise, 0, 255).astype(np.uint8)

    return degrade
