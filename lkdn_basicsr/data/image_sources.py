"""Where the pictures of a data set come from: raw stores, BasicSR's PNG LMDBs, plain folders, behind one interface.

A source has ``root``, ``names`` (what pairs are matched by: file stems or keys), ``labels`` (what a sample reports
as its path), ``sizes(indices)`` ((n, 2) int64, height and width, without decoding; -1 where that is not known),
``image(i)``, the picture as (h, w, 3) uint8 RGB, and ``describe(i)``, what errors call it. Sources hold plain data
only: they pickle, and open files and maps in the process that uses them.
"""

import os
import re
from os import path as osp

import cv2
import lmdb
import numpy as np
from PIL import Image

from lkdn_basicsr.data.image_files import list_images
from lkdn_basicsr.data.raw_store import RawStore, is_raw_store
from lkdn_basicsr.errors import InputError

_META_LINE = re.compile(r'(?P<name>.+?)\s+\((?P<height>\d+),\s*(?P<width>\d+)(,\s*\d+)?\)')


def _decode(data, what):
    """Decodes a picture as BasicSR does (8 bits, three channels): (h, w, 3) uint8 RGB."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if len(data) else None
    if image is None:
        raise InputError(f'The picture {what} is damaged or no picture; get it again, or remove it with its pair.')
    return image


def _read_meta_info(path):
    """Lines such as ``0001_s001.png (480,480,3) 1`` as a list of (name, height, width); -1 for a size not given."""
    try:
        with open(path, encoding='utf-8') as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'The meta info file {path} cannot be read ({error}); correct meta_info_file.') from None
    entries = []
    for line in lines:
        match = _META_LINE.match(line)
        entries.append(
            (match['name'], int(match['height']), int(match['width'])) if match else (line.split(' ')[0], -1, -1)
        )
    if not entries:
        raise InputError(f'The meta info file {path} names no pictures.')
    return entries


def _header_size(path):
    """Height and width that a picture's header states, (-1, -1) where it cannot be read or the file ends too early."""
    try:
        with open(path, 'rb') as file, Image.open(file) as image:
            width, height = image.size
            if image.format == 'PNG':
                file.seek(-12, os.SEEK_END)
                if b'IEND' not in file.read():
                    return -1, -1
            return height, width
    except Exception:  # whatever Pillow finds wrong: the decoder has the last word
        return -1, -1


# lmdb refuses to open an environment twice in a process, yet training and validation may share one. A forked worker
# inherits the open map, a spawned one starts with an empty table.
_environments = {}


def open_environment(root):
    """The read-only LMDB environment of the folder ``root``, opened once in a process and then shared."""
    path = osp.realpath(root)
    if path not in _environments:
        _environments[path] = lmdb.open(path, readonly=True, lock=False, readahead=False)
    return _environments[path]


class RawSource:
    """The pictures of a raw store."""

    def __init__(self, root):
        self.root = root
        self.store = RawStore(root)
        self.names = self.labels = list(self.store.names)

    def sizes(self, indices):
        return self.store.shapes[indices, :2]

    def image(self, i):
        return self.store.image(i)

    def describe(self, i):
        return f'{self.names[i]} in {self.root}'


class LmdbSource:
    """The pictures of an LMDB as BasicSR's scripts write them: encoded pictures by key, and ``meta_info.txt``."""

    def __init__(self, root):
        self.root = root
        meta_info = osp.join(root, 'meta_info.txt')
        if not osp.isfile(osp.join(root, 'data.mdb')) or not osp.isfile(meta_info):
            raise InputError(
                f'{root} is not an LMDB of BasicSR (data.mdb and meta_info.txt); prepare it again, or '
                'correct dataroot_gt, dataroot_lq or io_backend.'
            )
        entries = _read_meta_info(meta_info)
        # BasicSR cuts keys at the first dot, so that a.x1 and a.x2 become one; only the file extension goes here.
        self.names = self.labels = [osp.splitext(name)[0] for name, _, _ in entries]
        self._sizes = np.array([entry[1:] for entry in entries], np.int64)
        with self._begin() as transaction:
            stored = transaction.stat()['entries']
        if stored < len(entries):
            raise InputError(
                f'{root} holds {stored} of the {len(entries)} pictures that its meta_info.txt lists; prepare it again.'
            )

    def _begin(self):
        try:
            return open_environment(self.root).begin(buffers=True)
        except lmdb.Error as error:
            raise InputError(f'The LMDB {self.root} cannot be read ({error}); prepare it again.') from None

    def sizes(self, indices):
        return self._sizes[indices]

    def image(self, i):
        with self._begin() as transaction:
            data = transaction.get(self.names[i].encode())
            if data is None:
                raise InputError(
                    f'The picture {self.describe(i)} is listed in meta_info.txt but missing; prepare the LMDB again.'
                )
            return _decode(data, self.describe(i))

    def describe(self, i):
        return f'{self.names[i]} in {self.root}'


class FolderSource:
    """ImagePair files of one folder, by name; ``files`` (relative to the folder) default to all that it holds."""

    def __init__(self, root, files=None):
        self.root = root
        self.labels = list(list_images(root).values()) if files is None else [osp.join(root, file) for file in files]
        self.names = [osp.splitext(osp.basename(path))[0] for path in self.labels]

    def sizes(self, indices):
        return np.array([_header_size(self.labels[i]) for i in indices], np.int64).reshape(-1, 2)

    def image(self, i):
        try:
            data = np.fromfile(self.labels[i], np.uint8)
        except OSError as error:
            raise InputError(f'The picture {self.labels[i]} cannot be read ({error.strerror}).') from None
        return _decode(data, self.labels[i])

    def describe(self, i):
        return self.labels[i]


def open_sources(opt):
    """The GT and LQ pictures that data set options name, and which of them belong together.

    Args:
        opt (dict): ``dataroot_gt``, ``dataroot_lq`` and optionally ``io_backend`` (``type: raw | lmdb | disk``; a raw
            store is recognised whatever the type), ``meta_info_file`` and ``filename_tmpl``.

    Returns:
        tuple: The GT source, the LQ source, and the pairs as (n, 2) int64: index of the GT, index of the LQ picture.

    Raises:
        InputError: A folder or store is missing, empty or unreadable, or pictures do not pair.
    """
    roots = []
    for key in ('dataroot_gt', 'dataroot_lq'):
        if not opt.get(key):
            raise InputError(f'The data set option {key} is missing; give a folder, LMDB or raw store of pictures.')
        if not osp.isdir(opt[key]):
            raise InputError(f'{key}: {opt[key]} is not a folder; correct the option, or prepare the data first.')
        roots.append(str(opt[key]))
    kind = _kind((opt.get('io_backend') or {}).get('type'), roots)
    meta_info_file = opt.get('meta_info_file')
    listed = None if meta_info_file is None else [name for name, _, _ in _read_meta_info(meta_info_file)]
    if kind is FolderSource:
        gt, lq = FolderSource(roots[0], listed), FolderSource(roots[1])
    else:
        gt, lq = kind(roots[0]), kind(roots[1])
    for source in (gt, lq):
        if not source.names:
            raise InputError(f'{source.root} holds no pictures; correct dataroot_gt or dataroot_lq.')
    if listed is None or kind is FolderSource:
        chosen = range(len(gt.names))
    else:
        chosen = _listed_in(gt, [osp.splitext(name)[0] for name in listed], meta_info_file)
    return gt, lq, _pair(gt, lq, chosen, opt.get('filename_tmpl') or '{}', all_of_lq=listed is None)


def _kind(backend, roots):
    """The class of source that two folders hold."""
    if backend not in (None, 'raw', 'lmdb', 'disk'):
        raise InputError(f'io_backend: type: {backend} is not known; use raw, lmdb or disk.')
    are_raw = [is_raw_store(root) for root in roots]
    if all(are_raw) or backend == 'raw':
        return RawSource
    if any(are_raw):
        raise InputError(f'Of {roots[0]} and {roots[1]} only one is a raw store; give both in the same form.')
    if backend == 'lmdb' or backend is None and all(osp.isfile(osp.join(root, 'data.mdb')) for root in roots):
        return LmdbSource
    return FolderSource


def _listed_in(source, names, meta_info_file):
    index = {name: i for i, name in enumerate(source.names)}
    absent = [name for name in names if name not in index]
    if absent:
        raise InputError(
            f'{meta_info_file} lists {absent[0]}, which {source.root} does not hold ({len(absent)} such); '
            'correct meta_info_file, or leave it out.'
        )
    return [index[name] for name in names]


def _pair(gt, lq, chosen, template, all_of_lq):
    """Pairs the GT pictures ``chosen`` with the LQ pictures named by the template: (n, 2) int64."""
    if '{}' not in template:
        raise InputError(
            f"filename_tmpl: '{template}' does not say where the name goes; write '{{}}', or for example "
            "'{}x4' where the LQ picture of 0001.png is called 0001x4.png."
        )
    in_lq = {name: i for i, name in enumerate(lq.names)}
    # Prepared stores and LMDBs hold both pictures of a pair under one name, whatever the template says of the files.
    same = {} if isinstance(gt, FolderSource) else in_lq
    pairs = [(i, in_lq.get(template.replace('{}', gt.names[i]), same.get(gt.names[i], -1))) for i in chosen]
    counts = f'{len(gt.names)} GT and {len(lq.names)} LQ pictures'
    alone = [gt.describe(i) for i, j in pairs if j < 0]
    if alone:
        raise InputError(
            f'{lq.root} has no picture for {alone[0]} ({len(alone)} such; {counts}; filename_tmpl: '
            f"'{template}'); add it, or correct filename_tmpl."
        )
    paired = {j for _, j in pairs}
    if all_of_lq and len(paired) != len(lq.names):
        extra = next(lq.describe(j) for j in range(len(lq.names)) if j not in paired)
        raise InputError(f'{gt.root} has no picture for {extra} ({counts}); add it, or remove the other.')
    if isinstance(gt, LmdbSource):
        pairs.sort(key=lambda pair: gt.names[pair[0]])  # BasicSR's order
    return np.array(pairs, np.int64)
