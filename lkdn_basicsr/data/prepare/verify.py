"""Read everything in a store again and compare it with the checksums that were taken when it was made."""

import os
import zlib

import tqdm

from lkdn_basicsr.data import raw_store as store
from lkdn_basicsr.data.image_files import png_chunks
from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.data.prepare.formats import PNG_FORMAT, PngFormat
from lkdn_basicsr.errors import InputError


def verify(path, progress=False):
    """Check a store of either format.

    Args:
        path (str): Its folder.
        progress (bool): Show a progress bar.

    Raises:
        InputError: It is no store, or something in it is missing or damaged; all of it is listed.
    """
    index = store.read_index(path)
    problems = []
    if index.get('format') == store.FORMAT:
        checks = _raw_checks(store.RawStore(path))
    elif index.get('format') == PNG_FORMAT:
        format = PngFormat(*(index['settings'][name] for name in ('crop_size', 'step', 'thresh')))
        checks = _png_checks(index, format)
        problems += _compare_listing(path, format, checks)
    else:
        raise InputError(
            f'{path} is a store of format {index.get("format")}, which this release does not know; update lkdn_basicsr.'
        )
    problems += _check_values(path, checks, progress)
    if problems:
        raise InputError(
            f'{path} is damaged ({len(problems)} of its entries); copy or prepare it again:\n  ' + '\n  '.join(problems)
        )


def _raw_checks(raw):
    """Key to name and check, a function that raises ValueError where the entry's value is not what it should be."""

    def check(value, number):
        header = store.read_header(value[: store.HEADER.size]) if len(value) > store.HEADER.size else None
        if header != (number, tuple(raw.shapes[number]), raw.index['crc32'][number]):
            raise ValueError('has a header that is not that of the index')
        if zlib.crc32(value[store.HEADER.size :]) != header[2]:
            raise ValueError('has pixels that do not match their checksum')

    return {store.key_of(n): (name, lambda value, n=n: check(value, n)) for n, name in enumerate(raw.names)}


def _png_checks(index, format):
    """The same for sub-images: a PNG brings its checksums along."""
    return {
        key.encode(): (key, png_chunks)
        for name, shape in zip(index['names'], index['shapes'], strict=True)
        for key in format.keys(name, shape[:2])
    }


def _compare_listing(path, format, checks):
    try:
        with open(os.path.join(path, 'meta_info.txt'), encoding='utf-8') as file:
            listing = file.read()
    except (OSError, ValueError) as error:
        return [f'meta_info.txt cannot be read ({error})']
    if listing != format.listing(name for name, _ in checks.values()):
        return ['meta_info.txt does not list the pictures of index.json']
    return []


def _check_values(path, checks, progress):
    problems = []
    try:
        data = os.path.join(path, 'data.mdb')
        places, page = locate(data)
        file = open(data, 'rb')
    except (OSError, ValueError) as error:
        return [f'data.mdb cannot be read ({error})']
    with file:
        for key, (name, check) in tqdm.tqdm(checks.items(), 'Verifying', unit='entry', disable=not progress):
            try:
                if key not in places:
                    raise ValueError('is missing')
                start, size = places.pop(key)
                room = -(-(start + size) // page) * page - start
                value = memoryview(os.pread(file.fileno(), room, start))
                check(value[:size])
                # LMDB fills the last page of a value that has several with zeros.
                if size > page and any(value[size:]):
                    raise ValueError('is followed by bytes that are not its own')
            except (ValueError, OSError) as problem:
                problems.append(f'{name} {problem}')
    return problems + [f'{key.decode(errors="replace")} is in data.mdb but not in index.json' for key in places]
