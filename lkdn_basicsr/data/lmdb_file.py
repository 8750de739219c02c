"""Where the values of an LMDB file are, read from its B-tree.

py-lmdb cannot report this without side effects: it touches every page of each value that it returns, so asking for the
place of every image would read the complete store. It also refuses to open a file twice in a process, forked children
included. The format is that of LMDB 0.9, unchanged since 2013 and described by ``lmdb.h`` and ``mdb.c`` of OpenLDAP:
pages of little-endian numbers, of which only those of the tree are read here.
"""

import os
import struct
from typing import BinaryIO

META = struct.Struct('<16x2I16x48xI2H5QQQ')  # magic, version, main tree (entries, root last), last page, transaction
PAGE = struct.Struct('<Q2x3H')  # number, flags, end of the pointers to nodes, begin of the nodes
NODE = struct.Struct('<4H')  # size (two halves) or child (three), flags, size of the key
MAGIC, VERSION, NO_PAGE = 0xBEEFC0DE, 1, (1 << 64) - 1
BRANCH, LEAF, OVERFLOW = 1, 2, 4
BIG = 1  # flag of a node whose value has pages of its own


def count_entries(path: str) -> int:
    """Return the number of entries of an LMDB's ``data.mdb``, from its first pages; see `locate` for what is raised."""
    with open(path, 'rb') as file:
        return _read_meta(file)[1]


def locate(path: str) -> tuple[dict[bytes, tuple[int, int]], int]:
    """Find every value in an LMDB's ``data.mdb``, which must not be written to at the same time.

    Returns:
        Key, in ascending order, to begin and size of its value; and the size of a page. All sizes are in bytes, and
        every value is inside the file.

    Raises:
        ValueError: It is not an LMDB file, cut short, or its tree is damaged.
        OSError: It cannot be read.
    """
    try:
        with open(path, 'rb') as file:
            return _locate(file)
    except (struct.error, RecursionError):
        raise ValueError('its B-tree is damaged') from None


def _read_meta(file: BinaryIO) -> tuple[int, int, int, int]:
    """Return page size in bytes, number of entries, and the numbers of the root page and of the last page in use."""

    def read(place: int, size: int) -> bytes:
        file.seek(place)
        return file.read(size).ljust(size, b'\0')

    # The first page contains the page size; of the first two pages the one with the newer transaction is current.
    (page_size,) = struct.unpack_from('<I', read(0, 48), 40)
    if page_size not in (1 << n for n in range(9, 17)):
        raise ValueError('it is not an LMDB file')
    metas = [META.unpack(read(place, META.size)) for place in (0, page_size)]
    if any(meta[:2] != (MAGIC, VERSION) for meta in metas):
        raise ValueError('it is not an LMDB file')
    *_, entries, root, last, _ = max(metas, key=lambda meta: meta[-1])
    if (last + 1) * page_size > os.fstat(file.fileno()).st_size:
        raise ValueError('it is cut short')
    return page_size, entries, root, last


def _locate(file: BinaryIO) -> tuple[dict[bytes, tuple[int, int]], int]:
    page_size, _, root, last = _read_meta(file)
    places: dict[bytes, tuple[int, int]] = {}
    visited: set[int] = set()

    def visit(number: int) -> None:
        if number > last or number in visited:
            raise ValueError('its B-tree is damaged')
        visited.add(number)
        file.seek(number * page_size)
        page = file.read(page_size)
        found, flags, lower, _ = PAGE.unpack_from(page)
        if found != number or flags & (BRANCH | LEAF | OVERFLOW) not in (BRANCH, LEAF):
            raise ValueError('its B-tree is damaged')
        for node in struct.unpack_from(f'<{(lower - PAGE.size) // 2}H', page, PAGE.size):
            low, high, top, key_size = NODE.unpack_from(page, node)
            if flags & BRANCH:
                visit(low | high << 16 | top << 32)
                continue
            begin, size = node + NODE.size + key_size, low | high << 16
            place = number * page_size + begin
            if top & BIG:
                place = struct.unpack_from('<Q', page, begin)[0] * page_size + PAGE.size
            if place + size > (last + 1) * page_size:
                raise ValueError('its B-tree is damaged')
            places[page[node + NODE.size : begin]] = place, size

    if root != NO_PAGE:
        visit(root)
    return places, page_size
