"""Check every key, type, range, registered name and argument of an option file, and fill in the defaults."""

import inspect
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from basicsr.data import DATASET_REGISTRY
from basicsr.losses import LOSS_REGISTRY
from basicsr.metrics import METRIC_REGISTRY
from basicsr.models import MODEL_REGISTRY, lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY, Registry

from lkdn_basicsr.errors import hint, nearest, one_line
from lkdn_basicsr.optim.lookup import optimizers
from lkdn_basicsr.options.option_file import Keys, OptionFile, format_value
from lkdn_basicsr.options.registries import find_registered
from lkdn_basicsr.options.schema import ABSENT, CLOSED_MODELS, KINDS, OTHER_DATASETS, PAIRED, REQUIRED, SECTIONS, Option

SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}
# Sections of classes and functions: registry, kind, arguments that BasicSR passes itself, keys that it removes.
_CALLS: dict[str, tuple[Registry | Mapping[str, Any], str, tuple[str, ...], tuple[str, ...]]] = {
    'network_*': (ARCH_REGISTRY, 'network', (), ('type',)),
    'train.optim_*': (optimizers(), 'optimizer', ('params',), ('type',)),
    'train.scheduler': (SCHEDULERS, 'scheduler', ('optimizer', 'last_epoch'), ('type',)),
    'train.*_opt': (LOSS_REGISTRY, 'loss', (), ('type',)),
    'val.metrics.*': (METRIC_REGISTRY, 'metric', ('img', 'img2'), ('type', 'better')),
}
_BLOCK = Option('', 'options', '')


def check_schema(option_file: OptionFile, is_train: bool) -> None:
    """Check keys, types, ranges, registered names and arguments, and fill in defaults, in place.

    Classes of other plugins are checked less: arguments against the signature of their class, and the options of their
    datasets and models not at all.

    Raises:
        InputError: On the first mistake.
    """
    opt = option_file.opt
    model_class = find_registered(option_file, (), MODEL_REGISTRY, 'model', 'model_type')
    open_ended = opt['model_type'] not in CLOSED_MODELS
    _check_block(option_file, (), open_ended=open_ended)
    for phase in list(opt['datasets']):
        if opt['datasets'][phase] is None:  # --force_yml datasets:test_2=~
            del opt['datasets'][phase]
        else:
            _check_dataset(option_file, ('datasets', phase), is_train and phase == 'train')
    for key in opt.networks():
        _check_call(option_file, (key,), 'network_*')
    networks = [key.removeprefix('network_') for key in opt.networks()]
    path = [
        replace(option, key=option.key.replace('*', name))
        for option in SECTIONS['path']
        for name in (networks if '*' in option.key else [''])
    ]
    _check_block(option_file, ('path',), path)
    if is_train:
        if opt.get('train') is None:
            raise option_file.error((), 'has no train section; add it, or run the file with lkdn_basicsr.test')
        _check_block(option_file, ('train',), open_ended=open_ended)
        if not open_ended or _is_known(model_class):  # a model of another plugin may use the blocks in its own way
            check_train_blocks(option_file)
    if opt.get('val') is None and not is_train:
        opt['val'] = {}
    if opt.get('val') is not None:
        _check_block(option_file, ('val',), open_ended=open_ended)
        for name, options in (opt['val'].get('metrics') or {}).items():
            keys = ('val', 'metrics', name)
            _check_value(option_file, keys, _BLOCK, options)
            _check_call(option_file, keys, 'val.metrics.*')
    for parents, key in (((), 'logger'), (('logger',), 'wandb'), ((), 'dist_params')):
        if option_file.block(parents).get(key) is not None:
            _check_block(option_file, (*parents, key))


def _check_dataset(option_file: OptionFile, keys: Keys, for_training: bool) -> None:
    dataset = _check_value(option_file, keys, _BLOCK, option_file.block(keys))
    cls = find_registered(option_file, keys, DATASET_REGISTRY, 'dataset type')
    special = SECTIONS.get(f'datasets.* ({dataset["type"]})')
    if special is None and _is_known(cls) and dataset['type'] in OTHER_DATASETS:
        special = tuple(Option(key, 'any', '') for key in OTHER_DATASETS[dataset['type']].split())
    table = SECTIONS['datasets.*'] + (special or ())
    _check_block(option_file, keys, table, special is None)
    _check_block(option_file, (*keys, 'io_backend'), SECTIONS['datasets.*.io_backend'], special is None)
    if not for_training:
        return
    required = ['num_worker_per_gpu', 'batch_size_per_gpu']
    if dataset['type'] in PAIRED:
        required.append('gt_size')
        dataset.setdefault('use_hflip', True)
        dataset.setdefault('use_rot', True)
    for option in table:
        if option.key in required and option.key not in dataset:
            raise option_file.error(keys, f'has no {option.key}; add it: {option.text}')


def check_train_blocks(option_file: OptionFile) -> None:
    """Check the optimizers, the schedule and the losses in the block ``train``; InputError if one is refused."""
    for key, options in option_file.opt['train'].items():
        keys = ('train', key)
        if fnmatchcase(key, 'optim_*') and isinstance(options, dict):
            cls = _check_call(option_file, keys, 'train.optim_*')
            if 'lr' not in options:
                raise option_file.error(keys, 'has no lr; add the learning rate')
            _construct(option_file, keys, cls, [torch.zeros(1, 1, requires_grad=True)])
        elif key == 'scheduler':
            cls = _check_call(option_file, keys, 'train.scheduler')
            _construct(option_file, keys, cls, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
        elif fnmatchcase(key, '*_opt') and isinstance(options, dict):
            _check_call(option_file, keys, 'train.*_opt')


def _construct(option_file: OptionFile, keys: Keys, cls: type, first: Any) -> None:
    """Check that ``cls(first, **options)`` is accepted."""
    options = option_file.block(keys)
    try:
        cls(first, **{key: value for key, value in options.items() if key != 'type'})
    except Exception as error:
        raise option_file.error(keys, f'is refused by {options["type"]}: {one_line(error)}') from error


def _check_block(
    option_file: OptionFile, keys: Keys, table: Collection[Option] | None = None, open_ended: bool = False
) -> None:
    """Check one block of options against its part of the table, and fill in the defaults."""
    options = option_file.block(keys)
    table = SECTIONS['.'.join(keys)] if table is None else table
    for key, value in options.items():
        option = next((option for option in table if fnmatchcase(key, option.key)), None)
        if option is not None:
            empty_block = value is None and option.default == {}
            options[key] = {} if empty_block else _check_value(option_file, (*keys, key), option, value)
        elif not open_ended:
            raise option_file.error((*keys, key), f'is not known; {hint(key, [option.key for option in table])}')
    for option in table:
        if '*' in option.key or option.key in options:
            continue
        if option.default is REQUIRED:
            raise option_file.error(keys, f'has no {option.key}; add it: {option.text}')
        if option.default is not ABSENT:
            options[option.key] = deepcopy(option.default)


def _check_call(option_file: OptionFile, keys: Keys, section: str) -> Any:
    """Return the class or function that the block at ``keys`` names; check that the other keys are its arguments."""
    registry, kind, given, removed = _CALLS[section]
    target, options = find_registered(option_file, keys, registry, kind), option_file.block(keys)
    parameters = inspect.signature(target).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {p.name: p for p in parameters if p.kind in kinds and p.name not in given}
    # A class of another plugin may pass its **kwargs on. A key that is similar to an argument is a typo all the same.
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters) and not _is_known(target)
    known = {option.key: option for option in SECTIONS[section]}
    for key, value in options.items():
        if key not in removed and key not in named:
            near = nearest(key, list(named))
            if open_ended and (near is None or near in options):
                continue
            raise option_file.error((*keys, key), f'is not an argument of {options["type"]}; {hint(key, list(named))}')
        option = known.get(key)
        if key not in removed:
            default = named[key].default
            option = option or Option.like(key, default)
            # A list for an optimizer has as many values as its default: not three betas for Adam.
            if kind == 'optimizer' and isinstance(default, tuple) and isinstance(value, list):
                if len(default) != len(value):
                    reason = f'has {len(value)} values, but {options["type"]} takes {len(default)}'
                    raise option_file.error((*keys, key), reason)
        if option is not None:
            options[key] = _check_value(option_file, (*keys, key), option, value)
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in options:
            raise option_file.error(keys, f'has no {name}, which {options["type"]} needs; add it')
    return target


def _check_value(option_file: OptionFile, keys: Keys, option: Option, value: Any) -> Any:
    """Return ``value``, with ``5e3`` as an int where the option is one; raise InputError if it does not fit."""
    kinds = option.kind.split(' | ')
    kind = next((kind for kind in kinds if KINDS[kind].accepts(value)), None)
    start = f'is {format_value(value)}, but must be'
    if kind is None:
        raise option_file.error(keys, f'{start} {" or ".join(KINDS[kind].description for kind in kinds)}')
    if kind == 'int':
        value = int(value)
    elif kind == 'ints':
        value = [int(v) for v in value]
    if option.valid is None or kind in ('null', 'auto'):
        return value
    if isinstance(option.valid, tuple):
        if value not in option.valid:
            raise option_file.error(keys, f'{start} one of {", ".join(option.valid)}')
    elif not all(_in_interval(v, option.valid) for v in (value if isinstance(value, list | tuple) else [value])):
        raise option_file.error(keys, f'{start} in {option.valid}')
    return value


def _in_interval(number: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(','))
    above = low <= number if interval[0] == '[' else low < number
    below = number <= high if interval[-1] == ']' else number < high
    return above and below


def _is_known(target: Any) -> bool:
    """Return whether a class or function is of BasicSR, torch or this package: its signature then names all options."""
    return target.__module__.split('.')[0] in ('basicsr', 'lkdn_basicsr', 'torch')
