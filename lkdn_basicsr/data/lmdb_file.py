"""Where in an LMDB file the values lie, read from its B-tree.

py-lmdb cannot tell without harm: it touches every page of each value it returns, to fault them in while it does not
hold the interpreter's lock, so that asking for the place of every picture would read the whole store. It also refuses
to open a file twice in a process, forked children included. The format is LMDB 0.9's, unchanged since 2013 (``lmdb.h``
and ``mdb.c`` of OpenLDAP describe it): pages of little-endian numbers, of which only those of the tree are read here.
"""

import os
import struct

META = struct.Struct('<16x2I16x48xI2H5QQQ')  # magic, version, the main tree, last page, transaction
PAGE = struct.Struct('<Q2x3H')  # number, flags, end of the pointers to nodes, begin of the nodes
NODE = struct.Struct('<4H')  # size (two halves) or child (three), flags, size of the key
MAGIC, VERSION, NO_PAGE = 0xBEEFC0DE, 1, (1 << 64) - 1
BRANCH, LEAF, OVERFLOW = 1, 2, 4
BIG = 1  # flag of a node whose value has pages of its own


def locate(file_name):
    """The place of every value in an LMDB's ``data.mdb``.

    Args:
        file_name (str): The file. It must not be written to at the same time.

    Returns:
        tuple[dict[bytes, tuple[int, int]], int]: Key, in ascending order, to begin and size of its value; and the size
        of a page; all in bytes. Every value lies within the file.

    Raises:
        ValueError: It is no LMDB file, cut short, or damaged in its tree.
        OSError: It cannot be read.
    """
    with open(file_name, 'rb') as file:
        size = os.path.getsize(file_name)
        try:
            return _locate(file.fileno(), size)
        except (struct.error, RecursionError):
            raise ValueError('its B-tree is damaged') from None


def _locate(descriptor, size):
    # The first page tells how large pages are; the newer of the first two is the one that counts.
    page_size = struct.unpack_from('<I', os.pread(descriptor, 48, 0).ljust(48, b'\0'), 40)[0]
    if page_size not in (1 << n for n in range(9, 17)):
        raise ValueError('it is no LMDB file')
    metas = [META.unpack(os.pread(descriptor, META.size, place)) for place in (0, page_size)]
    if any(meta[:2] != (MAGIC, VERSION) for meta in metas):
        raise ValueError('it is no LMDB file')
    *_, root, last, _ = max(metas, key=lambda meta: meta[-1])
    if (last + 1) * page_size > size:
        raise ValueError('it is cut short')
    places, visited = {}, set()

    def visit(number):
        if number > last or number in visited:
            raise ValueError('its B-tree is damaged')
        visited.add(number)
        page = os.pread(descriptor, page_size, number * page_size)
        found, flags, lower, _ = PAGE.unpack_from(page)
        if found != number or flags & (BRANCH | LEAF | OVERFLOW) not in (BRANCH, LEAF):
            raise ValueError('its B-tree is damaged')
        for node in struct.unpack_from(f'<{(lower - PAGE.size) // 2}H', page, PAGE.size):
            low, high, top, key_size = NODE.unpack_from(page, node)
            if flags & BRANCH:
                visit(low | high << 16 | top << 32)
                continue
            begin, length = node + NODE.size + key_size, low | high << 16
            key = page[node + NODE.size : begin]
            place = number * page_size + begin
            if top & BIG:
                place = struct.unpack_from('<Q', page, begin)[0] * page_size + PAGE.size
            if place + length > (last + 1) * page_size:
                raise ValueError('its B-tree is damaged')
            places[key] = place, length

    if root != NO_PAGE:
        visit(root)
    return places, page_size
