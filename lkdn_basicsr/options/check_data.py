"""Check the data: images exist, pair, fit the scale and the patch, are intact, and fill a batch."""

import contextlib
import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
import tqdm
from basicsr.data import DATASET_REGISTRY
from basicsr.utils import scandir

from lkdn_basicsr.data.image_files import SUFFIXES, pair_names
from lkdn_basicsr.data.image_sources import FolderSource, LmdbSource, Source, is_lmdb, read_meta_info
from lkdn_basicsr.data.raw_store import is_raw_store
from lkdn_basicsr.errors import InputError, hint, one_line
from lkdn_basicsr.files import exists
from lkdn_basicsr.options.option_file import Keys, OptionFile
from lkdn_basicsr.options.registries import registered

# Every byte of a smaller dataset is checked, which takes a few seconds; of a larger one, what `check_data` lists.
DECODE_BELOW = 1 << 29
_MAX_THREADS = 16  # each decodes one image
_MAX_NAME = 255  # bytes in the name of a file
_SMALLEST_SIDE = {'calculate_ssim': 11, 'calculate_ssim_pt': 11, 'calculate_niqe': 96}  # in pixels, by metric


@dataclass(frozen=True)
class _Images:
    """Images of one source of a dataset."""

    source: Source
    indices: np.ndarray  # (n,) int64, in the source
    sizes: np.ndarray  # (n, 2) int64, height and width

    def describe(self, i: int) -> str:
        height, width = self.sizes[i].tolist()
        return f'{self.source.describe(int(self.indices[i]))} is {width}x{height}'

    def smallest(self) -> int:
        """Return the index of the image with the shortest side, and of those, with the fewest pixels."""
        return int(np.lexsort((self.sizes.prod(axis=1), self.sizes.min(axis=1)))[0])


@dataclass(frozen=True)
class _Dataset:
    """The images of a dataset, sorted by name."""

    sources: list[Source]  # of GT and LQ, or of LQ only
    indices: np.ndarray  # (n, 1 or 2) int64, in the sources
    samples: np.ndarray  # (n,) int64: the index of the first sample of each image
    num_samples: int


def check_data(option_file: OptionFile, world_size: int = 1, complete: bool = False) -> dict[str, int]:
    """Check the datasets of a checked option file that has ``phase`` and ``scale`` in each; files are only read.

    Args:
        complete: Compare all images with their checksums and decode them, with a progress bar on a terminal. Otherwise
            this is done for datasets of less than ``DECODE_BELOW`` bytes; of larger ones, lists and trees of stores,
            headers of images, and ends of files are read.

    Returns:
        The index of the smallest image of each dataset, by phase. Datasets of other classes than those of images and
        pairs of images are not checked and have none.

    Raises:
        InputError: A folder or store is missing, empty or incomplete; images do not pair, differ in scale, are damaged,
            or are smaller than the patch or than a metric needs; there is less than one batch.
    """
    smallest = {}
    for phase, dataset in option_file.opt['datasets'].items():
        keys, kind = ('datasets', phase), dataset['type']
        for key, root in dataset.items():
            if key.startswith('dataroot') and isinstance(root, str) and not exists(root):
                reason = f'is {root}, which does not exist; correct the path, or put the data there'
                raise option_file.error((*keys, key), reason)
        if kind not in _OPEN or dataset['io_backend']['type'] == 'memcached':
            continue  # how other datasets store images is not known here
        opened = _OPEN[kind](option_file, keys, dataset)
        with _error_at(option_file, keys):
            columns = zip(opened.sources, opened.indices.T, strict=True)
            images = [_check_images(source, indices, complete) for source, indices in columns]
        if len(images) == 2:
            _check_pairs(option_file, keys, dataset, *images)
        if dataset['phase'] == 'train':
            _check_batch(option_file, keys, dataset, len(opened.indices), opened.num_samples, world_size)
        else:
            lq = images[-1]
            _check_saved_names(option_file, [lq.source.labels[i] for i in lq.indices])
            if len(images) == 2:
                _check_metrics(option_file, phase, images[0])
        smallest[phase] = int(opened.samples[images[0].smallest()])
    return smallest


def _check_images(source: Source, indices: np.ndarray, complete: bool) -> _Images:
    """Check images of a source, and return them with their sizes."""
    if not complete and source.num_bytes(indices) >= DECODE_BELOW:
        return _Images(source, indices, source.sizes(indices))
    # Decoders and checksums release Python's lock. Nothing is drawn where the output is redirected.
    with ThreadPool(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
        sizes = pool.imap(source.probe, indices.tolist(), chunksize=8)
        name = os.path.basename(os.path.normpath(source.root))
        bar = tqdm.tqdm(sizes, f'Checking {name}', len(indices), leave=False, unit='image', delay=1, disable=None)
        return _Images(source, indices, np.array(list(bar), np.int64).reshape(-1, 2))


def _open_crops(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> _Dataset:
    """Return the images of a PairedCropDataset, which checks its pairs by their headers when it is built."""
    try:
        crops = registered(DATASET_REGISTRY)[dataset['type']](deepcopy(dataset))
    except Exception as error:
        raise option_file.error(keys, f'cannot be opened: {one_line(error)}') from error
    pairs = np.arange(len(crops)) if crops.windows is None else crops.windows[:, 0]
    return _Dataset([crops.gt, crops.lq], crops.pairs, np.unique(pairs, return_index=True)[1], len(crops))


def _open_pairs(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> _Dataset:
    """Return the images of a PairedImageDataset."""
    backend = dataset['io_backend']['type']
    for key in ('dataroot_gt', 'dataroot_lq'):
        root = dataset[key]
        if is_raw_store(root):
            raise option_file.error((*keys, key), f'is {root}, a raw store; read it with type: PairedCropDataset')
        if backend == 'disk' and is_lmdb(root):
            raise option_file.error((*keys, key), f'is {root}, an LMDB; set io_backend:type to lmdb')
    return (_pair_folders if backend == 'disk' else _pair_lmdbs)(option_file, keys, dataset)


def _pair_lmdbs(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> _Dataset:
    gt, lq = (_open_lmdb(option_file, (*keys, key), dataset[key]) for key in ('dataroot_gt', 'dataroot_lq'))
    unpaired = sorted(set(gt.names) ^ set(lq.names))
    if unpaired:
        one, other = ('gt', 'lq') if unpaired[0] in gt.names else ('lq', 'gt')
        places = f'is in {dataset[f"dataroot_{one}"]} and not in {dataset[f"dataroot_{other}"]}'
        reason = f'has images that do not pair: {unpaired[0]} {places}; make both stores from the same images'
        raise option_file.error(keys, reason)
    orders = [sorted(range(len(source.names)), key=source.names.__getitem__) for source in (gt, lq)]
    return _Dataset([gt, lq], np.array(orders, np.int64).T, np.arange(len(gt.names)), len(gt.names))


def _open_lmdb(option_file: OptionFile, keys: Keys, root: str) -> LmdbSource:
    with _error_at(option_file, keys):
        return LmdbSource(root, for_basicsr=True)


def _pair_folders(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> _Dataset:
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
    order = {name: i for i, name in enumerate(scandir(gt_root) if listed is None else listed)}
    samples = np.array([order[gt_names[i]] for i, _ in matches.pairs], np.int64)
    sources: list[Source] = [FolderSource(gt_root, gt_names), FolderSource(lq_root, lq_names)]
    return _Dataset(sources, np.array(matches.pairs, np.int64), samples, len(samples))


def _open_single_images(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> _Dataset:
    """Return the images of a SingleImageDataset."""
    root, root_keys = dataset['dataroot_lq'], (*keys, 'dataroot_lq')
    source: Source
    if dataset['io_backend']['type'] == 'lmdb':
        source = _open_lmdb(option_file, root_keys, root)
    else:
        names = _list_folder(option_file, root_keys, root)
        listed = _listed_names(option_file, keys, dataset)
        source = FolderSource(root, names if listed is None else listed)
    indices = np.arange(len(source.names))
    return _Dataset([source], indices[:, None], indices, len(indices))


_OPEN = {'PairedCropDataset': _open_crops, 'PairedImageDataset': _open_pairs, 'SingleImageDataset': _open_single_images}


def _list_folder(option_file: OptionFile, keys: Keys, root: str) -> list[str]:
    """Return the names of the files in a folder that BasicSR lists, all but hidden ones, sorted."""
    if not os.path.isdir(root):
        raise option_file.error(keys, f'is {root}, which is not a folder')
    entries = sorted((entry for entry in os.scandir(root) if entry.name[0] != '.'), key=lambda entry: entry.name)
    names = [entry.name for entry in entries if entry.is_file()]
    for entry in entries:
        if entry.name.lower().endswith(SUFFIXES) and not entry.is_file():
            reason = f'contains {entry.name}, which is not a regular file, but a folder, pipe, socket or device'
            raise option_file.error(keys, f'is {root}, which {reason}; remove it')
    if not names:
        folders = [entry.name for entry in entries if entry.is_dir()]
        advice = f'; it contains folders, for example {folders[0]}: give one of these' if folders else ''
        raise option_file.error(keys, f'is {root}, which contains no images{advice}')
    return names


def _listed_names(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> list[str] | None:
    """Return the names in ``meta_info_file``, or None if the option is not used."""
    if dataset.get('meta_info_file') is None:
        return None
    with _error_at(option_file, (*keys, 'meta_info_file')):
        return [entry.name for entry in read_meta_info(dataset['meta_info_file'], strict=True)]


@contextlib.contextmanager
def _error_at(option_file: OptionFile, keys: Keys) -> Iterator[None]:
    """Prefix an error of the input or of the system with the place of the option at ``keys``."""
    try:
        yield
    except (InputError, OSError) as error:
        raise option_file.error(keys, f'cannot be used: {one_line(error)}') from error


def _check_pairs(option_file: OptionFile, keys: Keys, dataset: dict[str, Any], gt: _Images, lq: _Images) -> None:
    scale = dataset['scale']
    if dataset['phase'] == 'train':
        fits = gt.sizes == lq.sizes * scale
    else:  # BasicSR crops the ground truth to a multiple of the scale
        fits = gt.sizes // scale == lq.sizes
    for i in np.flatnonzero(~fits.all(axis=1))[:1]:
        pair = f'{gt.describe(i)}, {lq.describe(i)}, and scale is {scale}'
        raise option_file.error(keys, f'has images that differ in scale: {pair}; correct scale or the folders')
    if dataset['phase'] == 'train' and gt.sizes.min() < dataset['gt_size']:
        reason = (
            f'is {dataset["gt_size"]}, but {gt.describe(gt.smallest())}; use a smaller gt_size, or remove the image'
        )
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
        if len(os.fsencode(saved)) > _MAX_NAME:
            reason = f'is true, but {saved} has more than the {_MAX_NAME} bytes of a file name; rename {name}'
            raise option_file.error(('val', 'save_img'), f'{reason}, or set it to false')


def _check_metrics(option_file: OptionFile, phase: str, gt: _Images) -> None:
    """Check that the metrics can be computed on the smallest ground-truth image of a dataset."""
    side, name = int(gt.sizes.min()), gt.source.describe(int(gt.indices[gt.smallest()]))
    metrics = (option_file.opt.get('val') or {}).get('metrics') or {}
    for metric, options in metrics.items():
        needed = _SMALLEST_SIDE.get(options['type'], 1)
        border = options.get('crop_border', 0)
        if side - 2 * border < needed:
            reason = f'crops {border} pixels at each edge and needs {needed} more, but {name} in datasets:{phase} has'
            reason += f' a side of {side}; use a smaller crop_border'
            raise option_file.error(('val', 'metrics', metric), reason)
