"""Read a store again and compare everything with the checksums that were stored when it was made."""

import functools
import os
import zlib
from collections.abc import Callable
from typing import Any

import tqdm

from lkdn_basicsr.data import raw_store
from lkdn_basicsr.data.image_files import png_chunks
from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.data.prepare.formats import PNG_FORMAT, PngFormat
from lkdn_basicsr.errors import InputError, raise_all
from lkdn_basicsr.structure import matches

# Key of an entry to its name, and a function that raises ValueError if its value is damaged.
Checks = dict[bytes, tuple[str, Callable[[memoryview], Any]]]


def verify(path: str, progress: bool = False, log: Callable[[str], None] = lambda line: None) -> None:
    """Check a store of either format; raise InputError if something is missing or damaged, see `raise_all`."""
    index = raw_store.read_index(path)
    problems = []
    if index.format == raw_store.FORMAT:
        checks = _raw_checks(index)
    elif index.format == PNG_FORMAT:
        format = _png_format(path, index.settings)
        shapes = zip(index.names, index.shapes.tolist(), strict=True)
        keys = [key for name, shape in shapes for key in format.keys(name, shape[:2])]
        checks = {key.encode(): (key, png_chunks) for key in keys}  # a PNG contains its own checksums
        problems += _check_meta_info(path, format.meta_info(keys))
    else:
        reason = f'is a store of format {index.format}, which this release does not know'
        raise InputError(f'{path} {reason}; update lkdn_basicsr.')
    problems += _check_values(path, checks, progress)
    if problems:
        summary = f'{path} is damaged ({len(problems)} of its entries); copy or prepare it again:'
        raise_all(summary, problems, log)


def _raw_checks(index: raw_store.Index) -> Checks:
    def check(number: int, value: memoryview) -> None:
        size, checksum = raw_store.HEADER.size, index.crc32[number]
        header = raw_store.read_header(value) if len(value) > size else None
        if header != (number, tuple(index.shapes[number].tolist()), checksum):
            raise ValueError('its header does not match the index')
        if zlib.crc32(value[size:]) != checksum:
            raise ValueError('its pixels do not match their checksum')

    return {raw_store.image_key(n): (name, functools.partial(check, n)) for n, name in enumerate(index.names)}


def _png_format(path: str, settings: dict[str, Any]) -> PngFormat:
    sizes = {'crop_size': range(1, 1 << 31), 'step': range(1, 1 << 31), 'thresh': range(1 << 31)}
    if not matches(settings, sizes):
        raise InputError(f'{path}/index.json has no valid settings; copy the store again or prepare it again.')
    return PngFormat(*(settings[key] for key in sizes))


def _check_meta_info(path: str, expected: str) -> list[str]:
    try:
        with open(os.path.join(path, 'meta_info.txt'), encoding='utf-8') as file:
            is_expected = file.read() == expected
    except (OSError, ValueError) as error:
        return [f'meta_info.txt cannot be read ({error})']
    return [] if is_expected else ['meta_info.txt does not list the images of index.json']


def _check_values(path: str, checks: Checks, progress: bool) -> list[str]:
    problems = []
    try:
        data = os.path.join(path, 'data.mdb')
        places, page_size = locate(data)
        file = open(data, 'rb')
    except (OSError, ValueError) as error:
        return [f'data.mdb cannot be read ({error})']
    hide = None if progress else True  # None shows the bar on a terminal only
    with file:
        for key, (name, check) in tqdm.tqdm(checks.items(), 'Verifying', unit='entry', disable=hide):
            if key not in places:
                problems.append(f'{name}: it is missing')
                continue
            start, size = places.pop(key)
            padded = -(-(start + size) // page_size) * page_size - start
            try:
                file.seek(start)
                value = memoryview(file.read(padded))
                check(value[:size])
                # LMDB fills the last page of a value that has several pages with zeros.
                if size > page_size and any(value[size:]):
                    raise ValueError('it is followed by bytes of no entry')
            except (ValueError, OSError) as error:
                problems.append(f'{name}: {error}')
    return problems + [f'{key.decode(errors="replace")} is in data.mdb but not in index.json' for key in places]
