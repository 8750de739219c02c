"""What must hold between options: phases, scale, patch, schedule, metrics."""

import importlib.util
import inspect
import re

from basicsr.metrics import METRIC_REGISTRY
from basicsr.models import MODEL_REGISTRY
from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr.options.registries import registered
from lkdn_basicsr.options.schema import CLOSED_MODELS

PAIRED = ('PairedImageDataset', 'PairedCropDataset')


def check_relations(source, is_train):
    """Checks the facts that cross options; mends the one template that the official files have wrong.

    Args:
        source (OptionFile): Options that :func:`check_schema` has passed.
        is_train (bool): Whether they are to train by.

    Raises:
        InputError: On the first thing that does not hold.
    """
    _check_names(source)
    _check_phases(source, is_train)
    for phase, dataset in source.opt['datasets'].items():
        _check_dataset(source, phase, dataset)
    _check_network(source)
    if is_train:
        _check_schedule(source)
    _check_metrics(source)
    wandb = source.opt['logger'].get('wandb')
    if wandb and wandb.get('project') is not None:
        if not source.opt['logger']['use_tb_logger']:
            raise source.error(
                ('logger', 'wandb', 'project'), 'needs `use_tb_logger: true`; set it, or leave project out'
            )
        if importlib.util.find_spec('wandb') is None:
            raise source.error(
                ('logger', 'wandb', 'project'), 'needs wandb; run `pip install wandb`, or leave project out'
            )


def _check_names(source):
    """Names become folders."""
    opt = source.opt
    seen = {}
    for keys, name in [(('name',), opt['name'])] + [
        (('datasets', p, 'name'), d['name']) for p, d in opt['datasets'].items()
    ]:
        if re.search(r'[/\\\x00-\x1f]', name) or name in ('.', '..'):
            raise source.error(keys, f'is {name!r}, which cannot name a folder; use letters, digits, - and _')
    for phase, dataset in opt['datasets'].items():
        if phase == 'train':
            continue  # only results are told apart by this name
        if dataset['name'] in seen:
            raise source.error(
                ('datasets', phase, 'name'),
                f'is {dataset["name"]}, as is that of {seen[dataset["name"]]}; their results would mix, so rename one',
            )
        seen[dataset['name']] = phase


def _check_phases(source, is_train):
    phases = source.opt['datasets']
    if not phases:
        raise source.error(('datasets',), 'has no data set; add one')
    for phase in phases:
        first = phase.split('_')[0]
        if is_train and phase != 'train' and first != 'val':
            advice = (
                'a test set belongs in a test file, so rename it to val_…'
                if first == 'test'
                else ('in a training file data sets are called train, val, val_2, …')
            )
            raise source.error(('datasets', phase), f'cannot be used in training; {advice}')
        if not is_train and first not in ('test', 'val'):
            advice = (
                'this file is for training: run it with lkdn_basicsr.train'
                if first == 'train'
                else 'in a test file data sets are called test, test_1, test_2, …'
            )
            raise source.error(('datasets', phase), f'cannot be used in a test; {advice}')
    if is_train and 'train' not in phases:
        raise source.error(('datasets',), 'has no train set; add datasets:train')


def _check_dataset(source, phase, dataset):
    keys = ('datasets', phase)
    model = registered(MODEL_REGISTRY)[source.opt['model_type']]
    floats = dataset.get('float32') or dataset.get('color') == 'y' or dataset.get('mean')
    if dataset['type'] == 'PairedCropDataset' and not floats and model.__module__.startswith('basicsr.'):
        raise source.error(
            (*keys, 'type'),
            f'is PairedCropDataset, which gives bytes, and {source.opt["model_type"]} '
            'wants floats; add `float32: true` to the data set, or use model_type: ReparamSRModel',
        )
    scale = source.opt.get('scale', dataset.get('scale'))
    if dataset['type'] in PAIRED and scale is None:
        raise source.error((), 'has no scale, which paired data need; add `scale: 4` or the scale of your network')
    gt_size = dataset.get('gt_size')
    if phase == 'train' and dataset['type'] in PAIRED and gt_size % scale:
        raise source.error(
            (*keys, 'gt_size'),
            f'is {gt_size}, which is not a multiple of scale {scale}; use {max(gt_size // scale, 1) * scale}',
        )
    if dataset.get('filename_tmpl') is not None:
        _check_template(source, (*keys, 'filename_tmpl'), dataset)
    if dataset['type'] == 'SingleImageDataset' and dataset.get('meta_info_file', '') is None:
        del dataset['meta_info_file']  # BasicSR opens it whenever the key is there
    if (dataset.get('mean') is None) != (dataset.get('std') is None):
        raise source.error(keys, 'has only one of mean and std; give both or none')
    if any(value == 0 for value in dataset.get('std') or ()):
        raise source.error((*keys, 'std'), 'has a zero, by which nothing can be divided')
    if dataset.get('persistent_workers') and (phase != 'train' or dataset['num_worker_per_gpu'] == 0):
        raise source.error(
            (*keys, 'persistent_workers'),
            'needs workers: only the train set has them, with num_worker_per_gpu of at least 1',
        )
    if dataset.get('prefetch_mode') == 'cuda' and phase == 'train' and not dataset.get('pin_memory'):
        raise source.error((*keys, 'prefetch_mode'), 'is cuda, which needs `pin_memory: true`; add it')
    backend = dataset['io_backend'].get('type')
    if backend == 'raw' and dataset['type'] != 'PairedCropDataset':
        raise source.error(
            (*keys, 'io_backend', 'type'), f'is raw, which {dataset["type"]} cannot read; use type: PairedCropDataset'
        )
    if backend == 'lmdb' and dataset['type'] in (*PAIRED, 'SingleImageDataset'):
        for key in ('dataroot_gt', 'dataroot_lq'):
            if key in dataset and not dataset[key].endswith('.lmdb'):
                raise source.error(
                    (*keys, key),
                    f'is {dataset[key]}, but with `io_backend: type: lmdb` it must end in '
                    '.lmdb; use type: disk for a folder',
                )


def _check_template(source, keys, dataset):
    template = dataset['filename_tmpl']
    slip = re.fullmatch(r'\{([A-Za-z_]\w*)\}', template)
    if slip:  # the official from-scratch file of LKDN-S has '{x4}'
        dataset['filename_tmpl'] = '{}' + slip[1]
        source.notes.append(
            f'{source.where(*keys)} is {template!r}, which cannot name a file; taken as {dataset["filename_tmpl"]!r}.'
        )
        return
    try:
        fits = template.format('a') != template.format('b')
    except (IndexError, KeyError, ValueError, AttributeError):
        fits = False
    if not fits:
        raise source.error(
            keys, f"is {template!r}, but must have {{}} where the name of the picture goes, as in '{{}}x4'"
        )


def _argument(network, name):
    """The value that the network gets for an argument: given, or its default; None when it has no such argument."""
    if name in network:
        return network[name]
    parameter = inspect.signature(registered(ARCH_REGISTRY)[network['type']]).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _check_network(source):
    opt = source.opt
    network = opt['network_g']
    for name in ('upscale', 'scale'):
        upscale = _argument(network, name)
        if upscale is not None and opt.get('scale') is not None and upscale != opt['scale']:
            keys = ('network_g', name) if name in network else ('network_g',)
            default = '' if name in network else f'{name} '
            raise source.error(keys, f'{default}is {upscale}, but scale is {opt["scale"]}; make them equal')
    channels = _argument(network, 'num_in_ch')
    for phase, dataset in opt['datasets'].items():
        wanted = 1 if dataset.get('color') == 'y' else 3
        if channels in (1, 3) and channels != wanted and dataset['type'] in (*PAIRED, 'SingleImageDataset'):
            raise source.error(
                ('network_g',),
                f'has num_in_ch {channels}, but datasets:{phase} gives pictures of {wanted} '
                'channel(s); set num_in_ch, or color in the data set',
            )


def _check_schedule(source):
    train = source.opt['train']
    total, warmup = train['total_iter'], train['warmup_iter']
    scheduler = train['scheduler']
    if warmup >= total:
        raise source.error(
            ('train', 'warmup_iter'), f'is {warmup}, but only {total} iterations are trained; make it smaller'
        )
    if source.opt['model_type'] in CLOSED_MODELS and not (train.get('pixel_opt') or train.get('perceptual_opt')):
        raise source.error(('train',), 'has no loss; add pixel_opt, for example with `type: L1Loss`')
    milestones = scheduler.get('milestones') or []
    if sorted(set(milestones)) != list(milestones):
        raise source.error(
            ('train', 'scheduler', 'milestones'), f'is {milestones}, which does not rise; put it in order'
        )
    if milestones and warmup >= milestones[0]:
        raise source.error(
            ('train', 'warmup_iter'),
            f'is {warmup}, but the first milestone comes at {milestones[0]}; end the warm-up before it',
        )
    periods = scheduler.get('periods')
    if periods is not None and sum(periods) < total:
        raise source.error(
            ('train', 'scheduler', 'periods'), f'add up to {sum(periods)}, less than total_iter {total}; lengthen them'
        )


def _check_metrics(source):
    val = source.opt.get('val')
    single = [phase for phase, dataset in source.opt['datasets'].items() if dataset['type'] == 'SingleImageDataset']
    for name, metric in ((val or {}).get('metrics') or {}).items():
        if 'img2' in inspect.signature(registered(METRIC_REGISTRY)[metric['type']]).parameters and single:
            raise source.error(
                ('val', 'metrics', name),
                f'compares with the ground truth, which datasets:{single[0]} '
                '(SingleImageDataset) has not; remove the metric, or use paired data',
            )
