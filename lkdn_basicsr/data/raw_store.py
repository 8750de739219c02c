"""The raw store: images as pixels in an LMDB, from which a crop is copied in microseconds.

A folder ``*.lmdb`` with two files:

- ``data.mdb``, an LMDB: one entry per image, keyed by its number in eight digits. The value is a header (`HEADER`:
  magic, number, height, width, channels, CRC-32 of the pixels) and the pixels, uint8, row by row, RGB;
- ``index.json``: format, version, channel order, settings, and the names, shapes and checksums of the images in stored
  order, so that a reader gets everything but the pixels from one small file.

LMDB gives the atomic commits that make writing resumable. Reading needs none of its machinery: `lmdb_file.locate` finds
the values, and images are views into an ordinary read-only memory map, which may be shared and inherited.

The pixels of an image are compared with their checksum when it is read for the first time: at once in validation, which
reads complete images; in the background in training, where a crop is copied in a hundredth of the time.
"""

import dataclasses
import json
import math
import os
import struct
import zlib
from typing import Any, NoReturn

import numpy as np

from lkdn_basicsr.data.background import run_in_background
from lkdn_basicsr.data.lmdb_file import open_lmdb
from lkdn_basicsr.errors import InputError, system_error
from lkdn_basicsr.files import replace
from lkdn_basicsr.structure import matches, read_json

FORMAT = 'lkdn-raw'
VERSION = 1
MAGIC = b'LKDNRAW1'
HEADER = struct.Struct('<8s5I4x')
_FIX = 'copy the store again or prepare it again.'
_SIDE = range(1, 1 << 20)  # of an image, in pixels; OpenCV's limit
_INDEX = {
    'format': str,
    'settings': dict,
    'names': [str],
    'shapes': [(_SIDE, _SIDE, range(3, 4))],
    'crc32': [range(1 << 32)],
}
_INTACT, _DAMAGED = 1, 2  # marks of images


def image_key(number: int) -> bytes:
    """Return the key of an image in ``data.mdb``."""
    return f'{number:08d}'.encode()


def write_image(number: int, image: np.ndarray, value: memoryview) -> None:
    """Write header and pixels of (H, W, C) uint8 RGB into a buffer of ``value_size(image.shape)`` bytes."""
    pixels = np.frombuffer(value, np.uint8, offset=HEADER.size).reshape(image.shape)
    pixels[...] = image
    HEADER.pack_into(value, 0, MAGIC, number, *image.shape, zlib.crc32(value[HEADER.size :]))


def value_size(shape: tuple[int, ...]) -> int:
    """Return the size in bytes of the value of an image of this (H, W, C)."""
    return HEADER.size + math.prod(shape)


def read_header(value: bytes | memoryview) -> tuple[int, tuple[int, int, int], int] | None:
    """Return ``(number, (height, width, channels), crc32)`` from the start of a value; None if it is no header."""
    magic, number, height, width, channels, checksum = HEADER.unpack_from(value)
    return (number, (height, width, channels), checksum) if magic == MAGIC else None


def write_index(folder: str, content: dict[str, Any]) -> None:
    """Write ``index.json`` of a store with a checksum of its own, atomically."""
    content = dict(content, checksum=_checksum(content))
    replace(os.path.join(folder, 'index.json'), json.dumps(content, ensure_ascii=False).encode())


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """``index.json`` of a store of either format."""

    format: str
    settings: dict[str, Any]  # everything that determines the content, see `prepare.stores`
    names: list[str]  # of the images, without extension, in stored order
    shapes: np.ndarray  # (n, 3) int64: height, width, channels
    crc32: list[int]  # of the pixels of each image; empty in a store of PNG files, which contain their own


def read_index(path: str) -> Index:
    """Read ``index.json`` of a store of either format.

    Raises:
        InputError: It does not exist, is damaged, of another version, or has entries that no release writes.
    """
    file_name = os.path.join(path, 'index.json')
    if not os.path.isfile(file_name):
        how = 'make one with python -m lkdn_basicsr.prepare train, or correct the path.'
        raise InputError(f'{path} is not a store of lkdn_basicsr (it has no index.json); {how}')
    try:
        content = read_json(file_name)
        is_intact = content.pop('checksum') == _checksum(content)
    except (ValueError, KeyError, AttributeError, TypeError):  # not JSON, not UTF-8, not an index
        raise InputError(f'{file_name} is damaged; {_FIX}') from None
    if not is_intact:
        raise InputError(f'{file_name} does not match its own checksum; {_FIX}')
    if content.get('version') != VERSION:
        how = f'this release reads version {VERSION}; update lkdn_basicsr, or prepare the store again.'
        raise InputError(f'{path} has format version {content.get("version")}, and {how}')
    return _parse_index(file_name, content)


def _parse_index(file_name: str, content: dict[str, Any]) -> Index:
    fields = {key: content.get(key, []) for key in _INDEX}
    count = len(fields['names']) if matches(fields['names'], list) else 0
    counts = {'shapes': count, 'crc32': count if fields['format'] == FORMAT else 0}
    for key, form in _INDEX.items():
        if not matches(fields[key], form) or len(fields[key]) != counts.get(key, len(fields[key])):
            raise InputError(f'{file_name} has no valid {key!r}; {_FIX}')
    if len(set(fields['names'])) < count:
        raise InputError(f"{file_name} has several images of one name in 'names'; {_FIX}")
    return Index(**dict(fields, shapes=np.array(fields['shapes'], np.int64).reshape(-1, 3)))


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True, ensure_ascii=False).encode())


def is_raw_store(path: str) -> bool:
    """Return whether ``path`` is the folder of a raw store (of any version), judged by its ``index.json``."""
    file_name = os.path.join(path, 'index.json')
    try:
        return os.path.isfile(file_name) and read_json(file_name).get('format') == FORMAT
    except (ValueError, AttributeError):
        return False


class RawStore:
    """A raw store, read-only. Tree, headers and index are compared at once, the pixels of an image when it is read.

    The pixels are mapped once in a process for all readers. A store may be pickled, and used on both sides of a fork.

    Args:
        verify_at_once: Compare pixels with their checksum before `image` returns them. If False, do so in the
            background: a mismatch is raised by a later call, in any of the processes that share the store by a fork.

    Raises:
        InputError: Not a raw store, a format version this release does not know, or anything else than pixels that is
            missing, cut short or damaged.
    """

    def __init__(self, path: str, verify_at_once: bool = True) -> None:
        self.path, self.verify_at_once = os.fspath(path), verify_at_once
        self.index = read_index(self.path)
        if self.index.format != FORMAT:
            how = 'use the dataset and io_backend for that format, or prepare it with --format raw.'
            raise InputError(f'{self.path} is a store of format {self.index.format}, not a raw store; {how}')
        self.names, self.shapes = self.index.names, self.index.shapes
        self._images: list[np.ndarray | None] = [None] * len(self.names)
        try:
            self._file = open_lmdb(self.path)
        except FileNotFoundError:
            raise InputError(f'{self.path}/data.mdb is missing or not a file; {_FIX}') from None
        except (OSError, ValueError) as error:
            damaged = InputError(f'{self.path}/data.mdb cannot be read ({error}); {_FIX}')
            raise system_error(error) or damaged from None
        self._marks = self._file.marks
        self._starts = [self._find(number) for number in range(len(self))]
        if len(self._file.places) > len(self):
            counts = f'{len(self._file.places)} entries, but its index.json lists {len(self)} images'
            raise InputError(f'{self.path} contains {counts}; {_FIX}')

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[Any, ...]:
        return RawStore, (self.path, self.verify_at_once)

    def describe(self, number: int) -> str:
        return f'Image {number} ({self.names[number]}) of {self.path}'

    def image(self, i: int) -> np.ndarray:
        """Return image ``i``, (H, W, C) uint8, RGB: a read-only view into the memory map, read when it is used.

        Raises:
            InputError: The pixels of this image, or of another one that was read before, do not match their checksum.
        """
        image = self._images[i]
        if image is None:
            number = range(len(self))[i]
            image = self._images[i] = self._view(number)
            if not self._marks[number]:
                if self.verify_at_once:
                    self._compare(number)
                else:
                    run_in_background(self._compare, number)
        if self._marks[-1]:
            self._raise_damage()
        return image

    def verify(self, number: int) -> None:
        """Compare the pixels of an image with their checksum, and raise InputError if they do not match."""
        self._compare(number)
        if self._marks[-1]:
            self._raise_damage()

    def _find(self, number: int) -> int:
        """Return where the pixels of an image begin, after a comparison of its header with the index."""
        mapped, places = self._file.mapped, self._file.places
        shape = tuple(self.shapes[number].tolist())
        start, size = places.get(image_key(number), (0, 0))
        expected = number, shape, self.index.crc32[number]
        if size != value_size(shape) or read_header(mapped[start : start + HEADER.size]) != expected:
            raise InputError(f'{self.describe(number)} is missing or not the one in its index.json; {_FIX}')
        return start + HEADER.size

    def _view(self, number: int) -> np.ndarray:
        shape = self.shapes[number]
        return self._file.value(self._starts[number], shape.prod()).reshape(shape)

    def _compare(self, number: int) -> None:
        """Mark an image as intact or damaged, for all processes that share the marks."""
        pixels = self._view(number)
        self._file.read_ahead(self._starts[number], pixels.size)
        is_intact = zlib.crc32(pixels.data) == self.index.crc32[number]
        self._marks[number] = _INTACT if is_intact else _DAMAGED
        if not is_intact:
            self._marks[-1] = _DAMAGED

    def _raise_damage(self) -> NoReturn:
        number = self._marks.find(bytes([_DAMAGED]))
        raise InputError(f'{self.describe(number)} does not match its checksum; {_FIX}')
