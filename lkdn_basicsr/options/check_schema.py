"""Every key, type, range, registered name and argument of an option file; defaults are filled in."""

import inspect
from copy import deepcopy
from fnmatch import fnmatchcase

import torch
from basicsr.data import DATASET_REGISTRY
from basicsr.losses import LOSS_REGISTRY
from basicsr.metrics import METRIC_REGISTRY
from basicsr.models import MODEL_REGISTRY, lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr.errors import hint, nearest, one_line
from lkdn_basicsr.optim.lookup import optimizers
from lkdn_basicsr.options.option_file import is_finite
from lkdn_basicsr.options.registries import CONSTRUCTOR_ERRORS, registered
from lkdn_basicsr.options.schema import ABSENT, CLOSED_MODELS, KINDS, OTHER_DATASETS, REQUIRED, SECTIONS, Option

SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}


def _short(value):
    text = repr(dict(value) if isinstance(value, dict) else value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def is_ours(target):
    """Whether a class or function is BasicSR's, torch's or ours, so that its signature tells all that it takes."""
    return target.__module__.split('.')[0] in ('basicsr', 'lkdn_basicsr', 'torch')


def _check_value(source, keys, row, value):
    """``value``, with whole floats made int where ``row`` wants int; InputError when it is not what ``row`` wants."""
    kinds = row.kind.split(' | ')
    fitting = [kind for kind in kinds if KINDS[kind][0](value)]
    if not fitting:
        wanted = ' or '.join(KINDS[kind][1] for kind in kinds)
        raise source.error(keys, f'is {_short(value)}, but must be {wanted}')
    if fitting[0] == 'int':
        value = int(value)
    elif fitting[0] == 'ints':
        value = [int(v) for v in value]
    if isinstance(row.valid, tuple):
        if value is not None and value not in row.valid:
            raise source.error(keys, f'is {_short(value)}, but must be one of {", ".join(row.valid)}')
    elif row.valid is not None and value is not None and value != 'auto':
        for number in value if isinstance(value, list | tuple) else [value]:
            if not _in_interval(number, row.valid):
                raise source.error(keys, f'is {_short(value)}, but must lie in {row.valid}')
    return value


def _in_interval(number, interval):
    low, high = (float(end) for end in interval[1:-1].split(','))
    return (low <= number if interval[0] == '[' else low < number) and (
        number <= high if interval[-1] == ']' else number < high
    )


def _check_rows(source, keys, options, rows, open_ended=False):
    """Checks one block of options against its rows, and fills in the defaults."""
    for key, value in options.items():
        row = next((row for row in rows if fnmatchcase(key, row.key)), None)
        if row is not None:
            empty_block = value is None and row.default == {}
            options[key] = {} if empty_block else _check_value(source, (*keys, key), row, value)
        elif not open_ended:
            raise source.error((*keys, key), f'is not known; {hint(key, [row.key for row in rows])}')
    for row in rows:
        if '*' in row.key or row.key in options:
            continue
        if row.default is REQUIRED:
            raise source.error(keys, f'has no {row.key}; add it: {row.text}')
        if row.default is not ABSENT:
            options[row.key] = deepcopy(row.default)


def _named(source, keys, options, known, what):
    """The registered class or function that ``options['type']`` names; InputError with the nearest name otherwise."""
    if 'type' not in options:
        raise source.error(keys, f'has no type; add the name of a {what}')
    name = options['type']
    known = registered(known)
    if not isinstance(name, str) or name not in known:
        raise source.error((*keys, 'type'), f'is {_short(name)}, which is no known {what}; {hint(name, list(known))}')
    return known[name]


def _check_arguments(source, keys, options, target, rows, given, plumbing=('type',)):
    """Checks that the keys of ``options`` are arguments of ``target``, and that none that it needs is missing.

    ``given`` are the arguments that BasicSR itself passes, ``plumbing`` the keys that it takes away.
    """
    parameters = inspect.signature(target).parameters.values()
    named = {
        p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in given
    }
    # A class of someone else may hand its **kwargs on; what is close to one of its names is a typing error.
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters) and not is_ours(target)
    what = options['type']
    rows = {row.key: row for row in rows}
    for key, value in options.items():
        if key in plumbing:
            if key in rows:
                options[key] = _check_value(source, (*keys, key), rows[key], value)
            continue
        if key not in named:
            near = nearest(key, list(named))
            if open_ended and (near is None or near in options):
                continue
            raise source.error((*keys, key), f'is not an argument of {what}; {hint(key, list(named))}')
        default = named[key].default
        row = rows.get(key) or _row_like(key, default)
        if (
            isinstance(default, tuple)
            and isinstance(value, list)
            and what in optimizers()
            and len(default) != len(value)
        ):
            raise source.error((*keys, key), f'has {len(value)} values, but {what} takes {len(default)}')
        options[key] = _check_value(source, (*keys, key), row, value)
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in options:
            raise source.error(keys, f'has no {name}, which {what} needs; add it')


def _row_like(key, default):
    """A row for an argument that the table does not have, from the type of its default."""
    kind = 'any'
    if isinstance(default, bool):
        kind = 'bool'
    elif is_finite(default):
        kind = 'number | null'
    elif isinstance(default, str):
        kind = 'text | null'
    return Option(key, kind, ABSENT, None, '')


def _check_dataset(source, phase, dataset, is_train):
    keys = ('datasets', phase)
    cls = _named(source, keys, dataset, DATASET_REGISTRY, 'data set type')
    special = SECTIONS.get(f'datasets.* ({dataset["type"]})')
    rows = SECTIONS['datasets.*']
    if special is not None:
        rows += special
    elif is_ours(cls) and dataset['type'] in OTHER_DATASETS:
        rows += tuple(Option(key, 'any', ABSENT, None, '') for key in OTHER_DATASETS[dataset['type']].split())
        special = ()
    _check_rows(source, keys, dataset, rows, open_ended=special is None)
    _check_rows(
        source,
        (*keys, 'io_backend'),
        dataset['io_backend'],
        SECTIONS['datasets.*.io_backend'],
        open_ended=special is None,
    )
    if is_train and phase == 'train':
        needed = ['num_worker_per_gpu', 'batch_size_per_gpu']
        if dataset['type'] in ('PairedImageDataset', 'PairedCropDataset'):
            needed.append('gt_size')
            dataset.setdefault('use_hflip', True)
            dataset.setdefault('use_rot', True)
        for key in needed:
            if key not in dataset:
                text = next(row.text for row in rows if row.key == key)
                raise source.error(keys, f'has no {key}; add it: {text}')


def _check_train(source, train, open_ended, foreign):
    _check_rows(source, ('train',), train, SECTIONS['train'], open_ended)
    if foreign:
        return  # a model of someone else may read these blocks as it likes
    for key, options in train.items():
        keys = ('train', key)
        if fnmatchcase(key, 'optim_*') and isinstance(options, dict):
            _check_optimizer(source, keys, options)
        elif key == 'scheduler':
            cls = _named(source, keys, options, SCHEDULERS, 'scheduler')
            _check_arguments(source, keys, options, cls, SECTIONS['train.scheduler'], ('optimizer', 'last_epoch'))
            try:
                dummy = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
                cls(dummy, **{k: v for k, v in options.items() if k != 'type'})
            except CONSTRUCTOR_ERRORS as err:
                raise source.error(keys, f'is refused by {options["type"]}: {one_line(err)}') from err
        elif fnmatchcase(key, '*_opt') and isinstance(options, dict):
            cls = _named(source, keys, options, LOSS_REGISTRY, 'loss')
            _check_arguments(source, keys, options, cls, SECTIONS['train.*_opt'], ())


def _check_optimizer(source, keys, options):
    cls = _named(source, keys, options, optimizers(), 'optimizer')
    _check_arguments(source, keys, options, cls, SECTIONS['train.optim_*'], ('params',))
    if 'lr' not in options:
        raise source.error(keys, 'has no lr; add the learning rate')
    try:
        cls([torch.zeros(1, 1, requires_grad=True)], **{key: value for key, value in options.items() if key != 'type'})
    except CONSTRUCTOR_ERRORS as err:
        raise source.error(keys, f'is refused by {options["type"]}: {one_line(err)}') from err


def _check_metrics(source, val):
    for name, options in (val.get('metrics') or {}).items():
        keys = ('val', 'metrics', name)
        if not isinstance(options, dict):
            raise source.error(keys, f'is {_short(options)}, but must be a block of options with a type')
        metric = _named(source, keys, options, METRIC_REGISTRY, 'metric')
        _check_arguments(source, keys, options, metric, SECTIONS['val.metrics.*'], ('img', 'img2'), ('type', 'better'))


def check_schema(source, is_train):
    """Checks keys, types, ranges, registered names and arguments, and fills in defaults, in place.

    What other people registered stays open: an argument is checked against the signature of its class, the keys of an
    unknown data set or model are left to it.

    Args:
        source (OptionFile): The option file.
        is_train (bool): Whether the options are to train by.

    Raises:
        InputError: On the first thing that is wrong.
    """
    opt = source.opt
    model = opt.get('model_type')
    models = registered(MODEL_REGISTRY)
    if isinstance(model, str) and model not in models:
        raise source.error(('model_type',), f'is {_short(model)}, which is no known model; {hint(model, list(models))}')
    open_ended = model is not None and model not in CLOSED_MODELS
    foreign = open_ended and isinstance(model, str) and not is_ours(models[model])

    _check_rows(source, (), opt, SECTIONS[''], open_ended)
    for phase, dataset in list(opt['datasets'].items()):
        if dataset is None:  # --force_yml datasets:test_2=~
            del opt['datasets'][phase]
        elif not isinstance(dataset, dict):
            raise source.error(('datasets', phase), f'is {_short(dataset)}, but must be a block of options')
        else:
            _check_dataset(source, phase, dataset, is_train)

    networks = [key for key in opt if key.startswith('network_') and isinstance(opt[key], dict)]
    for key in networks:
        cls = _named(source, (key,), opt[key], ARCH_REGISTRY, 'network')
        _check_arguments(source, (key,), opt[key], cls, (), ())
    path_rows = tuple(
        row._replace(key=row.key.replace('*', network.removeprefix('network_')))
        for row in SECTIONS['path']
        for network in (networks if '*' in row.key else networks[:1])
    )
    _check_rows(source, ('path',), opt['path'], path_rows)

    if opt.get('train') is not None:
        if is_train:
            _check_train(source, opt['train'], open_ended, foreign)
    elif is_train:
        raise source.error((), 'has no train section, so it is not for training; run it with lkdn_basicsr.test')
    if opt.get('val') is None and not is_train:
        opt['val'] = {}
    if opt.get('val') is not None:
        _check_rows(source, ('val',), opt['val'], SECTIONS['val'], open_ended)
        _check_metrics(source, opt['val'])
    _check_rows(source, ('logger',), opt['logger'], SECTIONS['logger'])
    if opt['logger'].get('wandb') is not None:
        _check_rows(source, ('logger', 'wandb'), opt['logger']['wandb'], SECTIONS['logger.wandb'])
    if opt.get('dist_params') is not None:
        _check_rows(source, ('dist_params',), opt['dist_params'], SECTIONS['dist_params'])
