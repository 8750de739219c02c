"""Read everything in a store again and compare it with the checksums that were taken when it was made."""
import os
import zlib

import lmdb
import tqdm

from lkdn_basicsr.data.png import png_chunks
from lkdn_basicsr.data.store import FORMAT, RawStore, read_index
from lkdn_basicsr.data.store_formats import PNG_FORMAT, PngFormat
from lkdn_basicsr.errors import InputError


def verify(path, progress=False):
    """Check a store of either format.

    Args:
        path (str): Its folder.
        progress (bool): Show a progress bar.

    Raises:
        InputError: It is no store, or something in it is missing or damaged; all of it is listed.
    """
    index = read_index(path)
    if index.get('format') == FORMAT:
        problems = _verify_raw(path, progress)
    elif index.get('format') == PNG_FORMAT:
        problems = _verify_png(path, index, progress)
    else:
        raise InputError(f'{path} is a store of format {index.get("format")}, which this release does not know; update '
                         'lkdn_basicsr.')
    if problems:
        raise InputError(f'{path} is damaged ({len(problems)} of its pictures); copy or prepare it again:\n  '
                         + '\n  '.join(problems))


def _verify_raw(path, progress):
    store, problems = RawStore(path), []
    for number, name in enumerate(tqdm.tqdm(store.names, 'Verifying', unit='picture', disable=not progress)):
        try:
            if zlib.crc32(store.image(number)) != store.index['crc32'][number]:
                problems.append(f'{name}: its pixels do not match their checksum')
        except InputError as error:
            problems.append(f'{name}: {error}')
    return problems


def _verify_png(path, index, progress):
    settings = index['settings']
    format = PngFormat(settings['crop_size'], settings['step'], settings['thresh'])
    expected = [key for name, shape in zip(index['names'], index['shapes'], strict=True)
                for key in format.keys(name, shape[:2])]
    problems = []
    try:
        with open(os.path.join(path, 'meta_info.txt'), encoding='utf-8') as file:
            if file.read() != format.listing(expected):
                problems.append('meta_info.txt: it does not list the pictures of index.json')
        environment = lmdb.open(path, readonly=True, lock=False, create=False)
    except (OSError, lmdb.Error) as error:
        return [str(error)]
    with environment, environment.begin(buffers=True) as transaction:
        for key in tqdm.tqdm(expected, 'Verifying', unit='sub-image', disable=not progress):
            try:
                value = transaction.get(key.encode())
                if value is None:
                    raise ValueError('is missing')
                png_chunks(value)
            except (ValueError, lmdb.Error) as problem:
                problems.append(f'{key} {problem}')
    return problems
