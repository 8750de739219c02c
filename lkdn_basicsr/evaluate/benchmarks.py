"""Test sets as they lie on the disk: pairs of HR and LR pictures, and what they are known by."""

import dataclasses
import hashlib
import os

from lkdn_basicsr.data.image_files import pair_images, read_image
from lkdn_basicsr.data.image_sources import FolderSource
from lkdn_basicsr.errors import InputError


@dataclasses.dataclass
class Benchmark:
    """A test set at a scale.

    Attributes:
        name (str): that of its folder.
        folder (str): as it was given.
        scale (int): of its LR pictures.
        images (dict[str, tuple[str, str]]): by name, the paths of the HR and of the LR picture.
        checksum (str): SHA-256, in hexadecimal, over the names and all bytes of the pictures.
    """

    __test__ = False  # pytest takes every class called Test... for tests

    name: str
    folder: str
    scale: int
    images: dict[str, tuple[str, str]]
    checksum: str

    def read(self, name):
        """The HR and the LR picture of a name, as BasicSR reads them.

        Returns:
            tuple[ndarray, ndarray]: gt (scale·H, scale·W, 3) and lq (H, W, 3), uint8, BGR; grey pictures have three
            equal channels, 16-bit ones are cut to 8.

        Raises:
            InputError: one is damaged, or their sizes do not fit.
        """
        gt, lq = (read_image(path, 'bgr') for path in self.images[name])
        _check_sizes(*self.images[name], gt.shape, lq.shape, self.scale)
        return gt, lq


def read_benchmark(folder, scale):
    """Find the pictures of a test set, pair them and check their sizes.

    Args:
        folder (str): holds ``GTmod{scale}`` and ``LRbicx{scale}``, whose pictures have equal names, or the LR ones the
            scale behind theirs (``babyx4.png``).
        scale (int): upscaling factor.

    Returns:
        Benchmark

    Raises:
        InputError: a folder is missing, or holds what cannot be paired or has the wrong size.
    """
    folder = os.fspath(folder)
    hr, lr = (os.path.join(folder, f'{kind}{scale}') for kind in ('GTmod', 'LRbicx'))
    for path in (hr, lr):
        if not os.path.isdir(path):
            raise InputError(
                f'the test set {folder} has no folder {os.path.basename(path)}: python '
                f'scripts/prepare_benchmark.py --hr DIR --out {folder} --scale {scale} makes it from HR '
                'pictures'
            )
    found, missing, left_over = pair_images(hr, {scale: lr})
    if missing or left_over:
        problems = missing + left_over
        more = f' (and {len(problems) - 1} more)' if len(problems) > 1 else ''
        raise InputError(
            f'the test set {folder} does not pair: {problems[0]}{more}; add the other picture, or remove this one'
        )
    pictures = {picture.name: (picture.hr, picture.lr[scale]) for picture in found}
    for paths in pictures.values():
        sizes = [tuple(FolderSource(os.path.dirname(path), [os.path.basename(path)]).sizes([0])[0]) for path in paths]
        if (-1, -1) not in sizes:  # not known without decoding; `Benchmark.read` looks again
            _check_sizes(*paths, *sizes, scale)
    name = os.path.basename(os.path.abspath(folder))
    return Benchmark(name, folder, scale, pictures, _checksum(pictures))


def read_benchmarks(folders, scale):
    """Find several test sets, see :func:`read_benchmark`.

    Raises:
        InputError: Two have one name, or as :func:`read_benchmark`.
    """
    sets = {}
    for folder in folders:
        benchmark = read_benchmark(folder, scale)
        first = sets.setdefault(benchmark.name, benchmark)
        if first is not benchmark:
            raise InputError(
                f'--sets: {first.folder} and {folder} are both called {first.name}; rename one of the '
                'folders, or leave one out'
            )
    return list(sets.values())


def _check_sizes(hr, lr, gt_shape, lq_shape, scale):
    gt, lq = (tuple(int(side) for side in shape[:2]) for shape in (gt_shape, lq_shape))
    if gt != (lq[0] * scale, lq[1] * scale):
        raise InputError(
            f'{hr} is {gt[1]}×{gt[0]} pixels and {lr} is {lq[1]}×{lq[0]}, which is not {scale} times '
            'less: make the set anew with scripts/prepare_benchmark.py, which crops the HR pictures to '
            'multiples of the scale'
        )
    least = 2 * scale + 11  # what SSIM's window of 11 pixels needs, within the border that is left out
    if min(gt) < least:
        raise InputError(
            f'{hr} is {gt[1]}×{gt[0]} pixels, and SSIM needs {least} on a side at ×{scale}: remove the '
            'picture from the set'
        )


def _checksum(pictures):
    digest = hashlib.sha256()
    for name, paths in pictures.items():
        for path in paths:
            try:
                with open(path, 'rb') as file:
                    digest.update(f'{name} {hashlib.file_digest(file, "sha256").hexdigest()}\n'.encode())
            except OSError as error:
                raise InputError(f'{path} cannot be read ({error.strerror}): make it readable') from None
    return digest.hexdigest()
