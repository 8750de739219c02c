"""Benchmarks (Set5, Set14, …) in folders: find, pair, check and read their HR and LR images."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable

import numpy as np

from lkdn_basicsr import checkpoints
from lkdn_basicsr.data.image_files import pair_images, probe_image, read_image
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import exists


@dataclasses.dataclass
class Benchmark:
    """A benchmark at a scale."""

    name: str  # of the folder
    folder: str
    scale: int
    images: dict[str, tuple[str, str]]  # by name, the paths of the HR and the LR image
    checksum: str  # SHA-256 in hexadecimal of the names and files of all images

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Read an HR image and its LR image as BasicSR does.

        Returns:
            gt (scale·H, scale·W, 3) and lq (H, W, 3), uint8, BGR. Gray images have three equal channels, 16-bit images
            keep their upper 8 bits.

        Raises:
            InputError: An image is damaged, or the sizes do not fit.
        """
        hr, lr = self.images[name]
        gt, lq = read_image(hr, 'bgr'), read_image(lr, 'bgr')
        _check_sizes(hr, gt.shape[:2], lr, lq.shape[:2], self.scale)
        return gt, lq


def read_benchmark(folder: str | os.PathLike[str], scale: int) -> Benchmark:
    """Find the images of a benchmark, pair them and check their sizes.

    Args:
        folder: Contains ``GTmod{scale}`` and ``LRbicx{scale}``. An LR image is called like its HR image, or has the
            scale after the name (``babyx4.png``).

    Raises:
        InputError: A folder is missing, or contains images that have no counterpart, wrong sizes, or are damaged.
    """
    folder = os.fspath(folder)
    hr_folder, lr_folder = (os.path.join(folder, f'{kind}{scale}') for kind in ('GTmod', 'LRbicx'))
    for path in (hr_folder, lr_folder):
        if not exists(path):
            raise InputError(
                f'the benchmark {folder} has no folder {os.path.basename(path)}: prepare it from HR images with '
                f'python -m lkdn_basicsr.prepare benchmark --hr DIR --out {folder} --scale {scale}'
            )
    pairs, missing, left_over = pair_images(hr_folder, {scale: lr_folder})
    if problems := missing + left_over:
        more = f' (and {len(problems) - 1} more)' if len(problems) > 1 else ''
        raise InputError(f'benchmark {folder}: {problems[0]}{more}; add the other image, or remove this one')
    images = {pair.name: (pair.hr, pair.lr[scale]) for pair in pairs}
    for hr, lr in images.values():
        gt_size, lq_size = (probe_image(path, 'header') for path in (hr, lr))
        _check_sizes(hr, gt_size, lr, lq_size, scale)
    return Benchmark(os.path.basename(os.path.abspath(folder)), folder, scale, images, _checksum(images))


def read_benchmarks(folders: Iterable[str | os.PathLike[str]], scale: int) -> list[Benchmark]:
    """Read several benchmarks, see :func:`read_benchmark`; two of the same name are an InputError."""
    benchmarks: dict[str, Benchmark] = {}
    for folder in folders:
        benchmark = read_benchmark(folder, scale)
        first = benchmarks.setdefault(benchmark.name, benchmark)
        if first is not benchmark:
            reason = f'{first.folder} and {folder} are both called {first.name}'
            raise InputError(f'--sets: {reason}; rename one of the folders, or leave one out')
    return list(benchmarks.values())


def _check_sizes(hr: str, gt_size: tuple[int, ...], lr: str, lq_size: tuple[int, ...], scale: int) -> None:
    """Check the (height, width) of an HR image and its LR image."""
    size = f'{hr} is {gt_size[1]}×{gt_size[0]} pixels'
    if gt_size != (lq_size[0] * scale, lq_size[1] * scale):
        raise InputError(
            f'{size}, which is not {scale} times {lr} with {lq_size[1]}×{lq_size[0]}: prepare the benchmark again with '
            'python -m lkdn_basicsr.prepare benchmark, which crops HR images to multiples of the scale'
        )
    least = 2 * scale + 11  # SSIM has a window of 11 pixels, and a border of `scale` pixels is left out
    if min(gt_size) < least:
        raise InputError(f'{size}, but SSIM needs at least {least} per side at ×{scale}: remove it from the benchmark')


def _checksum(images: dict[str, tuple[str, str]]) -> str:
    lines = [f'{name} {checkpoints.sha256(path)}\n' for name, paths in images.items() for path in paths]
    return hashlib.sha256(''.join(lines).encode(errors='surrogateescape')).hexdigest()
