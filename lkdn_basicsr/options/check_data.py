"""Check the data: images exist, pair, fit the scale and the patch, are intact, and fill a batch."""

import contextlib
import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from basicsr.data import DATASET_REGISTRY

from lkdn_basicsr.data.image_files import pair_names, probe_image
from lkdn_basicsr.data.image_sources import FolderSource, Source, is_lmdb, lmdb_entries, read_meta_info
from lkdn_basicsr.data.raw_store import is_raw_store
from lkdn_basicsr.errors import InputError, hint, one_line
from lkdn_basicsr.files import exists
from lkdn_basicsr.options.option_file import Keys, OptionFile
from lkdn_basicsr.options.registries import registered
from lkdn_basicsr.options.schema import PAIRED

# Every byte of a smaller dataset is checked; of a larger one, headers and ends of files.
DECODE_BELOW = 1 << 30
MAX_BYTES = 255  # in the name of a file
_SMALLEST_SIDE = {'calculate_ssim': 11, 'calculate_ssim_pt': 11, 'calculate_niqe': 96}  # in pixels, by metric


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of a dataset: file or key, and (height, width), or None where a store does not state it."""

    name: str
    size: tuple[int, int] | None

    def __str__(self) -> str:
        return f'{self.name} is {self.size[1]}x{self.size[0]}' if self.size else self.name


_Pairs = list[tuple[_Image, _Image]]  # ground truth and low quality


def check_data(option_file: OptionFile, world_size: int = 1) -> dict[str, int]:
    """Check the datasets of a checked option file that has ``phase`` and ``scale`` in each; files are only read.

    Returns:
        The index of the smallest image of each dataset to validate or test on, where sizes are known.

    Raises:
        InputError: A folder or store is missing, empty or incomplete; images do not pair, differ in scale, are damaged,
            or are smaller than the patch or than a metric needs; there is less than one batch.
    """
    smallest: dict[str, int] = {}
    for phase, dataset in option_file.opt['datasets'].items():
        keys = ('datasets', phase)
        for key, root in dataset.items():
            if key.startswith('dataroot') and isinstance(root, str) and not exists(root):
                reason = f'is {root}, which does not exist; correct the path, or put the data there'
                raise option_file.error((*keys, key), reason)
        if dataset['type'] not in (*PAIRED, 'SingleImageDataset') or dataset['io_backend']['type'] == 'memcached':
            continue  # how other datasets store images is not known here
        if dataset['type'] == 'SingleImageDataset':
            images = _check_single_images(option_file, keys, dataset)
            smallest |= _smallest(phase, images)
            continue
        if dataset['type'] == 'PairedCropDataset':
            pairs, samples = _open_crops(option_file, keys, dataset)
        else:
            pairs = _read_pairs(option_file, keys, dataset)
            samples = len(pairs)
            for pair in pairs:
                _check_pair(option_file, keys, dataset, *pair)
        if dataset['phase'] == 'train':
            _check_batch(option_file, keys, dataset, len(pairs), samples, world_size)
        else:
            _check_metrics(option_file, phase, [gt for gt, _ in pairs])
            _check_saved_names(option_file, [lq.name for _, lq in pairs])
            smallest |= _smallest(phase, [lq for _, lq in pairs])
    return smallest


def _smallest(phase: str, images: list[_Image]) -> dict[str, int]:
    sides = {index: min(image.size) for index, image in enumerate(images) if image.size}
    return {phase: min(sides, key=lambda index: sides[index])} if sides else {}


def _open_crops(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> tuple[_Pairs, int]:
    """Return the pairs of a PairedCropDataset, which checks them when it is built, and its number of samples."""
    try:
        crops = registered(DATASET_REGISTRY)[dataset['type']](deepcopy(dataset))
    except Exception as error:
        raise option_file.error(keys, f'cannot be opened: {one_line(error)}') from error

    def images(source: Source, indices: np.ndarray) -> list[_Image]:
        labels = [source.labels[i] for i in indices]
        if isinstance(source, FolderSource):
            return _probe(option_file, keys, labels)
        sizes = [(height, width) for height, width in source.sizes(indices).tolist()]
        return [_Image(label, size if min(size) >= 0 else None) for label, size in zip(labels, sizes, strict=True)]

    gt, lq = images(crops.gt, crops.pairs[:, 0]), images(crops.lq, crops.pairs[:, 1])
    return list(zip(gt, lq, strict=True)), len(crops)


def _read_pairs(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> _Pairs:
    """Return the pairs of a PairedImageDataset, in BasicSR's order."""
    backend = dataset['io_backend']['type']
    for key in ('dataroot_gt', 'dataroot_lq'):
        root = dataset[key]
        if is_raw_store(root):
            raise option_file.error((*keys, key), f'is {root}, a raw store; read it with type: PairedCropDataset')
        if backend == 'disk' and is_lmdb(root):
            raise option_file.error((*keys, key), f'is {root}, an LMDB; set io_backend:type to lmdb')
    return (_pair_folders if backend == 'disk' else _pair_lmdbs)(option_file, keys, dataset)


def _pair_lmdbs(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> _Pairs:
    gt, lq = (_read_lmdb(option_file, (*keys, key), dataset[key]) for key in ('dataroot_gt', 'dataroot_lq'))
    unpaired = sorted(gt.keys() ^ lq.keys())
    if unpaired:
        one, other = ('gt', 'lq') if unpaired[0] in gt else ('lq', 'gt')
        places = f'is in {dataset[f"dataroot_{one}"]} and not in {dataset[f"dataroot_{other}"]}'
        reason = f'has images that do not pair: {unpaired[0]} {places}; make both stores from the same images'
        raise option_file.error(keys, reason)
    return [(gt[key], lq[key]) for key in sorted(gt)]


def _read_lmdb(option_file: OptionFile, keys: Keys, root: str) -> dict[str, _Image]:
    """Return the images of an LMDB by key; BasicSR cuts keys at the first dot, which can make two the same."""
    with _error_at(option_file, keys):
        entries = lmdb_entries(root, exact=True)
    images: dict[str, _Image] = {}
    for entry in entries:
        key = entry.name.split('.')[0]
        if key in images:
            reason = f'is {root}, whose meta_info.txt lists {key} twice; use names that differ before the first dot'
            raise option_file.error(keys, reason)
        images[key] = _Image(key, entry.size)
    return images


def _pair_folders(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> _Pairs:
    gt_root, lq_root = dataset['dataroot_gt'], dataset['dataroot_lq']
    gt_names = _list_folder(option_file, (*keys, 'dataroot_gt'), gt_root)
    lq_names = _list_folder(option_file, (*keys, 'dataroot_lq'), lq_root)
    listed = _listed_names(option_file, keys, dataset)
    for name in listed or ():
        if not os.path.isfile(os.path.join(gt_root, name)):
            reason = f'names {name}, which is not in {gt_root}; {hint(name, gt_names)}'
            raise option_file.error((*keys, 'meta_info_file'), reason)
    gt_names = gt_names if listed is None else listed
    template = dataset.get('filename_tmpl') or '{}'

    def lq_name(gt_name: str) -> str:
        stem, extension = os.path.splitext(os.path.basename(gt_name))
        return template.format(stem) + extension

    matches = pair_names(gt_names, lq_names, lambda name: [lq_name(name)])
    if matches.missing:
        name = gt_names[matches.missing[0]]
        reason = f'{name} of {gt_root} needs {lq_name(name)}, which is not in {lq_root}; correct filename_tmpl'
        raise option_file.error(keys, f'has images that do not pair: {reason} or the folders')
    if listed is None and matches.left_over:
        name = lq_names[matches.left_over[0]]
        reason = f'has images that do not pair: {name} of {lq_root} has no partner in {gt_root}; add it or remove both'
        raise option_file.error(keys, reason)
    files = [os.path.join(gt_root, gt_names[i]) for i, _ in matches.pairs]
    files += [os.path.join(lq_root, lq_names[j]) for _, j in matches.pairs]
    images, count = _probe(option_file, keys, files), len(matches.pairs)
    return list(zip(images[:count], images[count:], strict=True))


def _check_single_images(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> list[_Image]:
    root, root_keys = dataset['dataroot_lq'], (*keys, 'dataroot_lq')
    if dataset['io_backend']['type'] == 'lmdb':
        return list(_read_lmdb(option_file, root_keys, root).values())
    names = _list_folder(option_file, root_keys, root)
    listed = _listed_names(option_file, keys, dataset)
    return _probe(option_file, keys, [os.path.join(root, name) for name in (names if listed is None else listed)])


def _list_folder(option_file: OptionFile, keys: Keys, root: str) -> list[str]:
    """Return the names of the files in a folder, as BasicSR lists them: all but hidden ones."""
    if not os.path.isdir(root):
        raise option_file.error(keys, f'is {root}, which is not a folder')
    names = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith('.') and entry.is_file())
    if not names:
        folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        advice = f'; it contains folders, for example {folders[0]}: give one of these' if folders else ''
        raise option_file.error(keys, f'is {root}, which contains no images{advice}')
    return names


def _listed_names(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> list[str] | None:
    """Return the names in ``meta_info_file``, or None if the option is not used."""
    if dataset.get('meta_info_file') is None:
        return None
    with _error_at(option_file, (*keys, 'meta_info_file')):
        return [entry.name for entry in read_meta_info(dataset['meta_info_file'], strict=True)]


def _probe(option_file: OptionFile, keys: Keys, files: list[str]) -> list[_Image]:
    """Check that image files are intact, and return them with their sizes."""
    with _error_at(option_file, keys):
        decode = sum(os.path.getsize(file) for file in files if os.path.exists(file)) < DECODE_BELOW
        return [_Image(file, probe_image(file, decode=decode, any_mode=True)) for file in files]


@contextlib.contextmanager
def _error_at(option_file: OptionFile, keys: Keys) -> Iterator[None]:
    """Prefix an InputError with the place of the option at ``keys``."""
    try:
        yield
    except InputError as error:
        raise option_file.error(keys, f'cannot be used: {error}') from error


def _check_pair(option_file: OptionFile, keys: Keys, dataset: dict[str, Any], gt: _Image, lq: _Image) -> None:
    if gt.size is None or lq.size is None:
        return
    scale = dataset['scale']
    if dataset['phase'] == 'train':
        fits = gt.size == (lq.size[0] * scale, lq.size[1] * scale)
    else:  # BasicSR crops the ground truth to a multiple of the scale
        fits = lq.size == (gt.size[0] // scale, gt.size[1] // scale)
    if not fits:
        reason = f'has images that differ in scale: {gt}, {lq}, and scale is {scale}; correct scale or the folders'
        raise option_file.error(keys, reason)
    if dataset['phase'] == 'train' and min(gt.size) < dataset['gt_size']:
        reason = f'is {dataset["gt_size"]}, but {gt}; use a smaller gt_size, or remove the image'
        raise option_file.error((*keys, 'gt_size'), reason)


def _check_batch(
    option_file: OptionFile, keys: Keys, dataset: dict[str, Any], images: int, samples: int, world_size: int
) -> None:
    size = dataset['batch_size_per_gpu']
    batch = size * (world_size if world_size > 1 else max(option_file.opt['num_gpu'], 1))
    samples = int(samples * dataset.get('dataset_enlarge_ratio', 1))
    if samples < batch:
        reason = f'is {size}, but {images} images give only {samples} samples for a batch of {batch}; make it smaller'
        raise option_file.error((*keys, 'batch_size_per_gpu'), f'{reason}, or raise dataset_enlarge_ratio')


def _check_saved_names(option_file: OptionFile, names: list[str]) -> None:
    """Check that the names of the images that are saved, IMAGE_ITERATION.png or IMAGE_SUFFIX.png, are not too long."""
    opt = option_file.opt
    val = opt.get('val') or {}
    suffix = str(opt['train']['total_iter']) if opt['is_train'] else val.get('suffix') or opt['name']
    for name in names if val.get('save_img') else ():
        saved = f'{os.path.splitext(os.path.basename(name))[0]}_{suffix}.png'
        if len(os.fsencode(saved)) > MAX_BYTES:
            reason = f'is true, but {saved} has more than the {MAX_BYTES} bytes of a file name; rename {name}'
            raise option_file.error(('val', 'save_img'), f'{reason}, or set it to false')


def _check_metrics(option_file: OptionFile, phase: str, gt_images: list[_Image]) -> None:
    """Check that the metrics can be computed on the smallest ground-truth image of a dataset."""
    side, name = min(((min(image.size), image.name) for image in gt_images if image.size), default=(None, ''))
    metrics = (option_file.opt.get('val') or {}).get('metrics') or {}
    for metric, options in metrics.items():
        needed = _SMALLEST_SIDE.get(options['type'], 1)
        border = options.get('crop_border', 0)
        if side is not None and side - 2 * border < needed:
            reason = f'crops {border} pixels at each edge and needs {needed} more, but {name} in datasets:{phase} has'
            reason += f' a side of {side}; use a smaller crop_border'
            raise option_file.error(('val', 'metrics', metric), reason)
