"""From a folder of HR test pictures to the folders that test option files name: ``GTmodX`` and ``LRbicxX``."""

import os
import shutil

import cv2
import numpy as np
import tqdm

from lkdn_basicsr.data.image_files import list_images, probe_image, read_image
from lkdn_basicsr.data.imresize import imresize
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import sync_folder


def prepare_benchmark(hr, out, scales=(4,), edges='mirror', say=lambda line: None, progress=False):
    """Make ``GTmod4`` (sides cropped to multiples of 4), ``LRbicx4`` (their bicubic LR), and the like for other scales.

    The folders get their names when they are complete. Those that are there already, with the same pictures, are left
    alone.

    Args:
        hr (str): Folder of HR pictures.
        out (str): Folder of the test set, e.g. ``datasets/Set5``.
        scales (Sequence[int]): Scales.
        edges (str): See `imresize`; ``'repeat'`` gives the usual LR pictures of Set5, Set14 and B100.
        say (Callable[[str], None]): Receives lines for the user.
        progress (bool): Show a progress bar.

    Raises:
        InputError: Pictures that cannot be used, all listed; or a folder of the name with other pictures.
    """
    pictures = list_images(hr)
    folders = {
        os.path.join(out, f'{kind}{scale}'): (kind, scale)
        for scale in sorted(set(scales))
        for kind in ('GTmod', 'LRbicx')
    }
    names = {f'{name}.png' for name in pictures}
    for folder in list(folders):
        if os.path.lexists(folder):
            if set(os.listdir(folder)) != names:
                raise InputError(f'{folder} has other pictures than {hr}; move it away or choose another --out.')
            say(f'Already complete: {folder}.')
            del folders[folder]
    if not folders:
        return
    problems = []
    for path in tqdm.tqdm(pictures.values(), 'Checking', unit='picture', disable=not progress):
        try:
            if min(probe_image(path)) < max(scales):
                problems.append(f'{path} is smaller than the scale {max(scales)}')
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(
            f'{len(problems)} pictures cannot be used; mend or remove them, then run this again:\n  '
            + '\n  '.join(problems)
        )
    try:
        _write(pictures, folders, edges, progress)
    except OSError as error:
        raise InputError(f'{out} could not be written ({error.strerror}); make room or choose another --out.') from None
    for folder in folders:
        say(f'{folder}: {len(pictures):,} pictures.')


def _write(pictures, folders, edges, progress):
    partial = {
        folder: os.path.join(os.path.dirname(folder), f'.{os.path.basename(folder)}.partial') for folder in folders
    }
    for folder in partial.values():
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
    for name, path in tqdm.tqdm(pictures.items(), 'Preparing', unit='picture', disable=not progress):
        image = read_image(path, 'bgr')
        for folder, (kind, scale) in folders.items():
            height, width = (side - side % scale for side in image.shape[:2])
            gt = np.ascontiguousarray(image[:height, :width])
            png = cv2.imencode('.png', gt if kind == 'GTmod' else imresize(gt, 1 / scale, edges))[1]
            with open(os.path.join(partial[folder], f'{name}.png'), 'wb') as file:
                file.write(png)
                file.flush()
                os.fsync(file.fileno())
    for folder in folders:
        sync_folder(partial[folder])
        os.rename(partial[folder], folder)
        sync_folder(os.path.dirname(folder))
