"""Check every key, type, range, registered name and argument of an option file, and fill in the defaults."""

import inspect
from collections.abc import Collection, Iterable
from copy import deepcopy
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from basicsr.data import DATASET_REGISTRY
from basicsr.losses import LOSS_REGISTRY
from basicsr.metrics import METRIC_REGISTRY
from basicsr.models import MODEL_REGISTRY, lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr.errors import hint, nearest, one_line
from lkdn_basicsr.optim.lookup import optimizers
from lkdn_basicsr.options.option_file import Keys, OptionFile, format_value
from lkdn_basicsr.options.registries import CONSTRUCTOR_ERRORS, find_registered
from lkdn_basicsr.options.schema import ABSENT, CLOSED_MODELS, KINDS, OTHER_DATASETS, PAIRED, REQUIRED, SECTIONS, Option

SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}


def check_schema(option_file: OptionFile, is_train: bool) -> None:
    """Check keys, types, ranges, registered names and arguments, and fill in defaults, in place.

    Classes of other plugins are checked less: arguments against the signature of their class, and the options of their
    datasets and models not at all.

    Args:
        is_train: Whether the options are for training.

    Raises:
        InputError: On the first mistake.
    """
    opt = option_file.opt
    model_class = find_registered(option_file, (), opt, MODEL_REGISTRY, 'model', 'model_type')
    open_ended = opt['model_type'] not in CLOSED_MODELS
    foreign = open_ended and not _is_known(model_class)

    _check_block(option_file, (), opt, SECTIONS[''], open_ended)
    _check_datasets(option_file, opt['datasets'], is_train)
    networks = [key for key in opt if key.startswith('network_') and isinstance(opt[key], dict)]
    for key in networks:
        network_class = find_registered(option_file, (key,), opt[key], ARCH_REGISTRY, 'network')
        _check_arguments(option_file, (key,), opt[key], network_class)
    _check_block(option_file, ('path',), opt['path'], _path_options(networks))
    if is_train and opt.get('train') is None:
        raise option_file.error((), 'has no train section, so it is not for training; run it with lkdn_basicsr.test')
    if is_train:
        _check_block(option_file, ('train',), opt['train'], SECTIONS['train'], open_ended)
        if not foreign:  # a model of another plugin may use these blocks in its own way
            _check_train(option_file, opt['train'])
    if opt.get('val') is None and not is_train:
        opt['val'] = {}
    if opt.get('val') is not None:
        _check_block(option_file, ('val',), opt['val'], SECTIONS['val'], open_ended)
        _check_metrics(option_file, opt['val'].get('metrics') or {})
    _check_block(option_file, ('logger',), opt['logger'], SECTIONS['logger'])
    if opt['logger'].get('wandb') is not None:
        _check_block(option_file, ('logger', 'wandb'), opt['logger']['wandb'], SECTIONS['logger.wandb'])
    if opt.get('dist_params') is not None:
        _check_block(option_file, ('dist_params',), opt['dist_params'], SECTIONS['dist_params'])


def _check_datasets(option_file: OptionFile, datasets: dict[str, Any], is_train: bool) -> None:
    for phase, dataset in list(datasets.items()):
        if dataset is None:  # --force_yml datasets:test_2=~
            del datasets[phase]
        elif not isinstance(dataset, dict):
            reason = f'is {format_value(dataset)}, but must be a block of options'
            raise option_file.error(('datasets', phase), reason)
        else:
            _check_dataset(option_file, ('datasets', phase), dataset, is_train and phase == 'train')


def _check_dataset(option_file: OptionFile, keys: Keys, dataset: dict[str, Any], for_training: bool) -> None:
    cls = find_registered(option_file, keys, dataset, DATASET_REGISTRY, 'dataset type')
    special = SECTIONS.get(f'datasets.* ({dataset["type"]})')
    if special is None and _is_known(cls) and dataset['type'] in OTHER_DATASETS:
        special = tuple(Option(key, 'any', '') for key in OTHER_DATASETS[dataset['type']].split())
    table = SECTIONS['datasets.*'] + (special or ())
    _check_block(option_file, keys, dataset, table, special is None)
    backend = (*keys, 'io_backend')
    _check_block(option_file, backend, dataset['io_backend'], SECTIONS['datasets.*.io_backend'], special is None)
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


def _path_options(networks: list[str]) -> list[Option]:
    """Return the options of ``path``, with those of ``*`` once for each network."""
    options = []
    for option in SECTIONS['path']:
        if '*' in option.key:
            names = [network.removeprefix('network_') for network in networks]
            options += [replace(option, key=option.key.replace('*', name)) for name in names]
        else:
            options.append(option)
    return options


def _check_train(option_file: OptionFile, train: dict[str, Any]) -> None:
    for key, options in train.items():
        keys = ('train', key)
        if fnmatchcase(key, 'optim_*') and isinstance(options, dict):
            cls = find_registered(option_file, keys, options, optimizers(), 'optimizer')
            _check_arguments(option_file, keys, options, cls, SECTIONS['train.optim_*'], ('params',))
            if 'lr' not in options:
                raise option_file.error(keys, 'has no lr; add the learning rate')
            _construct(option_file, keys, options, cls, [torch.zeros(1, 1, requires_grad=True)])
        elif key == 'scheduler':
            cls = find_registered(option_file, keys, options, SCHEDULERS, 'scheduler')
            given = ('optimizer', 'last_epoch')
            _check_arguments(option_file, keys, options, cls, SECTIONS['train.scheduler'], given)
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
            _construct(option_file, keys, options, cls, optimizer)
        elif fnmatchcase(key, '*_opt') and isinstance(options, dict):
            cls = find_registered(option_file, keys, options, LOSS_REGISTRY, 'loss')
            _check_arguments(option_file, keys, options, cls, SECTIONS['train.*_opt'])


def _construct(option_file: OptionFile, keys: Keys, options: dict[str, Any], cls: type, first: Any) -> None:
    """Check that ``cls(first, **options)`` is accepted."""
    try:
        cls(first, **{key: value for key, value in options.items() if key != 'type'})
    except CONSTRUCTOR_ERRORS as error:
        raise option_file.error(keys, f'is refused by {options["type"]}: {one_line(error)}') from error


def _check_metrics(option_file: OptionFile, metrics: dict[str, Any]) -> None:
    for name, options in metrics.items():
        keys = ('val', 'metrics', name)
        if not isinstance(options, dict):
            raise option_file.error(keys, f'is {format_value(options)}, but must be a block of options with a type')
        metric = find_registered(option_file, keys, options, METRIC_REGISTRY, 'metric')
        table, given, removed = SECTIONS['val.metrics.*'], ('img', 'img2'), ('type', 'better')
        _check_arguments(option_file, keys, options, metric, table, given, removed)


def _check_block(
    option_file: OptionFile, keys: Keys, options: dict[str, Any], table: Collection[Option], open_ended: bool = False
) -> None:
    """Check one block of options against its part of the table, and fill in the defaults."""
    for key, value in options.items():
        option = next((option for option in table if fnmatchcase(key, option.key)), None)
        if option is not None:
            empty_block = value is None and option.default == {}
            options[key] = {} if empty_block else _check_value(option_file, (*keys, key), option, value)
        elif not open_ended:
            known = [option.key for option in table]
            raise option_file.error((*keys, key), f'is not known; {hint(key, known)}')
    for option in table:
        if '*' in option.key or option.key in options:
            continue
        if option.default is REQUIRED:
            raise option_file.error(keys, f'has no {option.key}; add it: {option.text}')
        if option.default is not ABSENT:
            options[option.key] = deepcopy(option.default)


def _check_arguments(
    option_file: OptionFile,
    keys: Keys,
    options: dict[str, Any],
    target: Any,
    table: Iterable[Option] = (),
    given: Collection[str] = (),
    removed: Collection[str] = ('type',),
) -> None:
    """Check that the keys of ``options`` are arguments of ``target``, and that no required argument is missing.

    Args:
        given: Arguments that BasicSR passes itself.
        removed: Keys that BasicSR removes before the call.
    """
    parameters = inspect.signature(target).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {p.name: p for p in parameters if p.kind in kinds and p.name not in given}
    # A class of another plugin may pass its **kwargs on. A key that is similar to an argument is a typo all the same.
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters) and not _is_known(target)
    known = {option.key: option for option in table}
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
            _check_length(option_file, (*keys, key), options['type'], value, default)
        if option is not None:
            options[key] = _check_value(option_file, (*keys, key), option, value)
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in options:
            raise option_file.error(keys, f'has no {name}, which {options["type"]} needs; add it')


def _check_length(option_file: OptionFile, keys: Keys, name: str, value: Any, default: Any) -> None:
    """Check that a list for an optimizer has as many values as its default, as three ``betas`` for Adan."""
    if isinstance(default, tuple) and isinstance(value, list) and name in optimizers() and len(default) != len(value):
        raise option_file.error(keys, f'has {len(value)} values, but {name} takes {len(default)}')


def _check_value(option_file: OptionFile, keys: Keys, option: Option, value: Any) -> Any:
    """Return ``value``, with ``5e3`` as an int where the option is one; raise InputError if it does not fit."""
    kinds = option.kind.split(' | ')
    kind = next((kind for kind in kinds if KINDS[kind].accepts(value)), None)
    if kind is None:
        wanted = ' or '.join(KINDS[kind].description for kind in kinds)
        raise option_file.error(keys, f'is {format_value(value)}, but must be {wanted}')
    if kind == 'int':
        value = int(value)
    elif kind == 'ints':
        value = [int(v) for v in value]
    if option.valid is None or kind in ('null', 'auto'):
        return value
    if isinstance(option.valid, tuple):
        if value not in option.valid:
            raise option_file.error(keys, f'is {format_value(value)}, but must be one of {", ".join(option.valid)}')
    elif not all(
        _in_interval(number, option.valid) for number in (value if isinstance(value, list | tuple) else [value])
    ):
        raise option_file.error(keys, f'is {format_value(value)}, but must be in {option.valid}')
    return value


def _in_interval(number: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(','))
    above = low <= number if interval[0] == '[' else low < number
    below = number <= high if interval[-1] == ']' else number < high
    return above and below


def _is_known(target: Any) -> bool:
    """Return whether a class or function is of BasicSR, torch or this package: its signature then names all options."""
    return target.__module__.split('.')[0] in ('basicsr', 'lkdn_basicsr', 'torch')
