"""Images for tests, in memory, as files and as stores."""

import itertools
import os

import cv2
import numpy as np

from lkdn_basicsr.data.prepare.stores import StoreOptions, prepare_folder

# Names that are not UTF-8, end a line, mean something in HTML and Markdown, or are long.
NAMES = [os.fsdecode(b'a\xff\xc3'), 'a\nb', '<b>"\\\'|`$', 'n' * 240]


def random_image(height=20, width=30, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def sub_images(name, image, crop_size, step, thresh=0):
    """Return what BasicSR's extract_subimages.py cuts from an image, by name; with its variables, x is vertical."""
    spaces = []
    for size in image.shape[:2]:
        spaces.append([*range(0, size - crop_size + 1, step)])
        if size - (spaces[-1][-1] + crop_size) > thresh:
            spaces[-1].append(size - crop_size)
    windows = [image[x : x + crop_size, y : y + crop_size] for x, y in itertools.product(*spaces)]
    return {f'{name}_s{i + 1:03d}': window for i, window in enumerate(windows)}


def write_folder(folder, images, suffix=''):
    """Write RGB images, by name, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        cv2.imwrite(f'{folder}/{name}{suffix}.png', image[..., ::-1])


def write_images(folder, names, size=(48, 60), seed=0):
    """Write random PNG files; return name to RGB pixels."""
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for name in names}
    write_folder(folder, images)
    return images


def flipped(data, place, bits=1):
    """Return bytes with some bits of one byte flipped."""
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


def prepare(out, hr, lr=None, workers=1, **options):
    """Make stores from folders of images; return their paths, HR first."""
    return prepare_folder(str(out), str(hr), lr and str(lr), StoreOptions(workers=workers, **options))
