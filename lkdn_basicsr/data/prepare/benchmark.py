"""Convert a folder of HR images to the benchmark folders that test option files name: ``GTmodX`` and ``LRbicxX``."""

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import tqdm

from lkdn_basicsr.data.image_files import list_images, probe_image, read_image
from lkdn_basicsr.data.imresize import Edges, imresize
from lkdn_basicsr.errors import InputError, raise_all
from lkdn_basicsr.files import check_writable, partial_folder, replace, sync_folder
from lkdn_basicsr.locks import FolderLock


def prepare_benchmark(
    hr: str,
    out: str,
    scales: Sequence[int] = (4,),
    edges: Edges = 'mirror',
    log: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> None:
    """Make ``GTmod4`` (sides cropped to multiples of 4) and ``LRbicx4`` (their bicubic LR), and so on for other scales.

    The folders get their names when they are complete. Existing ones with the same images are not touched.

    Args:
        hr: Folder of HR images.
        out: Folder of the benchmark, e.g. ``datasets/Set5``.
        edges: See `imresize`; ``'repeat'`` gives the usual LR images of Set5, Set14 and B100.
        log: Receives lines for the user.
        progress: Show progress bars on a terminal.

    Raises:
        InputError: Images that cannot be used, all listed; an existing folder with other images; another process that
            writes to ``out``.
        OSError: A file cannot be read or written.
    """
    lock = FolderLock(out)
    lock.check_free()
    images = list_images(hr)
    names = {f'{name}.png' for name in images}
    folders: list[tuple[str, str, int]] = []
    for scale in sorted(set(scales)):
        for kind in ('GTmod', 'LRbicx'):
            folder = os.path.join(out, f'{kind}{scale}')
            if not os.path.lexists(folder):
                folders.append((folder, kind, scale))
            elif set(os.listdir(folder)) == names:
                log(f'Already complete: {folder}.')
            else:
                raise InputError(f'{folder} has other images than {hr}; move it away or choose another --out.')
    if not folders:
        return
    check_writable(out)
    problems = []
    for path in tqdm.tqdm(images.values(), 'Checking', unit='image', disable=None if progress else True):
        try:
            if min(probe_image(path)) < max(scales):
                problems.append(f'{path} is smaller than the scale {max(scales)}')
        except InputError as error:
            problems.append(str(error))
    if problems:
        summary = f'{len(problems)} images cannot be used; fix or remove them, then run this again:'
        raise_all(summary, problems, log)
    with lock:
        # Another process may have made some of them in the meantime.
        folders = [folder for folder in folders if not os.path.lexists(folder[0])]
        _write(images, folders, edges, progress)
    for folder, *_ in folders:
        log(f'{folder}: {len(images):,} images.')


def _write(images: dict[str, str], folders: list[tuple[str, str, int]], edges: Edges, progress: bool) -> None:
    partial = [partial_folder(path) for path, *_ in folders]
    with contextlib.ExitStack() as stack:
        for folder in partial:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)  # after an error, or it would fill the disk
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
        for name, path in tqdm.tqdm(images.items(), 'Preparing', unit='image', disable=None if progress else True):
            image = read_image(path, 'bgr')
            for folder, (_, kind, scale) in zip(partial, folders, strict=True):
                height, width = (side - side % scale for side in image.shape[:2])
                gt = np.ascontiguousarray(image[:height, :width])
                png = cv2.imencode('.png', gt if kind == 'GTmod' else imresize(gt, 1 / scale, edges))[1]
                replace(os.path.join(folder, f'{name}.png'), png.tobytes())
        for folder, (path, *_) in zip(partial, folders, strict=True):
            os.rename(folder, path)
            sync_folder(os.path.dirname(path))
