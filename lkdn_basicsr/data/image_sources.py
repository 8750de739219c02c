"""The images of a dataset behind one interface: raw stores, BasicSR's PNG LMDBs, or plain folders.

A source has ``root``, ``names`` (what pairs are matched by: file names without extension, or keys), ``labels`` (what a
sample reports as its path), ``num_bytes(indices)`` (stored), ``sizes(indices)`` ((n, 2) int64, height and width, from
headers), ``probe(i)`` (height and width of an image of which every byte is checked), ``image(i)``, (H, W, 3) uint8 RGB,
and ``describe(i)`` for error messages. Those that read raise InputError, which names the image. Sources can be pickled;
files and memory maps are then opened in the process that uses them.
"""

import collections
import dataclasses
import io
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lkdn_basicsr.data.image_files import Depth, decode_image, list_images, pair_names, probe, probe_image, read_image
from lkdn_basicsr.data.lmdb_file import LmdbFile, open_lmdb
from lkdn_basicsr.data.raw_store import RawStore, is_raw_store
from lkdn_basicsr.errors import InputError, system_error

_META_LINE = re.compile(r'(?P<name>.+?)\s+\((?P<height>\d{1,9}),\s*(?P<width>\d{1,9})(,\s*\d+)?\)')


@dataclasses.dataclass(frozen=True)
class MetaEntry:
    """One line of a meta info file, such as ``0001_s001.png (480,480,3) 1``."""

    name: str  # file name with extension
    size: tuple[int, int] | None  # (height, width); None where the line does not contain it


def read_meta_info(path: str, strict: bool = False) -> list[MetaEntry]:
    """Read a meta info file.

    Args:
        strict: Also refuse lines that BasicSR's own datasets would misread: empty ones, and names with spaces.

    Raises:
        InputError: The file cannot be read, or lists no images.
    """
    if not os.path.isfile(path):
        raise InputError(f'The meta info file {path} does not exist or is not a file; correct meta_info_file.')
    try:
        with open(path, encoding='utf-8') as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError as error:
        raise InputError(f'The meta info file {path} cannot be read ({error}); correct meta_info_file.') from None
    entries = []
    for line in filter(None, lines):
        match = _META_LINE.match(line)
        size = (int(match['height']), int(match['width'])) if match else None
        entries.append(MetaEntry(match['name'] if match else line.split(' ')[0], size))
    if not entries:
        raise InputError(f'The meta info file {path} lists no images.')
    if strict and '' in lines:
        raise InputError(f'The meta info file {path} has an empty line; write one name per line.')
    spaced = [entry.name for entry in entries if ' ' in entry.name]
    if strict and spaced:
        raise InputError(f'The meta info file {path} lists {spaced[0]}, but BasicSR cuts names at a space; rename it.')
    return entries


def is_lmdb(root: str) -> bool:
    """Return whether a folder contains an LMDB, of BasicSR or a raw store."""
    return os.path.isfile(os.path.join(root, 'data.mdb'))


class RawSource:
    """The images of a raw store.

    Args:
        verify_at_once: See `RawStore`.
    """

    def __init__(self, root: str, verify_at_once: bool) -> None:
        self.root = root
        self.store = RawStore(root, verify_at_once)
        self.names = self.labels = list(self.store.names)

    def num_bytes(self, indices: np.ndarray) -> int:
        return int(self.store.shapes[indices].prod(axis=1).sum())

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return self.store.shapes[indices, :2]

    def probe(self, i: int) -> tuple[int, int]:
        self.store.verify(i)
        height, width, _ = self.store.shapes[i].tolist()
        return height, width

    def image(self, i: int) -> np.ndarray:
        return self.store.image(i)

    def describe(self, i: int) -> str:
        return f'{self.names[i]} in {self.root}'


class LmdbSource:
    """The images of an LMDB as BasicSR's scripts write it: encoded images by key, and ``meta_info.txt``.

    Args:
        for_basicsr: Check that BasicSR's own datasets can read it as well. They cut the lines of ``meta_info.txt`` at
            the first dot, which can make two keys the same.

    Raises:
        InputError: It is not such an LMDB, cut short, damaged, or its keys are not those of ``meta_info.txt``. More
            keys are refused with ``for_basicsr`` only.
    """

    def __init__(self, root: str, for_basicsr: bool = False) -> None:
        self.root, meta_info = root, os.path.join(root, 'meta_info.txt')
        if not is_lmdb(root) or not os.path.isfile(meta_info):
            how = 'prepare it again, or correct dataroot_gt, dataroot_lq or io_backend.'
            raise InputError(f'{root} is not an LMDB of BasicSR (data.mdb and meta_info.txt); {how}')
        entries = read_meta_info(meta_info)
        cut = (lambda name: name.split('.')[0]) if for_basicsr else (lambda name: os.path.splitext(name)[0])
        self.names = self.labels = [cut(entry.name) for entry in entries]
        self._sizes = [entry.size for entry in entries]
        places = self._open().places
        if len(places) < len(entries) or for_basicsr and len(places) > len(entries):
            counts = f'{len(places)} of the {len(entries)} images'
            raise InputError(f'{root} contains {counts} that its meta_info.txt lists; prepare it again.')
        missing = [name for name in self.names if name.encode() not in places]
        if missing:
            reason = f'{root} does not contain {missing[0]}, which its meta_info.txt lists ({len(missing)} such)'
            raise InputError(f'{reason}; prepare it again.')
        name, count = collections.Counter(self.names).most_common(1)[0]
        if count > 1:
            how = f'use names that differ before the {"first dot" if for_basicsr else "extension"}.'
            raise InputError(f'{meta_info} lists {name} twice; {how}')
        if for_basicsr:
            _check_lines(meta_info, self.names)

    def _open(self) -> LmdbFile:
        try:
            return open_lmdb(self.root)
        except (OSError, ValueError) as error:
            damaged = InputError(f'The LMDB {self.root} cannot be read ({error}); prepare it again.')
            raise system_error(error) or damaged from None

    def num_bytes(self, indices: np.ndarray) -> int:
        places = self._open().places
        return sum(places[self.names[i].encode()][1] for i in indices.tolist())

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        sizes = [self._sizes[i] or self.probe(i, 'header') for i in indices.tolist()]
        return np.array(sizes, np.int64).reshape(-1, 2)

    def probe(self, i: int, depth: Depth = 'pixels') -> tuple[int, int]:
        size, listed = probe(io.BytesIO(self._value(i).tobytes()), self.describe(i), depth), self._sizes[i]
        if listed and size != listed:
            sizes = f'is {size[1]}x{size[0]}, but {listed[1]}x{listed[0]} in meta_info.txt'
            raise InputError(f'{self.describe(i)} {sizes}; prepare the LMDB again.')
        return size

    def image(self, i: int) -> np.ndarray:
        return decode_image(self._value(i), self.describe(i))

    def _value(self, i: int) -> np.ndarray:
        """Return the bytes of an encoded image, (n,) uint8."""
        file = self._open()
        place = file.places.get(self.names[i].encode())
        if place is None:
            raise InputError(f'{self.root} was replaced and does not contain {self.names[i]} any more; start again.')
        file.read_ahead(*place)
        return file.value(*place)

    def describe(self, i: int) -> str:
        return f'{self.names[i]} in {self.root}'


def _check_lines(meta_info: str, keys: list[str]) -> None:
    """Check that BasicSR finds these keys in a meta info file, as its ``paired_paths_from_lmdb`` does."""
    with open(meta_info, encoding='utf-8') as file:
        if [line.split('.')[0] for line in file] != keys or not all(map(str.isascii, keys)):
            how = 'write one name with an extension, of ASCII characters, per line.'
            raise InputError(f'{meta_info} has lines that BasicSR cannot read; {how}')


class FolderSource:
    """The image files of one folder: all, or some ``files`` by their paths relative to it."""

    def __init__(self, root: str, files: Sequence[str] | None = None) -> None:
        self.root = root
        paths = list_images(root).values() if files is None else [os.path.join(root, file) for file in files]
        self.labels = list(paths)
        self.names = [os.path.splitext(os.path.basename(path))[0] for path in paths]

    def num_bytes(self, indices: np.ndarray) -> int:
        paths = [self.labels[i] for i in indices.tolist()]
        return sum(os.path.getsize(path) for path in paths if os.path.exists(path))

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        return np.array([self.probe(i, 'header') for i in indices.tolist()], np.int64).reshape(-1, 2)

    def probe(self, i: int, depth: Depth = 'pixels') -> tuple[int, int]:
        return probe_image(self.labels[i], depth)

    def image(self, i: int) -> np.ndarray:
        return read_image(self.labels[i])

    def describe(self, i: int) -> str:
        return self.labels[i]


Source = RawSource | LmdbSource | FolderSource


def open_sources(opt: dict[str, Any]) -> tuple[Source, Source, np.ndarray]:
    """Open the GT and LQ images that dataset options (see `PairedCropDataset`) name, and pair them.

    Returns:
        The GT source, the LQ source, and the pairs as (n, 2) int64: index of the GT, index of the LQ image.

    Raises:
        InputError: A folder or store is missing, empty or unreadable, or images do not pair.
    """
    roots = []
    for key in ('dataroot_gt', 'dataroot_lq'):
        if not opt.get(key):
            raise InputError(f'The dataset option {key} is missing; give a folder, LMDB or raw store of images.')
        if not os.path.isdir(opt[key]):
            raise InputError(f'{key}: {opt[key]} is not a folder; correct the option, or prepare the data first.')
        roots.append(str(opt[key]))
    source_class = _source_class((opt.get('io_backend') or {}).get('type'), roots)
    meta_info = opt.get('meta_info_file')
    listed = None if meta_info is None else [entry.name for entry in read_meta_info(str(meta_info))]
    template = opt.get('filename_tmpl') or '{}'
    if '{}' not in template:
        how = "write '{}', or for example '{}x4' where the LQ image of 0001.png is called 0001x4.png."
        raise InputError(f"filename_tmpl: '{template}' has no place for the name; {how}")
    gt: Source
    lq: Source
    if source_class is FolderSource:
        gt, lq = FolderSource(roots[0], listed), FolderSource(roots[1])
    elif source_class is RawSource:
        gt, lq = (RawSource(root, verify_at_once=opt['phase'] != 'train') for root in roots)
    else:
        gt, lq = map(LmdbSource, roots)
    for source in (gt, lq):
        if not source.names:
            raise InputError(f'{source.root} contains no images; correct dataroot_gt or dataroot_lq.')
    chosen = list(range(len(gt.names)))
    if listed is not None and source_class is not FolderSource:
        names = [os.path.splitext(file)[0] for file in listed]
        matches = pair_names(names, gt.names, lambda name: [name])
        if matches.missing:
            name, count = names[matches.missing[0]], len(matches.missing)
            lost = f'{name}, which {gt.root} does not contain ({count} such)'
            raise InputError(f'{meta_info} lists {lost}; correct meta_info_file, or remove it.')
        chosen = [j for _, j in matches.pairs]
    return gt, lq, _pair_sources(gt, lq, chosen, template, all_of_lq=listed is None)


def _source_class(backend: str | None, roots: list[str]) -> type[Source]:
    if backend not in (None, 'raw', 'lmdb', 'disk'):
        raise InputError(f'io_backend: type: {backend} is not known; use raw, lmdb or disk.')
    are_raw = [is_raw_store(root) for root in roots]
    if all(are_raw) or backend == 'raw':
        return RawSource
    if any(are_raw):
        raise InputError(f'Of {roots[0]} and {roots[1]} only one is a raw store; give both in the same form.')
    if backend == 'lmdb' or backend is None and all(map(is_lmdb, roots)):
        return LmdbSource
    return FolderSource


def _pair_sources(gt: Source, lq: Source, chosen: list[int], template: str, all_of_lq: bool) -> np.ndarray:
    """Pair the GT images ``chosen`` with the LQ images named by the template: (n, 2) int64."""

    def candidates(name: str) -> list[str]:
        # Prepared stores and LMDBs have both images of a pair under one name, whatever the names of the files were.
        same_name = [] if isinstance(gt, FolderSource) else [name]
        return [template.replace('{}', name), *same_name]

    matches = pair_names([gt.names[i] for i in chosen], lq.names, candidates)
    counts = f'{len(gt.names)} GT and {len(lq.names)} LQ images'
    if matches.missing:
        first = gt.describe(chosen[matches.missing[0]])
        detail = f"{len(matches.missing)} such; {counts}; filename_tmpl: '{template}'"
        raise InputError(f'{lq.root} has no image for {first} ({detail}); add it, or correct filename_tmpl.')
    if all_of_lq and matches.left_over:
        first = lq.describe(matches.left_over[0])
        raise InputError(f'{gt.root} has no image for {first} ({counts}); add it, or remove the other.')
    pairs = [(chosen[i], j) for i, j in matches.pairs]
    if isinstance(gt, LmdbSource):
        pairs.sort(key=lambda pair: gt.names[pair[0]])  # BasicSR's order
    return np.array(pairs, np.int64)
