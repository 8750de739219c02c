"""Where the values of an LMDB file are, read from its B-tree.

py-lmdb cannot report this without side effects: it touches every page of each value that it returns, so asking for the
place of every image would read the complete store. It trusts the tree, and ends the process where a page of it is
damaged. It also refuses to open a file twice in a process, forked children included. The format is that of LMDB 0.9,
unchanged since 2013 and described by ``lmdb.h`` and ``mdb.c`` of OpenLDAP: pages of little-endian numbers, of which
only those of the tree are read here.
"""

import dataclasses
import errno
import itertools
import mmap
import os
import struct
import threading
from typing import BinaryIO

import numpy as np

# Flags of the page; magic, version; page size and flags of the list of free pages; size of values (in some kinds of
# databases), flags, depth, entries and root of the tree; last page, transaction.
META = struct.Struct('<10xH4x2I16xIH42xI2H24x2Q2Q')
PAGE = struct.Struct('<Q2x3H')  # number, flags, end of the pointers to nodes, begin of the nodes
NODE = struct.Struct('<4H')  # size (two halves) or child (three), flags, size of the key
MAGIC, VERSION, NO_PAGE = 0xBEEFC0DE, 1, (1 << 64) - 1
BRANCH, LEAF, META_PAGE, KINDS = 1, 2, 8, 0x7F  # flags of a page, and the mask of those that are its kind
DUPLICATES = 0x70  # flags of a database that has several values for a key
BIG = 1  # flag of a node whose value has pages of its own
MAX_DEPTH = 32  # of LMDB's own cursors
_DAMAGED = 'its B-tree is damaged'


@dataclasses.dataclass(frozen=True, eq=False)
class LmdbFile:
    """An LMDB's ``data.mdb`` in memory, read-only. A view of ``mapped`` keeps it alive."""

    mapped: mmap.mmap
    places: dict[bytes, tuple[int, int]]  # see `locate`
    marks: mmap.mmap  # one byte for each entry and one more, zero at first, shared with processes that are forked

    def value(self, begin: int, size: int) -> np.ndarray:
        """Return bytes of the file, (size,) uint8: a view, read from the disk when it is used."""
        return np.frombuffer(self.mapped, np.uint8, size, begin)

    def read_ahead(self, begin: int, size: int) -> None:
        """Start to read bytes of the file from the disk, several times faster than page by page when they are used."""
        if hasattr(mmap, 'MADV_WILLNEED'):  # Windows has none
            before = begin % mmap.PAGESIZE
            self.mapped.madvise(mmap.MADV_WILLNEED, begin - before, size + before)


_FILES: dict[tuple[int, ...], LmdbFile] = {}
_LOCK = threading.Lock()


def open_lmdb(folder: str) -> LmdbFile:
    """Open the LMDB in a folder, once in a process for all readers; see `locate` for what is raised.

    A forked child inherits it, which is sound for a read-only map. Values are read from the disk when they are used.
    """
    path = os.path.join(folder, 'data.mdb')
    with _open(path) as file:
        status = os.fstat(file.fileno())
        identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        with _LOCK:
            if identity not in _FILES:
                places, _ = locate(path)
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                if hasattr(mapped, 'madvise'):  # Windows has none
                    mapped.madvise(mmap.MADV_RANDOM)  # crops are scattered: do not read ahead
                _FILES[identity] = LmdbFile(mapped, places, mmap.mmap(-1, len(places) + 1))
            return _FILES[identity]


def locate(path: str) -> tuple[dict[bytes, tuple[int, int]], int]:
    """Find every value in an LMDB's ``data.mdb``, which must not be written to at the same time.

    All that LMDB relies on when it searches the tree is checked.

    Returns:
        Key, in ascending order, to begin and size of its value; and the size of a page. All sizes are in bytes, every
        value is inside the file, and no two overlap.

    Raises:
        ValueError: It is not an LMDB file, cut short, its tree is damaged, or it has another kind of database.
        OSError: It cannot be read.
    """
    try:
        with _open(path) as file:
            return _locate(file)
    except struct.error:
        raise ValueError(_DAMAGED) from None


def _open(path: str) -> BinaryIO:
    if not os.path.isfile(path):  # a pipe would block
        raise FileNotFoundError(errno.ENOENT, 'it does not exist or is not a file', path)
    return open(path, 'rb')


def _read_meta(file: BinaryIO) -> tuple[int, int, int, int, int]:
    """Return the page size in bytes, depth and number of entries of the tree, and the numbers of root and last page."""

    def read(place: int, size: int) -> bytes:
        file.seek(place)
        return file.read(size).ljust(size, b'\0')

    # The first pages contain the page size; the one of them with the newer transaction is current.
    (page_size,) = struct.unpack_from('<I', read(0, 48), 40)
    if page_size not in (1 << n for n in range(9, 17)):
        raise ValueError('it is not an LMDB file')
    metas = []
    for place in (0, page_size):
        page_flags, magic, version, size, *meta = META.unpack(read(place, META.size))
        if (page_flags & KINDS, magic, version, size) != (META_PAGE, MAGIC, VERSION, page_size):
            raise ValueError('it is not an LMDB file')
        metas.append(meta)
    free_flags, other_size, flags, depth, entries, root, last, _ = max(metas, key=lambda meta: meta[-1])
    if free_flags & DUPLICATES or flags or other_size:
        raise ValueError('its database is of another kind than one of images')
    if (last + 1) * page_size > os.fstat(file.fileno()).st_size:
        raise ValueError('it is cut short')
    if depth > MAX_DEPTH or (root == NO_PAGE) != (entries == 0):
        raise ValueError(_DAMAGED)
    return page_size, depth, entries, root, last


def _locate(file: BinaryIO) -> tuple[dict[bytes, tuple[int, int]], int]:
    page_size, depth, entries, root, last = _read_meta(file)
    places: dict[bytes, tuple[int, int]] = {}
    newest = b''  # the key that was found last; keys are ascending

    def visit(number: int, level: int, least: bytes) -> None:
        """Visit a page, whose keys must be ``least`` or greater, and all below it."""
        nonlocal newest
        if number > last:
            raise ValueError(_DAMAGED)
        kind = BRANCH if level < depth else LEAF
        file.seek(number * page_size)
        page = file.read(page_size)
        found, flags, lower, upper = PAGE.unpack_from(page)
        count, fewest = (lower - PAGE.size) // 2, 2 if kind == BRANCH else 1
        if found != number or flags & KINDS != kind or count < fewest or lower > upper:
            raise ValueError(_DAMAGED)
        for n, node in enumerate(struct.unpack_from(f'<{count}H', page, PAGE.size)):
            low, high, top, key_size = NODE.unpack_from(page, node)
            begin, size = node + NODE.size + key_size, low | high << 16
            key = page[node + NODE.size : begin]
            if node < upper or begin > page_size:
                raise ValueError(_DAMAGED)
            if kind == BRANCH:
                # The first key of a branch page is not used: its child begins where the page does.
                if n and key <= newest:
                    raise ValueError(_DAMAGED)
                visit(size | top << 32, level + 1, key if n else least)
                continue
            if key <= newest or key < least:
                raise ValueError(_DAMAGED)
            if top not in (0, BIG):
                raise ValueError('it contains databases of another kind than one of images')
            place, end = number * page_size + begin, (number + 1) * page_size
            if top == BIG:
                place = struct.unpack_from('<Q', page, begin)[0] * page_size + PAGE.size
                end = (last + 1) * page_size
            if place + size > end:
                raise ValueError(_DAMAGED)
            places[key], newest = (place, size), key

    if root != NO_PAGE:
        visit(root, 1, b'')
    ordered = sorted(places.values())
    if len(places) != entries or any(a + size > b for (a, size), (b, _) in itertools.pairwise(ordered)):
        raise ValueError(_DAMAGED)
    return places, page_size
