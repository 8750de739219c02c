"""What BasicSR 1.4.2 needs on today's stack: one function per defect, each naming it.

``prepare_import`` runs before BasicSR is imported, ``apply`` after; nothing else in the package changes anything of
BasicSR's. A pipeline started by someone else's launcher gets the same BasicSR, once ``lkdn_basicsr`` is imported.
"""

import importlib.machinery
import importlib.util
import sys
import types
import warnings

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
        raise InputError(
            f'OpenCV does not load ({error}): install the library (Debian: apt install libgl1 '
            'libglib2.0-0), or, in place of opencv-python, pip install opencv-python-headless'
        ) from None


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
    import basicsr.test
    import basicsr.train
    from basicsr.data.prefetch_dataloader import PrefetchGenerator
    from basicsr.models.base_model import BaseModel
    from basicsr.models.sr_model import SRModel
    from basicsr.utils import options as basicsr_options
    from basicsr.utils.registry import DATASET_REGISTRY

    from lkdn_basicsr.options.parse import parse_options
    from lkdn_basicsr.training import logger as progress
    from lkdn_basicsr.training import loop, prefetch, validation

    # Options are read unsafely and looked at only when the old experiment has been moved away (defects: exec and eval
    # of --force_yml, silent unknown keys, `num_gpu: 1` on a CPU).
    for module in (basicsr.train, basicsr.test, basicsr_options):
        module.parse_options = parse_options
    # What survives a kill, and how the loop ends and goes on: each function says in loop.py what it mends.
    for name in (
        'train_pipeline',
        'load_resume_state',
        'make_exp_dirs',
        'mkdir_and_rename',
        'copy_opt_file',
        'create_train_val_dataloader',
        'build_model',
    ):
        setattr(basicsr.train, name, getattr(loop, name))
    basicsr.train_pipeline = loop.train_pipeline  # basicsr/__init__.py has copied it
    for name in ('save_network', 'save_training_state', 'resume_training', 'validation', 'reduce_loss_dict'):
        setattr(BaseModel, name, getattr(loop, name))
    BaseModel.get_optimizer = get_optimizer
    BaseModel.model_to_device = model_to_device
    BaseModel.load_network = load_network

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
    basicsr.test.build_model = loop.build_model
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
    """BasicSR ignores checksums, and an environment variable decides whether a file may run code."""
    from basicsr.utils import get_root_logger

    from lkdn_basicsr import checkpoints

    net = model.get_bare_model(net)
    weights, key = checkpoints.pick_weights(checkpoints.load(load_path), param_key)
    get_root_logger().info(f'Loading {type(net).__name__} model from {load_path}, with param key: [{key}].')
    weights = dict(weights)  # of which the next line renames those that differ in size
    model._print_different_keys_loading(net, weights, strict)
    net.load_state_dict(weights, strict=strict)
