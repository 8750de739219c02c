"""The raw store: whole pictures as pixels in an LMDB, from which a crop is copied in microseconds.

A folder ``*.lmdb`` with two files:

- ``data.mdb``, an LMDB: one entry a picture, keyed by its number in eight digits; the value is a header (`HEADER`:
  magic, number, height, width, channels, CRC-32 of the pixels) and the pixels, uint8, rows first, RGB;
- ``index.json``: format, version, channel order, settings, and the pictures' names, shapes and checksums in stored
  order, so that a reader knows everything but the pixels from one small file.

LMDB gives the atomic commits that make writing resumable. Reading needs none of its machinery: `lmdb_file` tells where
the values lie, and pictures are views into an ordinary read-only memory map, which may be shared and inherited.
"""

import json
import mmap
import os
import struct
import threading
import zlib

import numpy as np

from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.errors import InputError

FORMAT = 'lkdn-raw'
VERSION = 1
MAGIC = b'LKDNRAW1'
HEADER = struct.Struct('<8s5I4x')


def key_of(number):
    """The key of a picture in ``data.mdb``."""
    return f'{number:08d}'.encode()


def write_picture(number, image, value):
    """Fill ``value``, a writable buffer of ``value_size(image.shape)`` bytes, with what the store keeps of a picture.

    Args:
        number (int): Its place in the store.
        image (ndarray): (H, W, C) uint8, RGB.
        value (memoryview): Receives header and pixels.
    """
    pixels = np.frombuffer(value, np.uint8, offset=HEADER.size).reshape(image.shape)
    pixels[...] = image
    HEADER.pack_into(value, 0, MAGIC, number, *image.shape, zlib.crc32(pixels))


def value_size(shape):
    """Bytes that the value of a picture of this (H, W, C) takes."""
    return HEADER.size + int(np.prod(shape))


def read_header(value):
    """``(number, (height, width, channels), crc32)`` from the first bytes of a value; None where they are no header."""
    magic, number, height, width, channels, crc = HEADER.unpack_from(value)
    return (number, (height, width, channels), crc) if magic == MAGIC else None


def write_index(folder, content):
    """Write ``index.json`` with a checksum of its own, flushed to disk.

    Args:
        folder (str): The store's folder.
        content (dict): What `read_index` will return.
    """
    content = dict(content, checksum=_checksum(content))
    with open(os.path.join(folder, 'index.json'), 'w', encoding='utf-8') as file:
        json.dump(content, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())


def read_index(path):
    """The content of a store's ``index.json``, of either format.

    Raises:
        InputError: There is no such file, or it is damaged.
    """
    file_name = os.path.join(path, 'index.json')
    try:
        with open(file_name, encoding='utf-8') as file:
            content = json.load(file)
        stored = content.pop('checksum')
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f'{path} is not a store of lkdn_basicsr (it has no index.json); make one with '
            'scripts/prepare_df2k.py, or correct the path.'
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError):  # not JSON, not UTF-8, not ours
        raise InputError(f'{file_name} is damaged; copy the store again or prepare it again.') from None
    if stored != _checksum(content):
        raise InputError(f'{file_name} does not match its own checksum; copy the store again or prepare it again.')
    return content


def _checksum(content):
    return zlib.crc32(json.dumps(content, sort_keys=True, ensure_ascii=False).encode())


def is_raw_store(path):
    """Whether ``path`` is the folder of a raw store (of any version), judged by its ``index.json``."""
    try:
        with open(os.path.join(path, 'index.json'), encoding='utf-8') as file:
            return json.load(file).get('format') == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


class RawStore:
    """A raw store, read-only.

    Only the index is read at first; the pixels are mapped when the first of them is asked for, once in a process
    however many readers there are. May be pickled, and used on both sides of a fork.

    Args:
        path (str): Folder of the store.

    Attributes:
        path (str): As given.
        names (list[str]): The pictures' names without extension, in stored order.
        shapes (ndarray): (n, 3) int64: height, width, channels.
        index (dict): All of ``index.json``: ``role``, ``scale``, ``settings``, ``crc32``, ...

    Raises:
        InputError: Not a store, a format version this release does not know, or missing or short files.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        self.index = read_index(self.path)
        if self.index.get('format') != FORMAT:
            raise InputError(
                f'{self.path} is a store of format {self.index.get("format")}, not a raw store; use the '
                'dataset and io_backend for that format, or prepare it with --format raw.'
            )
        if self.index.get('version') != VERSION:
            raise InputError(
                f'{self.path} has format version {self.index.get("version")}, and this release reads '
                f'version {VERSION}; update lkdn_basicsr, or prepare the store again.'
            )
        self.names = self.index['names']
        self.shapes = np.array(self.index['shapes'], np.int64).reshape(-1, 3)
        self._images = [None] * len(self.names)
        data = os.path.join(self.path, 'data.mdb')
        try:
            size = os.path.getsize(data)
        except OSError:
            raise InputError(f'{data} is missing; copy the store again or prepare it again.') from None
        if size < self.shapes.prod(axis=1).sum() + HEADER.size * len(self):
            raise InputError(f'{data} is cut short ({size:,} bytes); copy the store again or prepare it again.')

    def __len__(self):
        return len(self.names)

    def image(self, i):
        """ImagePair ``i``.

        Returns:
            ndarray: (H, W, C) uint8, RGB, a read-only view into the memory map. Nothing is read until it is used.
        """
        image = self._images[i]
        if image is None:
            image = self._images[i] = self._find(range(len(self))[i])
        return image

    def crop(self, i, top, left, height, width):
        """A rectangle of picture ``i``.

        Returns:
            ndarray: (height, width, C) uint8, RGB, a contiguous copy.

        Raises:
            IndexError: The rectangle leaves the picture.
        """
        image = self.image(i)
        if not (0 <= top <= image.shape[0] - height and 0 <= left <= image.shape[1] - width):
            raise IndexError(
                f'A {height}x{width} crop at ({top}, {left}) leaves {self.names[i]} of {self.path}, which '
                f'is {image.shape[0]}x{image.shape[1]}.'
            )
        return image[top : top + height, left : left + width].copy()

    def _find(self, number):
        shape = tuple(self.shapes[number].tolist())
        mapped, places = _map(self.path)
        start, size = places.get(key_of(number), (0, 0))
        # Nothing outside the file may be touched: that would be a bus error, not an exception.
        if size != value_size(shape) or not 0 <= start <= len(mapped) - size:
            raise InputError(
                f'{self.path} has lost its picture {number} ({self.names[number]}); copy the store again '
                'or prepare it again.'
            )
        if read_header(mapped[start : start + HEADER.size]) != (number, shape, self.index['crc32'][number]):
            raise InputError(
                f'ImagePair {number} ({self.names[number]}) of {self.path} is not the one in its '
                'index.json; copy the store again or prepare it again.'
            )
        return np.frombuffer(mapped, np.uint8, size - HEADER.size, start + HEADER.size).reshape(shape)

    def __getstate__(self):
        return self.path

    def __setstate__(self, path):
        self.__init__(path)


_MAPS = {}
_LOCK = threading.Lock()


def _map(path):
    """The memory map of a store's data and where in it its values lie; one for each file in a process.

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
                    # Crops are scattered: reading ahead would fetch what nobody asked for.
                    mapped.madvise(mmap.MADV_RANDOM)
                    _MAPS[identity] = mapped, locate(data)[0]
                return _MAPS[identity]
    except (OSError, ValueError) as error:
        raise InputError(f'{data} cannot be read ({error}); copy the store again or prepare it again.') from None
