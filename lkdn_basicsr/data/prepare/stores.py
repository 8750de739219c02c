"""Convert folders of images to the stores that training reads: list, plan, check, write, report."""

import collections
import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from lkdn_basicsr.data.image_files import ImagePair, pair_images
from lkdn_basicsr.data.prepare.formats import PngFormat, RawFormat, StoreFormat, is_utf8
from lkdn_basicsr.data.prepare.store_writer import finished_settings, is_finished, partial_settings
from lkdn_basicsr.data.prepare.workers import Plan, check_images, count_cores
from lkdn_basicsr.data.prepare.write_stores import bytes_on_disk, format_bytes, write_stores
from lkdn_basicsr.data.raw_store import read_index
from lkdn_basicsr.errors import InputError, raise_all
from lkdn_basicsr.files import check_writable
from lkdn_basicsr.locks import FolderLock

# The datasets of the paper: their training images, and where their archives have HR and LR.
DF2K = {
    'DIV2K': ({f'{n:04d}' for n in range(1, 801)}, 'DIV2K_train_HR', 'DIV2K_train_LR_bicubic'),
    'Flickr2K': ({f'{n:06d}' for n in range(1, 2651)}, 'Flickr2K_HR', 'Flickr2K_LR_bicubic'),
}


@dataclasses.dataclass(frozen=True)
class StoreOptions:
    """How stores are made."""

    scales: Sequence[int] = (4,)  # of the LR stores
    format: Literal['raw', 'png'] = 'raw'  # 'png': BasicSR's sub-images, by the next three options, in HR pixels
    crop_size: int = 480
    step: int = 240
    thresh: int = 0
    workers: int | None = None  # number of processes; None for the number of cores
    verify_lr: bool = False  # compare given LR images with what `imresize` makes of their HR images
    allow_missing: bool = False  # continue without HR images that are missing, make LR images that are missing
    log: Callable[[str], None] = lambda line: None
    progress: bool = False  # show progress bars on a terminal


@dataclasses.dataclass
class FoundImages:
    """The images for a group of stores, and sentences on what is missing or wrong."""

    images: list[ImagePair] = dataclasses.field(default_factory=list)
    missing: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


def prepare_df2k(
    out: str, div2k: str | None = None, flickr2k: str | None = None, options: StoreOptions | None = None
) -> list[str]:
    """Make the stores of DIV2K, Flickr2K, or both together (DF2K), from the folders as they are downloaded.

    Args:
        out: Folder for the stores ``DF2K_train_HR.lmdb``, ``DF2K_train_LR_bicubic_X4.lmdb``, …
        div2k: Folder with ``DIV2K_train_HR`` and optionally ``DIV2K_train_LR_bicubic/X4``.
        flickr2k: Folder with ``Flickr2K_HR`` and optionally ``Flickr2K_LR_bicubic/X4``.

    See `prepare_stores` for what is returned and raised.
    """
    options, found = options or StoreOptions(), FoundImages()
    folders = {name: folder for name, folder in (('DIV2K', div2k), ('Flickr2K', flickr2k)) if folder}
    for name, folder in folders.items():
        _find_df2k(name, folder, options.scales, found)
    prefix = 'DF2K' if len(folders) == 2 else next(iter(folders))
    return prepare_stores(found, out, f'{prefix}_train_', options)


def prepare_folder(out: str, hr: str, lr: str | None = None, options: StoreOptions | None = None) -> list[str]:
    """Make the stores ``HR.lmdb``, ``LR_bicubic_X4.lmdb``, … in the folder ``out`` from any folder of HR images.

    Args:
        lr: Folder of LR images, or of one folder ``X4`` per scale. Default: LR images are made.

    See `prepare_stores` for what is returned and raised.
    """
    options = options or StoreOptions()
    folders = {}
    if lr:
        names = {scale: f'X{scale}' for scale in options.scales}
        folders = {n: os.path.join(lr, name) for n, name in names.items() if os.path.isdir(os.path.join(lr, name))}
        if not folders and len(names) > 1:
            how = 'give one per scale, or prepare one scale at a time.'
            raise InputError(f'{lr} has no folders {", ".join(names.values())}; {how}')
        folders = folders or {options.scales[0]: lr}
    return prepare_stores(FoundImages(*pair_images(hr, folders)), out, '', options)


def prepare_stores(found: FoundImages, out: str, prefix: str, options: StoreOptions) -> list[str]:
    """Make one HR store, and one LR store per scale.

    All images are checked first, and all problems are reported together. HR images are cropped at the right and bottom
    to multiples of every scale. LR images that are not given are made with `imresize`, edges mirrored. After an
    interruption at any moment, the same call resumes. Finished stores are not touched.

    Returns:
        Paths of the stores, HR first.

    Raises:
        InputError: Images that cannot be used, other settings than a store was made with, too little space, a full
            disk, a worker that was killed, another process that writes to ``out``.
        OSError: A file cannot be read or written.
    """
    if not is_utf8(os.path.abspath(out)):
        raise InputError(f'--out: {out} is not UTF-8, which LMDB requires; choose another folder.')
    lock = FolderLock(out)
    lock.check_free()  # before the images are checked, which takes long
    # The order of BasicSR's listing of sub-images, so that both formats have the same windows in the same order.
    images = sorted(found.images, key=lambda image: f'{image.name}_s')
    formats = _formats(options)
    names = {scale: 'HR' if scale == 1 else f'LR_bicubic_X{scale}' for scale in formats}
    base, end = os.path.join(os.path.abspath(out), prefix), f'{formats[1].suffix}.lmdb'
    paths = {scale: f'{base}{name}{end}' for scale, name in names.items()}
    multiple = _crop_multiple(paths[1], list(formats))
    workers = min(options.workers or count_cores(), len(images))
    plan = Plan(images, formats, multiple, options.verify_lr, workers, options.progress)

    stores = {scale: (path, _settings(plan, scale)) for scale, path in paths.items()}
    unfinished = _unfinished(stores)
    problems = list(found.problems) if options.allow_missing else [*found.missing, *found.problems]
    counts = collections.Counter(image.name for image in images)
    problems += [f'{name} is the name of several images' for name, count in counts.items() if count > 1]
    if not unfinished and not problems and not options.verify_lr:
        options.log(f'Already complete: {", ".join(paths.values())}.')
        return list(paths.values())

    if unfinished:
        check_writable(out)
    options.log(f'Checking {len(images):,} images.')
    problems += check_images(plan)
    if problems:
        count = f'{len(problems)} problem{"s" * (len(problems) > 1)} with the images'
        option = ', or add --allow-missing where they are only missing' if found.missing else ''
        summary = f'{count}; fix or remove them{option}, then run this again:'
        raise_all(summary, problems, options.log)
    if unfinished:
        with lock:
            unfinished = _unfinished(stores)  # another process may have finished them in the meantime
            if unfinished:
                write_stores(plan, unfinished, options.log)
    _report(plan, paths, options.log, found.missing if options.allow_missing else [])
    return list(paths.values())


def _find_df2k(name: str, folder: str, scales: Sequence[int], found: FoundImages) -> None:
    """Add the training images of DIV2K or Flickr2K to ``found``."""
    expected, hr_name, lr_name = DF2K[name]
    hr = os.path.join(folder, hr_name)
    if not os.path.isdir(hr):  # the HR folder itself was given
        hr, folder = folder, os.path.dirname(os.path.normpath(folder))
    lr: dict[int, str] = {}
    for scale in scales:
        # As unpacked directly, and as unpacked into a folder with the name of the archive.
        for parent in (lr_name, 'LR_bicubic', os.path.join(f'{lr_name}_X{scale}', lr_name)):
            if os.path.isdir(os.path.join(folder, parent, f'X{scale}')):
                lr.setdefault(scale, os.path.join(folder, parent, f'X{scale}'))
    images, missing, left_over = pair_images(hr, lr)
    absent = expected - {image.name for image in images}
    extra = [f'{image.hr} is not a training image of {name}' for image in images if image.name not in expected]
    found.images += images
    found.missing += [f'{hr} lacks {text}' for text in format_ranges(sorted(absent))] + missing
    found.problems += extra + left_over


def format_ranges(names: list[str]) -> list[str]:
    """Join consecutive numbers: ``['0003', '0004', '0007']`` becomes ``['0003 to 0004', '0007']``."""
    ranges = []
    for _, group in itertools.groupby(enumerate(names), lambda item: int(item[1]) - item[0]):
        run = [name for _, name in group]
        ranges.append(run[0] if len(run) == 1 else f'{run[0]} to {run[-1]}')
    return ranges


def _formats(options: StoreOptions) -> dict[int, StoreFormat]:
    """Return the formats by scale, 1 for HR; the windows of LR images are those of HR images divided by the scale."""
    scales = (1, *sorted(set(options.scales)))
    if options.format == 'raw':
        return {scale: RawFormat() for scale in scales}
    sizes = {'--crop-size': options.crop_size, '--step': options.step, '--thresh': options.thresh}
    for scale in scales:
        for name, size in sizes.items():
            if size % scale:
                reason = f'{name} {size} is not a multiple of the scale {scale}, so LR and HR windows would not match'
                raise InputError(f'{reason}; choose a multiple of every scale.')
    return {scale: PngFormat(*(size // scale for size in sizes.values())) for scale in scales}


def _crop_multiple(hr_path: str, scales: list[int]) -> int:
    """Return what the sides of HR images are cropped to multiples of: that of an existing HR store, if it fits."""
    multiple = math.lcm(*scales)
    settings = finished_settings(hr_path)
    if settings:
        sides = read_index(hr_path).shapes[:, :2]
        return multiple if np.any(sides % multiple) else settings.get('sides_multiple_of', multiple)
    stored = (partial_settings(hr_path) or {}).get('sides_multiple_of')
    return stored if isinstance(stored, int) and stored > 0 and stored % multiple == 0 else multiple


def _settings(plan: Plan, scale: int) -> dict[str, Any]:
    """Return everything that determines the content of a store; the images by name and size of file.

    Keys and values are part of the store's format: they are compared with those in an existing store.
    """
    files = [image.hr if scale == 1 else image.lr.get(scale, image.hr) for image in plan.images]
    sizes = [(image.name, os.path.getsize(file)) for image, file in zip(plan.images, files, strict=True)]
    digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:12]
    given = sum(scale in image.lr for image in plan.images)
    lr = {0: 'imresize', len(plan.images): 'given'}.get(given, f'{given} given, others imresize')
    format = plan.formats[scale]
    head = dict(format=format.name, version=format.version, role='gt' if scale == 1 else 'lq', scale=scale)
    settings = head | {'sides_multiple_of': plan.multiple} | format.settings() | ({} if scale == 1 else {'lr': lr})
    return settings | {'pictures': f'{len(files)} ({sum(size for _, size in sizes)} bytes, {digest})'}


def _unfinished(stores: dict[int, tuple[str, dict[str, Any]]]) -> dict[int, tuple[str, dict[str, Any]]]:
    return {scale: (path, settings) for scale, (path, settings) in stores.items() if not is_finished(path, settings)}


def _report(plan: Plan, paths: dict[int, str], log: Callable[[str], None], missing: list[str]) -> None:
    for path in paths.values():
        size = sum(bytes_on_disk(entry.path) for entry in os.scandir(path))
        log(f'{path}: {len(plan.images):,} images, {format_bytes(size)}.')
    cropped = sum(plan.stored_shape(image) != image.shape for image in plan.images)
    if cropped:
        log(f'{cropped:,} images were cropped at the right or bottom to multiples of {plan.multiple}.')
    for scale in list(paths)[1:]:
        made = sum(scale not in image.lr for image in plan.images)
        if made:
            log(f"{made:,} LR images at x{scale} were made from HR, by MATLAB's bicubic.")
    if missing:
        log(f'Continued although something was missing: {"; ".join(missing)}.')
