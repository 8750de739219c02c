"""Check that options agree with each other: phases, scale, patch, schedule, metrics."""

import importlib.util
import inspect
import os
import re
from typing import Any

from basicsr.metrics import METRIC_REGISTRY
from basicsr.models import MODEL_REGISTRY
from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr.options.option_file import Keys, OptionFile, format_value
from lkdn_basicsr.options.registries import registered
from lkdn_basicsr.options.schema import CLOSED_MODELS, PAIRED

# Bytes. A file system allows 255, and BasicSR adds to the name of a run, as in train_NAME_20240101_120000.log.
MAX_NAME = 200


def check_relations(option_file: OptionFile, is_train: bool) -> None:
    """Check what involves more than one option, after ``check_schema``; fix the official files' ``'{x4}'``, in place.

    Raises:
        InputError: On the first mistake.
    """
    _check_names(option_file)
    _check_phases(option_file, is_train)
    for phase, dataset in option_file.opt['datasets'].items():
        _check_dataset(option_file, phase, dataset)
    _check_network(option_file)
    if is_train:
        _check_schedule(option_file)
    _check_metrics(option_file)
    _check_wandb(option_file)


def _check_names(option_file: OptionFile) -> None:
    """Check that names can be in the names of folders and files, and that those of benchmarks differ."""
    opt = option_file.opt
    names: dict[Keys, str] = {('name',): opt['name']}
    names |= {('datasets', phase, 'name'): block['name'] for phase, block in opt['datasets'].items()}
    if (opt.get('val') or {}).get('suffix') is not None:
        names['val', 'suffix'] = opt['val']['suffix']
    seen: dict[str, str] = {}
    for keys, name in names.items():
        if re.search(r'[/\\\x00-\x1f\x7f-\x9f]', name) or name in ('.', '..'):
            reason = f'is {format_value(name)}, which cannot name a folder or file; use letters, digits, - and _'
            raise option_file.error(keys, reason)
        size = len(os.fsencode(name))
        if size > MAX_NAME:
            raise option_file.error(keys, f'has {size} bytes; shorten it to at most {MAX_NAME}')
        if keys[0] != 'datasets' or keys[1] == 'train':
            continue  # a training dataset has no results, whose folders need different names
        if name in seen:
            reason = f'is {name}, as is that of {seen[name]}; their results would be mixed, so rename one'
            raise option_file.error(keys, reason)
        seen[name] = keys[1]


def _check_phases(option_file: OptionFile, is_train: bool) -> None:
    phases = option_file.opt['datasets']
    if not phases:
        raise option_file.error(('datasets',), 'has no dataset; add one')
    for phase in phases:
        first = phase.split('_')[0]
        if is_train and phase != 'train' and first != 'val':
            advice = 'rename it to val_…' if first == 'test' else 'name datasets train, val, val_2, …'
            raise option_file.error(('datasets', phase), f'cannot be used in training; {advice}')
        if not is_train and first not in ('test', 'val'):
            advice = 'run it with lkdn_basicsr.train' if first == 'train' else 'name datasets test, test_1, test_2, …'
            raise option_file.error(('datasets', phase), f'cannot be used in a test; {advice}')
    if is_train and 'train' not in phases:
        raise option_file.error(('datasets',), 'has no training dataset; add datasets:train')


def _check_dataset(option_file: OptionFile, phase: str, dataset: dict[str, Any]) -> None:
    opt, keys, kind = option_file.opt, ('datasets', phase), dataset['type']
    model = registered(MODEL_REGISTRY)[opt['model_type']]
    is_float = dataset.get('float32') or dataset.get('color') == 'y' or dataset.get('mean')
    if kind == 'PairedCropDataset' and not is_float and model.__module__.startswith('basicsr.'):
        reason = f'is PairedCropDataset, which gives uint8 images, but {opt["model_type"]} needs floats; add'
        raise option_file.error((*keys, 'type'), f'{reason} `float32: true`, or use model_type: ReparamSRModel')
    scale: Any = opt.get('scale', dataset.get('scale'))
    if kind in PAIRED and scale is None:
        raise option_file.error((), 'has no scale, which paired data need; add `scale: 4` or the scale of your network')
    gt_size: int = dataset.get('gt_size', 0)
    if phase == 'train' and kind in PAIRED and gt_size % scale:
        reason = f'is {gt_size}, but must be a multiple of scale {scale}; use {max(gt_size // scale, 1) * scale}'
        raise option_file.error((*keys, 'gt_size'), reason)
    if dataset.get('filename_tmpl') is not None:
        _check_template(option_file, (*keys, 'filename_tmpl'), dataset)
    if kind == 'SingleImageDataset' and dataset.get('meta_info_file', '') is None:
        del dataset['meta_info_file']  # BasicSR opens it whenever the key exists
    if (dataset.get('mean') is None) != (dataset.get('std') is None):
        raise option_file.error(keys, 'has only one of mean and std; give both or none')
    channels = 1 if dataset.get('color') == 'y' else 3
    for key in ('mean', 'std'):
        values = dataset.get(key)
        if values is not None and len(values) != channels:
            reason = f'has {len(values)} values, but the images have {channels} channel(s); give one value for each'
            raise option_file.error((*keys, key), reason)
    if any(value == 0 for value in dataset.get('std') or ()):
        raise option_file.error((*keys, 'std'), 'contains a zero, and images are divided by it; correct it')
    if dataset.get('persistent_workers') and (phase != 'train' or dataset['num_worker_per_gpu'] == 0):
        reason = 'needs workers: only the training dataset has them, with num_worker_per_gpu of at least 1'
        raise option_file.error((*keys, 'persistent_workers'), reason)
    if dataset.get('prefetch_mode') == 'cuda' and phase == 'train' and not dataset.get('pin_memory'):
        raise option_file.error((*keys, 'prefetch_mode'), 'is cuda, which needs `pin_memory: true`; add it')
    backend = dataset['io_backend'].get('type')
    if backend == 'raw' and kind != 'PairedCropDataset':
        reason = f'is raw, which {kind} cannot read; use type: PairedCropDataset'
        raise option_file.error((*keys, 'io_backend', 'type'), reason)
    if backend == 'lmdb' and kind in (*PAIRED, 'SingleImageDataset'):
        for key in ('dataroot_gt', 'dataroot_lq'):
            if not dataset.get(key, '.lmdb').endswith('.lmdb'):
                reason = f'is {dataset[key]}, but an LMDB must end in .lmdb; use io_backend:type disk for a folder'
                raise option_file.error((*keys, key), reason)


def _check_template(option_file: OptionFile, keys: Keys, dataset: dict[str, Any]) -> None:
    template = dataset['filename_tmpl']
    misplaced = re.fullmatch(r'\{([A-Za-z_]\w*)\}', template)
    if misplaced:  # the official from-scratch file of LKDN-S has '{x4}'
        dataset['filename_tmpl'] = '{}' + misplaced[1]
        note = f'{template!r}, which is not a file name; {dataset["filename_tmpl"]!r} is used instead.'
        option_file.notes.append(f'{option_file.where(*keys)} is {note}')
        return
    # Any other field could look up attributes, or ask for a width that fills the memory.
    if template.count('{}') != 1 or re.search('[{}]', template.replace('{}', '')):
        reason = "but must contain {} once, for the name of the image, and no other braces, as '{}x4'"
        raise option_file.error(keys, f'is {format_value(template)}, {reason}')


def _check_network(option_file: OptionFile) -> None:
    opt = option_file.opt
    network = opt['network_g']
    for name in ('upscale', 'scale'):
        upscale = _argument(network, name)
        if upscale is not None and opt.get('scale') is not None and upscale != opt['scale']:
            keys = ('network_g', name) if name in network else ('network_g',)
            default = '' if name in network else f'{name} '
            raise option_file.error(keys, f'{default}is {upscale}, but scale is {opt["scale"]}; make them equal')
    channels = _argument(network, 'num_in_ch')
    for phase, dataset in opt['datasets'].items():
        wanted = 1 if dataset.get('color') == 'y' else 3
        if channels in (1, 3) and channels != wanted and dataset['type'] in (*PAIRED, 'SingleImageDataset'):
            reason = f'has num_in_ch {channels}, but datasets:{phase} gives images of {wanted} channel(s)'
            raise option_file.error(('network_g',), f'{reason}; set num_in_ch, or color in the dataset')


def _argument(network: dict[str, Any], name: str) -> Any:
    """Return the value of an argument of the network, or its default; None if there is neither."""
    if name in network:
        return network[name]
    parameter = inspect.signature(registered(ARCH_REGISTRY)[network['type']]).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _check_schedule(option_file: OptionFile) -> None:
    train = option_file.opt['train']
    total, warmup = train['total_iter'], train['warmup_iter']
    if warmup >= total:
        raise option_file.error(('train', 'warmup_iter'), f'is {warmup}, but total_iter is {total}; make it smaller')
    if option_file.opt['model_type'] in CLOSED_MODELS and not (train.get('pixel_opt') or train.get('perceptual_opt')):
        raise option_file.error(('train',), 'has no loss; add pixel_opt, for example with `type: L1Loss`')
    milestones = train['scheduler'].get('milestones') or []
    if sorted(set(milestones)) != list(milestones):
        raise option_file.error(('train', 'scheduler', 'milestones'), f'is {milestones}, but must be ascending')
    if milestones and warmup >= milestones[0]:
        reason = f'is {warmup}, but the first milestone is at {milestones[0]}; end the warm-up before it'
        raise option_file.error(('train', 'warmup_iter'), reason)
    periods = train['scheduler'].get('periods')
    if periods is not None and sum(periods) < total:
        reason = f'add up to {sum(periods)}, less than total_iter {total}; lengthen them'
        raise option_file.error(('train', 'scheduler', 'periods'), reason)


def _check_metrics(option_file: OptionFile) -> None:
    opt = option_file.opt
    unpaired = [phase for phase, dataset in opt['datasets'].items() if dataset['type'] == 'SingleImageDataset']
    for name, metric in ((opt.get('val') or {}).get('metrics') or {}).items():
        if unpaired and 'img2' in inspect.signature(registered(METRIC_REGISTRY)[metric['type']]).parameters:
            reason = f'compares with the ground truth, but datasets:{unpaired[0]} (SingleImageDataset) has none'
            raise option_file.error(('val', 'metrics', name), f'{reason}; remove the metric, or use paired data')


def _check_wandb(option_file: OptionFile) -> None:
    wandb = option_file.opt['logger'].get('wandb')
    if not wandb or wandb.get('project') is None:
        return
    keys = ('logger', 'wandb', 'project')
    if not option_file.opt['logger']['use_tb_logger']:
        raise option_file.error(keys, 'needs `use_tb_logger: true`; set it, or remove project')
    if importlib.util.find_spec('wandb') is None:
        raise option_file.error(keys, 'needs wandb; run `pip install wandb`, or remove project')
