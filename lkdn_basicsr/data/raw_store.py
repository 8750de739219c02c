"""The raw store: images as pixels in an LMDB, from which a crop is copied in microseconds.

A folder ``*.lmdb`` with two files:

- ``data.mdb``, an LMDB: one entry per image, keyed by its number in eight digits. The value is a header (`HEADER`:
  magic, number, height, width, channels, CRC-32 of the pixels) and the pixels, uint8, row by row, RGB;
- ``index.json``: format, version, channel order, settings, and the names, shapes and checksums of the images in stored
  order, so that a reader gets everything but the pixels from one small file.

LMDB gives the atomic commits that make writing resumable. Reading needs none of its machinery: `lmdb_file.locate` finds
the values, and images are views into an ordinary read-only memory map, which may be shared and inherited.
"""

import json
import mmap
import os
import struct
import threading
import zlib
from typing import Any

import numpy as np

from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import replace

FORMAT = 'lkdn-raw'
VERSION = 1
MAGIC = b'LKDNRAW1'
HEADER = struct.Struct('<8s5I4x')
_FIX = 'copy the store again or prepare it again.'


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
    return HEADER.size + int(np.prod(shape))


def read_header(value: bytes | memoryview) -> tuple[int, tuple[int, int, int], int] | None:
    """Return ``(number, (height, width, channels), crc32)`` from the start of a value; None if it is no header."""
    magic, number, height, width, channels, checksum = HEADER.unpack_from(value)
    return (number, (height, width, channels), checksum) if magic == MAGIC else None


def write_index(folder: str, content: dict[str, Any]) -> None:
    """Write ``index.json`` of a store with a checksum of its own, atomically."""
    content = dict(content, checksum=_checksum(content))
    replace(os.path.join(folder, 'index.json'), json.dumps(content, ensure_ascii=False).encode())


def read_index(path: str) -> dict[str, Any]:
    """Read ``index.json`` of a store of either format; raise InputError if it does not exist or is damaged."""
    file_name = os.path.join(path, 'index.json')
    try:
        with open(file_name, encoding='utf-8') as file:
            content = json.load(file)
        stored = content.pop('checksum')
    except (FileNotFoundError, NotADirectoryError):
        how = 'make one with python -m lkdn_basicsr.prepare train, or correct the path.'
        raise InputError(f'{path} is not a store of lkdn_basicsr (it has no index.json); {how}') from None
    except (ValueError, KeyError, AttributeError, TypeError):  # not JSON, not UTF-8, not an index
        raise InputError(f'{file_name} is damaged; {_FIX}') from None
    if stored != _checksum(content):
        raise InputError(f'{file_name} does not match its own checksum; {_FIX}')
    return content


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True, ensure_ascii=False).encode())


def is_raw_store(path: str) -> bool:
    """Return whether ``path`` is the folder of a raw store (of any version), judged by its ``index.json``."""
    try:
        with open(os.path.join(path, 'index.json'), encoding='utf-8') as file:
            return json.load(file).get('format') == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


class RawStore:
    """A raw store, read-only.

    At first only the index is read. The pixels are mapped when the first image is accessed, once in a process for all
    readers. A store may be pickled, and used on both sides of a fork.

    Raises:
        InputError: Not a store, a format version this release does not know, or missing or short files.
    """

    def __init__(self, path: str) -> None:
        self.path = os.fspath(path)
        self.index = read_index(self.path)  # role, scale, settings, crc32, …
        format, version = self.index.get('format'), self.index.get('version')
        if format != FORMAT:
            how = 'use the dataset and io_backend for that format, or prepare it with --format raw.'
            raise InputError(f'{self.path} is a store of format {format}, not a raw store; {how}')
        if version != VERSION:
            how = f'this release reads version {VERSION}; update lkdn_basicsr, or prepare the store again.'
            raise InputError(f'{self.path} has format version {version}, and {how}')
        self.names: list[str] = self.index['names']  # without extension, in stored order
        self.shapes = np.array(self.index['shapes'], np.int64).reshape(-1, 3)  # height, width, channels
        self._images: list[np.ndarray | None] = [None] * len(self.names)
        data = os.path.join(self.path, 'data.mdb')
        try:
            size = os.path.getsize(data)
        except OSError:
            raise InputError(f'{data} is missing; {_FIX}') from None
        if size < self.shapes.prod(axis=1).sum() + HEADER.size * len(self):
            raise InputError(f'{data} is cut short ({size:,} bytes); {_FIX}')

    def __len__(self) -> int:
        return len(self.names)

    def image(self, i: int) -> np.ndarray:
        """Return image ``i``, (H, W, C) uint8, RGB: a read-only view into the memory map, read when it is used."""
        image = self._images[i]
        if image is not None:
            return image
        number = range(len(self))[i]
        shape = tuple(self.shapes[number].tolist())
        mapped, places = _open_map(self.path)
        start, size = places.get(image_key(number), (0, 0))
        # Nothing outside the file may be touched: that would be a bus error, not an exception.
        if size != value_size(shape) or not 0 <= start <= len(mapped) - size:
            raise InputError(f'{self.path} has lost its image {number} ({self.names[number]}); {_FIX}')
        if read_header(mapped[start : start + HEADER.size]) != (number, shape, self.index['crc32'][number]):
            name = f'Image {number} ({self.names[number]}) of {self.path}'
            raise InputError(f'{name} is not the one in its index.json; {_FIX}')
        image = np.frombuffer(mapped, np.uint8, size - HEADER.size, start + HEADER.size).reshape(shape)
        self._images[i] = image
        return image

    def __reduce__(self) -> tuple[Any, ...]:
        return RawStore, (self.path,)


_MAPS: dict[tuple[int, ...], tuple[mmap.mmap, dict[bytes, tuple[int, int]]]] = {}
_LOCK = threading.Lock()


def _open_map(path: str) -> tuple[mmap.mmap, dict[bytes, tuple[int, int]]]:
    """Return the memory map of a store's data and the places of its values; one for each file in a process.

    A forked child inherits them, which is sound for a read-only map. Views keep their map alive.
    """
    data = os.path.join(path, 'data.mdb')
    try:
        with open(data, 'rb') as file:
            status = os.fstat(file.fileno())
            identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
            with _LOCK:
                if identity not in _MAPS:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    if hasattr(mapped, 'madvise'):  # Windows has none
                        mapped.madvise(mmap.MADV_RANDOM)  # crops are scattered: do not read ahead
                    _MAPS[identity] = mapped, locate(data)[0]
                return _MAPS[identity]
    except (OSError, ValueError) as error:
        raise InputError(f'{data} cannot be read ({error}); {_FIX}') from None
