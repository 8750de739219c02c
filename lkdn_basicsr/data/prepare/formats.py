"""What a picture becomes in a store: its pixels as they are (raw), or BasicSR's PNG sub-images."""

import re

import cv2
import numpy as np

from lkdn_basicsr.data import raw_store as store
from lkdn_basicsr.data.paired_crop_dataset import sub_image_origins
from lkdn_basicsr.errors import InputError

PNG_FORMAT = 'lkdn-png'
# Of the level-1 settings of zlib and libpng, the ones that OpenCV takes when asked for none: half the time of those it
# takes when asked for the level alone, and smaller files.
PNG_LEVEL = 1
PNG_OPTIONS = [
    cv2.IMWRITE_PNG_COMPRESSION,
    PNG_LEVEL,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_SUB,
]


class RawFormat:
    """One entry a picture: see `store`."""

    name = store.FORMAT
    version = store.VERSION
    order = 'rgb'
    suffix = ''

    def settings(self):
        return {}

    def check(self, name, shape):
        """Why a picture of this name and (height, width) cannot be stored; None where it can."""
        return None

    def entries(self, shape):
        """How many entries a picture of this (height, width) becomes."""
        return 1

    def capacity(self, shape):
        """Bytes that suffice for the entries of such a picture."""
        return store.value_size((*shape, 3))

    def encode(self, number, name, image, buffer):
        """Fill ``buffer`` with the values of a picture; returns their (key, begin, end)."""
        size = store.value_size(image.shape)
        store.write_picture(number, image, buffer[:size])
        return [(store.key_of(number), 0, size)]

    def finish(self, heads, names, shapes):
        """The content of the index, and other text files, for a store with these `StoreWriter.heads`."""
        headers = [store.read_header(head) for _, head in heads]
        if [header and header[:2] for header in headers] != [(n, (*shape, 3)) for n, shape in enumerate(shapes)]:
            raise InputError('The entries of a store changed while it was written; delete it and begin again.')
        index = dict(
            channel_order='rgb',
            dtype='uint8',
            names=names,
            shapes=[[*shape, 3] for shape in shapes],
            crc32=[header[2] for header in headers],
        )
        return index, {}


class PngFormat:
    """BasicSR's sub-images: a PNG for each window of a picture, under the key ``<name>_s001``, listed in meta_info.txt.

    Args:
        crop_size (int): Side of a window.
        step (int): Distance of windows.
        thresh (int): Remainders up to this many pixels are dropped.
    """

    name = PNG_FORMAT
    version = 1
    order = 'bgr'
    suffix = '_sub'

    def __init__(self, crop_size, step, thresh):
        self.crop_size, self.step, self.thresh = crop_size, step, thresh

    def settings(self):
        return dict(crop_size=self.crop_size, step=self.step, thresh=self.thresh, compress_level=PNG_LEVEL)

    def check(self, name, shape):
        if min(shape) < self.crop_size:
            return f'is smaller than a sub-image ({self.crop_size}x{self.crop_size})'
        # BasicSR takes a key up to the first dot, splits its meta_info.txt at spaces, and encodes keys as ASCII.
        if not re.fullmatch(r'[!-\-/-~]{1,400}', name):
            return "has a name that BasicSR's LMDB reader cannot take (only ASCII without spaces and dots)"
        return None

    def windows(self, shape):
        """The (top, left) of the windows of a picture, in BasicSR's order."""
        tops, lefts = (sub_image_origins(length, self.crop_size, self.step, self.thresh) for length in shape)
        return [(top, left) for top in tops.tolist() for left in lefts.tolist()]

    def keys(self, name, shape):
        return [f'{name}_s{number:03d}' for number in range(1, self.entries(shape) + 1)]

    def entries(self, shape):
        return len(self.windows(shape))

    def capacity(self, shape):
        # Deflate may add five bytes to a block, PNG a byte to a row and its chunks.
        return self.entries(shape) * (self.crop_size * (self.crop_size * 3 + 1) * 102 // 100 + 4096)

    def encode(self, number, name, image, buffer):
        entries, begin = [], 0
        for key, window in zip(self.keys(name, image.shape[:2]), self.windows(image.shape[:2]), strict=True):
            png = self._png(image, window)
            end = begin + png.size
            buffer[begin:end] = memoryview(png).cast('B')
            entries.append((key.encode(), begin, end))
            begin = end
        return entries

    def estimate(self, image):
        """Bytes that the entries of a picture will take, judged by a few of them."""
        some = self.windows(image.shape[:2])
        some = some[:: max(1, len(some) // 4)]
        sizes = [self._png(image, window).size for window in some]
        return sum(sizes) * self.entries(image.shape[:2]) // len(sizes)

    def _png(self, image, window):
        top, left = window
        window = image[top : top + self.crop_size, left : left + self.crop_size]
        return cv2.imencode('.png', np.ascontiguousarray(window), PNG_OPTIONS)[1]

    def listing(self, keys):
        """BasicSR's meta_info.txt, in the order of the file names, as BasicSR lists them."""
        side = self.crop_size
        return ''.join(f'{name} ({side},{side},3) {PNG_LEVEL}\n' for name in sorted(f'{key}.png' for key in keys))

    def finish(self, heads, names, shapes):
        keys = [key for name, shape in zip(names, shapes, strict=True) for key in self.keys(name, shape)]
        if sorted(key.encode() for key in keys) != [key for key, _ in heads]:
            raise InputError('The entries of a store changed while it was written; delete it and begin again.')
        return dict(names=names, shapes=[[*shape, 3] for shape in shapes]), {'meta_info.txt': self.listing(keys)}
