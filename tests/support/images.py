"""Images for tests, in memory, as files and as stores."""

import itertools
import os
import struct
import zlib

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


def edit_png(data, edit):
    """Return a PNG with its size and inflated rows changed, and all checksums valid.

    Args:
        edit: Called with (width, height) and the inflated rows, of 1 + 3 * width bytes; returns both, or an encoded
            stream instead of the rows.
    """
    header, body = bytearray(data[16:29]), b''
    position = 8
    while position < len(data):
        (size,) = struct.unpack_from('>I', data, position)
        body += data[position + 8 : position + 8 + size] if data[position + 4 : position + 8] == b'IDAT' else b''
        position += 12 + size
    size, rows = edit(struct.unpack('>2I', header[:8]), zlib.decompress(body))
    header[:8] = struct.pack('>2I', *size)
    chunks = [b'IHDR' + header, b'IDAT' + (zlib.compress(rows) if isinstance(rows, bytes) else bytes(rows)), b'IEND']
    return data[:8] + b''.join(struct.pack('>I', len(c) - 4) + c + struct.pack('>I', zlib.crc32(c)) for c in chunks)


def missing_rows(size, rows):
    return size, rows[: len(rows) // 2]


def damaged_stream(size, rows):
    stream = bytearray(zlib.compress(rows))
    stream[len(stream) // 2] ^= 8
    return size, stream


def huge_header(size, rows):
    return (100_000, 100_000), rows


def prepare(out, hr, lr=None, workers=1, **options):
    """Make stores from folders of images; return their paths, HR first."""
    return prepare_folder(str(out), str(hr), lr and str(lr), StoreOptions(workers=workers, **options))
