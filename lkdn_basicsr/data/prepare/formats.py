"""What an image becomes in a store: its pixels as they are (raw), or BasicSR's PNG sub-images."""

import dataclasses
import re
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from lkdn_basicsr.data import raw_store
from lkdn_basicsr.data.paired_crop_dataset import sub_image_origins
from lkdn_basicsr.errors import InputError

PNG_FORMAT, PNG_LEVEL = 'lkdn-png', 1
# Of the level-1 settings of zlib and libpng, the ones that OpenCV uses by default: half the time of those it uses for
# an explicit level, and smaller files.
PNG_OPTIONS = [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
PNG_OPTIONS += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]

Shape = tuple[int, int]  # (height, width)
Places = list[tuple[bytes, int, int]]  # key, begin and end of each entry of an image in a buffer
Index = tuple[dict[str, Any], dict[str, str]]  # content of index.json; file name to content of other text files
_CHANGED = 'The entries of a store changed while it was written; delete it and prepare it again.'


def is_utf8(text: str) -> bool:
    """Return whether a text from the file system, see ``os.fsdecode``, can be written as UTF-8."""
    return not any('\ud800' <= char <= '\udfff' for char in text)


class RawFormat:
    """One entry per image, see `raw_store`."""

    name = raw_store.FORMAT
    version = raw_store.VERSION
    order: Literal['rgb', 'bgr'] = 'rgb'
    suffix = ''

    def settings(self) -> dict[str, int]:
        """Return what decides, besides the images, about the content of a store."""
        return {}

    def check(self, name: str, shape: Shape) -> str | None:
        """Return why an image of this name and (height, width) cannot be stored; None where it can."""
        return None if is_utf8(name) else 'has a name that is not UTF-8, which index.json requires; rename it'

    def entries(self, shape: Shape) -> int:
        """Return the number of entries of an image of this (height, width)."""
        return 1

    def capacity(self, shape: Shape) -> int:
        """Return a number of bytes that suffices for the entries of such an image."""
        return raw_store.value_size((*shape, 3))

    def encode(self, number: int, name: str, image: np.ndarray, buffer: memoryview) -> Places:
        """Write the values of an image into ``buffer``."""
        size = raw_store.value_size(image.shape)
        raw_store.write_image(number, image, buffer[:size])
        return [(raw_store.image_key(number), 0, size)]

    def index(self, heads: list[tuple[bytes, bytes]], names: list[str], shapes: list[Shape]) -> Index:
        """Check that the entries are those of the images, and return the text files of the store.

        Args:
            heads: Key and first bytes of each entry, see `store_writer.read_heads`.
        """
        headers = [raw_store.read_header(head) for _, head in heads]
        if [header and header[:2] for header in headers] != [(n, (*shape, 3)) for n, shape in enumerate(shapes)]:
            raise InputError(_CHANGED)
        index = dict(channel_order='rgb', dtype='uint8', names=names, shapes=[[*shape, 3] for shape in shapes])
        return dict(index, crc32=[header[2] for header in headers if header]), {}


@dataclasses.dataclass(frozen=True)
class PngFormat:
    """BasicSR's sub-images: one PNG per window of an image, with the key ``<name>_s001``, listed in meta_info.txt.

    Its methods are those of `RawFormat`, its attributes those of `sub_image_origins`.
    """

    name = PNG_FORMAT
    version = 1
    order: ClassVar[Literal['rgb', 'bgr']] = 'bgr'
    suffix = '_sub'

    crop_size: int
    step: int
    thresh: int

    def settings(self) -> dict[str, int]:
        return dict(dataclasses.asdict(self), compress_level=PNG_LEVEL)

    def check(self, name: str, shape: Shape) -> str | None:
        if min(shape) < self.crop_size:
            return f'is smaller than a sub-image ({self.crop_size}x{self.crop_size})'
        # BasicSR cuts a key at the first dot, splits the lines of meta_info.txt at spaces, and encodes keys as ASCII.
        if not re.fullmatch(r'[!-\-/-~]{1,400}', name):
            return "has a name that BasicSR's LMDB reader cannot read (only ASCII without spaces and dots)"
        return None

    def windows(self, shape: Shape) -> list[tuple[int, int]]:
        """Return the (top, left) of the windows of an image, in BasicSR's order."""
        tops, lefts = (sub_image_origins(length, self.crop_size, self.step, self.thresh) for length in shape)
        return [(top, left) for top in tops.tolist() for left in lefts.tolist()]

    def keys(self, name: str, shape: Shape) -> list[str]:
        """Return the keys of the entries of an image."""
        return [f'{name}_s{number:03d}' for number in range(1, self.entries(shape) + 1)]

    def entries(self, shape: Shape) -> int:
        return len(self.windows(shape))

    def capacity(self, shape: Shape) -> int:
        # Deflate may add five bytes to a block, PNG a byte to a row and its chunks.
        return self.entries(shape) * (self.crop_size * (self.crop_size * 3 + 1) * 102 // 100 + 4096)

    def encode(self, number: int, name: str, image: np.ndarray, buffer: memoryview) -> Places:
        places, begin, shape = [], 0, image.shape[:2]
        for key, window in zip(self.keys(name, shape), self.windows(shape), strict=True):
            png = self._png(image, window)
            end = begin + png.size
            buffer[begin:end] = png.tobytes()
            places.append((key.encode(), begin, end))
            begin = end
        return places

    def estimate(self, image: np.ndarray) -> int:
        """Return the bytes that the entries of an image will take, extrapolated from a few of them."""
        windows = self.windows(image.shape[:2])
        sample = windows[:: max(1, len(windows) // 4)]
        return sum(self._png(image, window).size for window in sample) * len(windows) // len(sample)

    def _png(self, image: np.ndarray, window: tuple[int, int]) -> np.ndarray:
        (top, left), size = window, self.crop_size
        pixels = np.ascontiguousarray(image[top : top + size, left : left + size])
        return cv2.imencode('.png', pixels, PNG_OPTIONS)[1]

    def meta_info(self, keys: list[str]) -> str:
        """Return BasicSR's meta_info.txt, in the order of the file names, as BasicSR lists them."""
        side = self.crop_size
        return ''.join(f'{name} ({side},{side},3) {PNG_LEVEL}\n' for name in sorted(f'{key}.png' for key in keys))

    def index(self, heads: list[tuple[bytes, bytes]], names: list[str], shapes: list[Shape]) -> Index:
        keys = [key for name, shape in zip(names, shapes, strict=True) for key in self.keys(name, shape)]
        if sorted(key.encode() for key in keys) != [key for key, _ in heads]:
            raise InputError(_CHANGED)
        return dict(names=names, shapes=[[*shape, 3] for shape in shapes]), {'meta_info.txt': self.meta_info(keys)}


StoreFormat = RawFormat | PngFormat
