"""Whether the pictures are there, pair, fit the scale and the patch, are whole, and fill a batch."""

import os
import re
import struct
from copy import deepcopy
from os import path as osp

import lmdb
from basicsr.data import DATASET_REGISTRY
from PIL import Image

from lkdn_basicsr.data.image_sources import FolderSource
from lkdn_basicsr.data.raw_store import is_raw_store
from lkdn_basicsr.errors import InputError, hint, one_line
from lkdn_basicsr.options.check_relations import PAIRED
from lkdn_basicsr.options.registries import CONSTRUCTOR_ERRORS, registered

# Below this, every byte of a set is read once (its checksums, or by decoding); above it, headers and ends of files.
READ_WHOLE_BELOW = 1 << 30
_PNG, _PNG_END, _JPEG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82', b'\xff\xd9'
_LEAST_SIDE = {'calculate_ssim': 11, 'calculate_ssim_pt': 11, 'calculate_niqe': 96}  # pixels that a metric needs


def check_data(source, world_size=1):
    """Checks the data sets of an option file; reads, and changes nothing.

    Args:
        source (OptionFile): Options that have passed ``check_schema`` and ``check_relations``, with ``phase`` and
            ``scale`` in each data set.
        world_size (int): Number of ranks. Default: 1.

    Raises:
        InputError: A folder or store is missing, empty or half-made; pictures do not pair, differ in scale, are damaged
            (named), or are smaller than the patch or than a metric needs; there are fewer than one batch.
    """
    for phase, dataset in source.opt['datasets'].items():
        keys = ('datasets', phase)
        for key, root in dataset.items():
            if key.startswith('dataroot') and isinstance(root, str) and not osp.exists(root):
                raise source.error(
                    (*keys, key), f'is {root}, which does not exist; correct the path, or put the data there'
                )
        if dataset['type'] not in (*PAIRED, 'SingleImageDataset') or dataset['io_backend']['type'] == 'memcached':
            continue  # how others store pictures is not known here
        if dataset['type'] == 'SingleImageDataset':
            _read_single(source, keys, dataset)
            continue
        if dataset['type'] == 'PairedCropDataset':
            pairs, samples = _open_crops(source, keys, dataset)
        else:
            pairs = _read_pairs(source, keys, dataset)
            samples = len(pairs)
            for gt_name, gt_size, lq_name, lq_size in pairs:
                _check_pair(source, keys, dataset, gt_name, gt_size, lq_name, lq_size)
        if dataset['phase'] == 'train':
            _check_batch(source, keys, dataset, len(pairs), samples, world_size)
        else:
            _check_metrics(source, phase, pairs)


def _open_crops(source, keys, dataset):
    """The pairs of a PairedCropDataset, as ``_read_pairs`` has them, and its number of samples.

    It pairs pictures and compares their sizes itself when it is made; only whether files are whole is left to see.
    """
    try:
        crops = registered(DATASET_REGISTRY)[dataset['type']](deepcopy(dataset))
    except CONSTRUCTOR_ERRORS as err:
        raise source.error(keys, f'cannot be opened: {one_line(err)}') from err
    sides = [(side, crops.pairs[:, i]) for i, side in enumerate((crops.gt, crops.lq))]
    for side, indices in sides:
        if isinstance(side, FolderSource):
            _sizes(source, keys, [side.labels[i] for i in indices])
    named = [
        [
            (side.labels[i], tuple(size) if min(size) >= 0 else None)
            for i, size in zip(indices, side.sizes(indices).tolist(), strict=True)
        ]
        for side, indices in sides
    ]
    return [(*gt, *lq) for gt, lq in zip(*named, strict=True)], len(crops)


def _check_pair(source, keys, dataset, gt_name, gt_size, lq_name, lq_size):
    """One pair; a size is (height, width), or None where a store does not tell."""
    if gt_size is None or lq_size is None:
        return
    scale = dataset['scale']
    if dataset['phase'] == 'train':
        fits = all(gt == lq * scale for gt, lq in zip(gt_size, lq_size, strict=True))
    else:  # BasicSR crops the ground truth of a test to a multiple of the scale
        fits = all(gt // scale == lq for gt, lq in zip(gt_size, lq_size, strict=True))
    if not fits:
        raise source.error(
            keys,
            f'has pictures that differ in scale: {gt_name} is {_by(gt_size)}, {lq_name} is '
            f'{_by(lq_size)}, and scale is {scale}; correct scale or the folders',
        )
    if dataset['phase'] == 'train' and min(gt_size) < dataset['gt_size']:
        raise source.error(
            (*keys, 'gt_size'),
            f'is {dataset["gt_size"]}, larger than {gt_name} of {_by(gt_size)}; use a '
            'smaller gt_size, or remove the picture',
        )


def _by(size):
    return f'{size[1]}x{size[0]}'


def _check_batch(source, keys, dataset, pictures, samples, world_size):
    batch = dataset['batch_size_per_gpu'] * (world_size if world_size > 1 else max(source.opt['num_gpu'], 1))
    samples = int(samples * dataset.get('dataset_enlarge_ratio', 1))
    if samples < batch:
        raise source.error(
            (*keys, 'batch_size_per_gpu'),
            f'is {dataset["batch_size_per_gpu"]}, but {pictures} pictures give only {samples} samples for a batch of '
            f'{batch}; make the batch smaller, or raise dataset_enlarge_ratio',
        )


def _check_metrics(source, phase, pairs):
    val = source.opt.get('val') or {}
    smallest = min(((min(size), name) for name, size, _, _ in pairs if size is not None), default=None)
    for name, metric in (val.get('metrics') or {}).items():
        needed = _LEAST_SIDE.get(metric['type'], 1)
        border = metric.get('crop_border', 0)
        if smallest and smallest[0] - 2 * border < needed:
            raise source.error(
                ('val', 'metrics', name),
                f'leaves {border} pixels out at each edge and needs {needed} more, '
                f'but {smallest[1]} in datasets:{phase} has a side of {smallest[0]}; use a smaller crop_border',
            )


def _read_pairs(source, keys, dataset):
    """list of (gt name, gt size, lq name, lq size), in BasicSR's order; sizes are (height, width) or None."""
    roots = [dataset[key] for key in ('dataroot_gt', 'dataroot_lq')]
    backend = dataset['io_backend']['type']
    for key, root in zip(('dataroot_gt', 'dataroot_lq'), roots, strict=True):
        if is_raw_store(root):
            raise source.error((*keys, key), f'is {root}, a raw store; read it with type: PairedCropDataset')
        if backend == 'disk' and osp.isfile(osp.join(root, 'data.mdb')):
            raise source.error((*keys, key), f'is {root}, an LMDB; set io_backend:type to lmdb')
    if backend == 'disk':
        return _pairs_of_folders(source, keys, dataset)
    sizes = []
    for key, root in zip(('dataroot_gt', 'dataroot_lq'), roots, strict=True):
        try:
            sizes.append(_read_lmdb(root))
        except InputError as err:
            raise source.error((*keys, key), f'is {root}, which {err}') from err
    gt, lq = sizes
    lonely = sorted(set(gt) ^ set(lq))
    if lonely:
        there, absent = roots if lonely[0] in gt else roots[::-1]
        raise source.error(
            keys,
            f'has pictures that do not pair: {lonely[0]} is in {there} and not in {absent}; make both '
            'stores from the same pictures',
        )
    return [(name, gt[name], name, lq[name]) for name in sorted(gt)]


def _read_lmdb(root):
    """The sizes of the pictures of an LMDB by key, from its meta_info.txt; refuses one that was not finished."""
    advice = 'was not finished; delete it and make it again'
    for file in ('data.mdb', 'meta_info.txt'):
        if not osp.isfile(osp.join(root, file)):
            raise InputError(f'has no {file}: it is no LMDB, or {advice}')
    try:
        with open(osp.join(root, 'meta_info.txt'), encoding='utf-8') as f:
            lines = f.read().splitlines()
    except UnicodeDecodeError as err:
        raise InputError('has a meta_info.txt that is not text; make the LMDB again') from err
    if not lines:
        raise InputError(f'names no pictures in its meta_info.txt: it {advice}')
    found = {}
    for line in lines:
        shape = re.search(r'\((\d+), ?(\d+)', line)
        key = line.split('.')[0]
        if key in found:
            raise InputError(
                f'names {key} twice in its meta_info.txt; make it again with names that differ before the dot'
            )
        found[key] = (int(shape[1]), int(shape[2])) if shape else None
    try:
        with lmdb.open(root, readonly=True, lock=False, readahead=False) as env:
            stat, last = env.stat(), env.info()['last_pgno']
    except lmdb.Error as err:
        if 'already open' in str(err):  # lmdb allows one handle a process: someone has read from it, so it is whole
            return found
        raise InputError(f'is damaged ({one_line(err)}); make it again') from err
    if stat['entries'] != len(found):
        raise InputError(f'holds {stat["entries"]} pictures, but its meta_info.txt names {len(found)}: it {advice}')
    if (last + 1) * stat['psize'] > osp.getsize(osp.join(root, 'data.mdb')):
        raise InputError('is cut short: data.mdb is smaller than it says; copy it again')
    return found


def _list_folder(source, keys, root):
    """The names of the files in a folder, as BasicSR lists them."""
    if not osp.isdir(root):
        raise source.error(keys, f'is {root}, which is not a folder')
    names = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith('.') and entry.is_file())
    if not names:
        inside = [entry.name for entry in os.scandir(root) if entry.is_dir()]
        deeper = f'; it has folders, for example {sorted(inside)[0]}: give one of these' if inside else ''
        raise source.error(keys, f'is {root}, which holds no pictures{deeper}')
    return names


def _read_names(source, keys, dataset):
    """The names in ``meta_info_file``, or None when it is not used."""
    file = dataset.get('meta_info_file')
    if file is None:
        return None
    keys = (*keys, 'meta_info_file')
    if not osp.isfile(file):
        raise source.error(
            keys, f'is {file}, which does not exist; correct the path, or remove the key to use every picture'
        )
    try:
        with open(file, encoding='utf-8') as f:
            names = [line.strip().split(' ')[0] for line in f]
    except UnicodeDecodeError as err:
        raise source.error(keys, f'is {file}, which is not a text file') from err
    if not names or not all(names):
        raise source.error(keys, f'is {file}, which is empty or has an empty line; give one name a line')
    return names


def _pairs_of_folders(source, keys, dataset):
    gt_root, lq_root = dataset['dataroot_gt'], dataset['dataroot_lq']
    gt_names = _list_folder(source, (*keys, 'dataroot_gt'), gt_root)
    lq_names = set(_list_folder(source, (*keys, 'dataroot_lq'), lq_root))
    template = dataset.get('filename_tmpl') or '{}'
    listed = _read_names(source, keys, dataset)
    if listed is not None:
        there = set(gt_names)
        for name in listed:
            if name not in there and not osp.isfile(osp.join(gt_root, name)):
                raise source.error(
                    (*keys, 'meta_info_file'), f'names {name}, which is not in {gt_root}; {hint(name, gt_names)}'
                )
        gt_names = listed
    pairs = []
    for gt_name in gt_names:
        stem, extension = osp.splitext(osp.basename(gt_name))
        lq_name = template.format(stem) + extension
        if lq_name not in lq_names:
            raise source.error(
                keys,
                f'has pictures that do not pair: {gt_name} of {gt_root} needs {lq_name}, which is not in '
                f'{lq_root}; correct filename_tmpl or the folders',
            )
        pairs.append((gt_name, lq_name))
    if listed is None and len(lq_names) > len(pairs):
        lonely = sorted(lq_names - {lq_name for _, lq_name in pairs})[0]
        raise source.error(keys, f'has pictures that do not pair: {lonely} of {lq_root} has no partner in {gt_root}')
    files = [osp.join(root, name) for pair in pairs for root, name in zip((gt_root, lq_root), pair, strict=True)]
    sizes = _sizes(source, keys, files)
    return [(files[i], sizes[i], files[i + 1], sizes[i + 1]) for i in range(0, len(files), 2)]


def _read_single(source, keys, dataset):
    root = dataset['dataroot_lq']
    if dataset['io_backend']['type'] == 'lmdb':
        try:
            _read_lmdb(root)
        except InputError as err:
            raise source.error((*keys, 'dataroot_lq'), f'is {root}, which {err}') from err
        return
    names = _list_folder(source, (*keys, 'dataroot_lq'), root)
    _sizes(source, keys, [osp.join(root, name) for name in _read_names(source, keys, dataset) or names])


def _sizes(source, keys, files):
    """(height, width) of every file; InputError that names one that is missing or damaged."""
    try:
        whole = sum(map(osp.getsize, files)) < READ_WHOLE_BELOW
    except OSError as err:
        raise source.error(keys, f'names {err.filename}, which does not exist') from err
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # satellite pictures are no attack
    try:
        sizes = []
        for file in files:
            try:
                sizes.append(picture_size(file, whole))
            except InputError as err:
                raise source.error(keys, str(err)) from err
        return sizes
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def picture_size(file, whole=True):
    """Size of a picture as OpenCV reads it, with a check that the file is sound.

    Args:
        file (str): PNG, JPEG, or another format that Pillow reads.
        whole (bool): Read all of the file (checksums of a PNG; others are decoded). Otherwise its header and its end.
            Default: True.

    Returns:
        tuple[int, int]: Height and width.

    Raises:
        InputError: The file is empty, cut short, damaged, or no picture.
    """
    try:
        with open(file, 'rb') as f:
            head = f.read(24)
            f.seek(-min(1024, f.seek(0, os.SEEK_END)), os.SEEK_END)
            tail = f.read()
        if not head:
            raise InputError(f'has an empty file, {file}; copy it again, or remove it')
        if head.startswith(_PNG) and _PNG_END not in tail:
            raise ValueError('its end is missing')
        if head.startswith(_PNG) and not whole:
            width, height = struct.unpack('>II', head[16:24])
            return height, width
        with Image.open(file) as image:
            size = image.size[::-1]
            if image.format == 'PNG':
                image.verify()
                return size
            if image.format == 'JPEG' and image.getexif().get(0x0112, 1) >= 5:  # turned by 90 degrees when it is read
                size = size[::-1]
            if whole or not tail.endswith(_JPEG_END):
                image.draft('RGB', (1, 1))  # a JPEG is then parsed whole, but not turned into all of its pixels
                image.load()
            return size
    except InputError:
        raise
    except OSError as err:
        reason = 'it is no picture' if 'cannot identify' in str(err) else one_line(err)
        raise InputError(f'has {file}, which cannot be read ({reason}); copy it again, or remove it') from err
    except (SyntaxError, ValueError, EOFError, struct.error, MemoryError) as err:
        raise InputError(f'has {file}, which is damaged ({one_line(err)}); copy it again, or remove it') from err
