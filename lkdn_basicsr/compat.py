"""What BasicSR 1.4.2 needs on today's stack: one function per defect, each naming it.

``prepare_import`` runs before BasicSR is imported, ``apply`` after; nothing else in the package changes anything of
BasicSR's. A pipeline started by someone else's launcher gets the same BasicSR, once ``lkdn_basicsr`` is imported.
"""
import functools
import importlib.machinery
import importlib.util
import os
import random
import sys
import types
import warnings
from collections import OrderedDict

from lkdn_basicsr.errors import InputError


def prepare_import():
    """Make ``import basicsr`` possible."""
    explain_missing_libgl()
    provide_functional_tensor()
    provide_scipy_filters()


def explain_missing_libgl():
    """opencv-python, which BasicSR asks for, links to libGL, which servers and containers often lack."""
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        if '.so' not in str(error):
            raise
        raise InputError(f'OpenCV does not load ({error}): install the library (Debian: apt install libgl1 '
                         'libglib2.0-0), or, in place of opencv-python, pip install opencv-python-headless') from None


def provide_functional_tensor():
    """BasicSR imports ``torchvision.transforms.functional_tensor``, gone since torchvision 0.17.

    Upstream: https://github.com/XPixelGroup/BasicSR/pull/650, on master and in no release.
    """
    name = 'torchvision.transforms.functional_tensor'
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        from torchvision.transforms.functional import rgb_to_grayscale
        _provide(name, rgb_to_grayscale=rgb_to_grayscale)


def provide_scipy_filters():
    """BasicSR imports ``scipy.ndimage.filters`` (metrics/niqe.py), which warns now and will be gone in SciPy 2."""
    import scipy.ndimage
    _provide('scipy.ndimage.filters', convolve=scipy.ndimage.convolve)


def _provide(name, **contents):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
    module.__dict__.update(contents)
    sys.modules[name] = module


def apply():
    """Replace the functions of BasicSR that are wrong for us. Idempotent."""
    import basicsr.data
    import basicsr.test
    import basicsr.train
    from basicsr.data.prefetch_dataloader import PrefetchGenerator
    from basicsr.models.base_model import BaseModel
    from basicsr.models.sr_model import SRModel
    from basicsr.utils import options as basicsr_options
    from basicsr.utils.registry import DATASET_REGISTRY

    from lkdn_basicsr import progress
    from lkdn_basicsr.data import prefetch
    from lkdn_basicsr.models import validation
    from lkdn_basicsr.options import parse_options

    # Options are read unsafely and looked at only when the old experiment has been moved away (defects: exec and eval
    # of --force_yml, silent unknown keys, `num_gpu: 1` on a CPU).
    for module in (basicsr.train, basicsr.test, basicsr_options):
        module.parse_options = parse_options
    basicsr.train.load_resume_state = load_resume_state
    basicsr.train.create_train_val_dataloader = create_train_val_dataloader
    BaseModel.get_optimizer = get_optimizer
    BaseModel.model_to_device = model_to_device
    BaseModel.load_network = load_network
    BaseModel.reduce_loss_dict = reduce_loss_dict
    if not hasattr(SRModel.optimize_parameters, '__wrapped__'):
        SRModel.optimize_parameters = refuse_what_is_not_finite(SRModel.optimize_parameters)

    # Validation on the first rank alone runs into the timeout of the others.
    SRModel.nondist_validation = validation.validate
    SRModel.dist_validation = validation.validate_distributed

    # A wrong ETA, TensorBoard off for `no_debug_run`; workers started twice; a reader that waits for a dead thread.
    basicsr.train.MessageLogger = progress.ProgressLogger
    basicsr.train.init_tb_loggers = progress.init_tb_loggers
    basicsr.train.CPUPrefetcher = prefetch.Prefetcher
    basicsr.train.CUDAPrefetcher = prefetch.DevicePrefetcher
    PrefetchGenerator.run = prefetch.run_generator
    PrefetchGenerator.__next__ = prefetch.next_of_generator
    basicsr.data.worker_init_fn = seed_worker
    for module in (basicsr.train, basicsr.test):
        module.build_model = build_model
    for _, dataset in DATASET_REGISTRY:
        if dataset.__module__.startswith('basicsr.'):
            dataset.__reduce_ex__ = reduce_dataset


def reduce_dataset(dataset, protocol):
    """Unpickle BasicSR's data sets in a worker process only after this package is imported.

    A spawned worker knows nothing of what the main process imported; to unpickle ``basicsr.data...`` it imports
    BasicSR, which fails without :func:`prepare_import`. A function of ours, first in the pickle, brings it in.
    """
    return restore_dataset, (type(dataset), dataset.__dict__)


def restore_dataset(cls, state):
    dataset = cls.__new__(cls)
    dataset.__dict__.update(state)
    return dataset


def get_optimizer(model, optim_type, params, lr, **kwargs):
    """BasicSR 1.4.2 knows Adam only; here Adan and every optimizer of ``torch.optim``, by class name."""
    import torch

    from lkdn_basicsr.optim import Adan
    cls = Adan if optim_type == 'Adan' else getattr(torch.optim, optim_type)
    return cls(params, lr, **kwargs)


def model_to_device(model, net):
    """BasicSR gives DistributedDataParallel a CUDA device, also where there is none."""
    import torch
    from torch.nn.parallel import DataParallel, DistributedDataParallel
    net = net.to(model.device)
    if model.opt['dist']:
        # Of depthwise kernels, whose gradients it copies; they are few.
        warnings.filterwarnings('ignore', 'Grad strides do not match bucket view strides')
        device_ids = [torch.cuda.current_device()] if model.device.type == 'cuda' else None
        find_unused_parameters = model.opt.get('find_unused_parameters', False)
        return DistributedDataParallel(net, device_ids=device_ids, find_unused_parameters=find_unused_parameters)
    if model.opt['num_gpu'] > 1:
        return DataParallel(net)
    return net


def load_network(model, net, load_path, strict=True, param_key='params'):
    """BasicSR loads what does not match its checksum, and leaves it to an environment variable if a file may run code.
    """
    from basicsr.utils import get_root_logger

    from lkdn_basicsr import checkpoints
    net = model.get_bare_model(net)
    weights, key = checkpoints.pick_weights(checkpoints.load(load_path), param_key)
    get_root_logger().info(f'Loading {type(net).__name__} model from {load_path}, with param key: [{key}].')
    weights = dict(weights)  # of which the next line renames those that differ in size
    model._print_different_keys_loading(net, weights, strict)
    net.load_state_dict(weights, strict=strict)


def reduce_loss_dict(model, losses):
    """BasicSR gives the mean over the ranks to the first one, and something else to the others."""
    import torch
    values = torch.stack([value.detach().mean() for value in losses.values()])
    if model.opt['dist']:
        torch.distributed.all_reduce(values)
        values /= model.opt['world_size']
    return OrderedDict(zip(losses, values.tolist()))


def refuse_what_is_not_finite(optimize_parameters):
    """BasicSR trains on with NaN and saves it."""

    @functools.wraps(optimize_parameters)
    def checked(model, current_iter):
        from lkdn_basicsr.models.reparam_sr_model import check_finite
        optimize_parameters(model, current_iter)
        check_finite(model.log_dict, current_iter)

    return checked


def seed_worker(worker_id, num_workers, rank, seed):
    """BasicSR gives a worker the same random numbers in every epoch. PairedCropDataset does not use them."""
    import numpy as np
    import torch
    words = np.random.SeedSequence([seed, rank, torch.initial_seed()]).generate_state(2)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))


def build_model(opt):
    """BasicSR's, where the log has been opened: what is in effect is written beside it."""
    from basicsr.models import build_model as build

    from lkdn_basicsr.options.effective import record_effective
    record_effective(opt)
    return build(opt)


def load_resume_state(opt):
    """BasicSR loads the state to a GPU, and looks for it below the current directory instead of the experiment's."""
    import torch
    from basicsr.utils import check_resume, scandir
    states = opt['path']['training_states']
    if opt['auto_resume'] and os.path.isdir(states):
        iters = [int(name[:-len('.state')]) for name in scandir(states, suffix='.state')
                 if name[:-len('.state')].isdigit()]
        if iters:
            opt['path']['resume_state'] = os.path.join(states, f'{max(iters)}.state')
    if not opt['path'].get('resume_state'):
        return None
    resume_state = torch.load(opt['path']['resume_state'], map_location='cpu', weights_only=True)
    check_resume(opt, resume_state['iter'])
    opt['resume_iter'] = resume_state['iter']
    return resume_state


def create_train_val_dataloader(opt, logger):
    """BasicSR counts the incomplete last batch of an epoch, which is dropped, as an iteration, and stops too early.

    Here the sampler deals out one stream of samples in which every epoch has whole batches only, the last epoch ends
    with the last iteration, and a resumed run goes on in the middle of an epoch; BasicSR's loop then runs exactly
    ``total_iter`` iterations, and its last validation carries that number.
    """
    from basicsr.data import build_dataloader, build_dataset

    from lkdn_basicsr.data.sampler import StreamSampler
    total_iter, train_loader, sampler, val_loaders = int(opt['train']['total_iter']), None, None, []
    for phase, dataset_opt in opt['datasets'].items():
        dataset = build_dataset(dataset_opt)
        build = functools.partial(
            build_dataloader, dataset, dataset_opt, num_gpu=opt['num_gpu'], dist=opt['dist'], seed=opt['manual_seed'])
        if dataset_opt['phase'] != 'train':
            logger.info(f'Number of val images/folders in {dataset_opt["name"]}: {len(dataset)}')
            val_loaders.append(build())
            continue
        batch_size = dataset_opt['batch_size_per_gpu'] * (1 if opt['dist'] else max(1, opt['num_gpu']))
        ratio = dataset_opt.get('dataset_enlarge_ratio', 1)
        try:
            sampler = StreamSampler(
                len(dataset),
                seed=opt['manual_seed'],
                batch_size=batch_size,
                world_size=opt['world_size'],
                rank=opt['rank'],
                ratio=ratio,
                total_iter=total_iter,
                start_iter=opt.get('resume_iter', 0))
        except ValueError as error:
            raise InputError(f'datasets:{phase}: {error} Set a smaller batch_size_per_gpu or a larger '
                             'dataset_enlarge_ratio') from None
        train_loader = build(sampler=sampler)
        logger.info('Training statistics:'
                    f'\n\tNumber of train images: {len(dataset)}'
                    f'\n\tDataset enlarge ratio: {ratio}'
                    f'\n\tBatch size per gpu: {dataset_opt["batch_size_per_gpu"]}'
                    f'\n\tWorld size (gpu number): {opt["world_size"]}'
                    f'\n\tRequire iter number per epoch: {sampler.iters_per_epoch}'
                    f'\n\tTotal epochs: {sampler.num_epochs}; iters: {total_iter}.')
    # BasicSR's loop is over range(start_epoch, total_epochs + 1).
    return train_loader, sampler, val_loaders, sampler.num_epochs - 1, total_iter
