"""All that importing this package changes in other packages, one function per defect of BasicSR 1.4.2.

``prepare_import`` makes BasicSR importable; ``apply`` replaces three of its functions that cannot do their work on a
current stack. Everything else is done without changing BasicSR, see :class:`lkdn_basicsr.training.run.Run`.
"""

import importlib.util
import os
import sys
import types
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.optim.lookup import optimizers


def prepare_import() -> bool:
    """Make ``import basicsr`` possible.

    Returns:
        Whether it is. Where OpenCV does not load, commands report it, see ``cli.report_errors``.
    """
    try:
        check_opencv()
    except InputError:
        return False
    provide_functional_tensor()
    provide_scipy_filters()
    return True


def check_opencv() -> None:
    """opencv-python, which BasicSR requires, links to libGL, which servers and containers often lack."""
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        if '.so' not in str(error):
            raise
        raise InputError(
            f'OpenCV does not load ({error}): install the library (Debian: apt install libgl1 libglib2.0-0), or '
            'replace opencv-python: pip uninstall opencv-python && pip install opencv-python-headless'
        ) from None


def provide_functional_tensor() -> None:
    """BasicSR imports ``torchvision.transforms.functional_tensor``, removed in torchvision 0.17.

    Upstream: https://github.com/XPixelGroup/BasicSR/pull/650, on master and in no release.
    """
    _provide_module('torchvision.transforms.functional_tensor', 'torchvision.transforms._functional_tensor')


def provide_scipy_filters() -> None:
    """BasicSR imports ``scipy.ndimage.filters`` (metrics/niqe.py), which SciPy 2 removes and SciPy 1 warns about."""
    _provide_module('scipy.ndimage.filters', 'scipy.ndimage')


def _provide_module(name: str, source: str) -> None:
    """Register a module with the contents of another one, unless the real one is imported already."""
    if name in sys.modules or (name.startswith('torchvision') and importlib.util.find_spec(name) is not None):
        return
    contents = {key: value for key, value in vars(importlib.import_module(source)).items() if not key.startswith('__')}
    module = types.ModuleType(name)
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    module.__dict__.update(contents)
    sys.modules[name] = module


def apply() -> None:
    """Replace the functions of BasicSR that cannot work: optimizers by name, DDP on a CPU, gloo without a GPU."""
    from basicsr.models.base_model import BaseModel
    from basicsr.utils import dist_util

    BaseModel.get_optimizer = get_optimizer
    BaseModel.model_to_device = model_to_device
    dist_util._init_dist_pytorch = init_dist_pytorch


def get_optimizer(_model: Any, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
    """``BaseModel.get_optimizer``, which knows only Adam: Adan and every optimizer of ``torch.optim`` by class name."""
    return optimizers()[optim_type](params, lr, **kwargs)


def model_to_device(model: Any, net: nn.Module) -> nn.Module:
    """``BaseModel.model_to_device``, which gives DistributedDataParallel a CUDA device also where there is none."""
    net = net.to(model.device)
    if model.opt['dist']:
        # About depthwise kernels, whose gradients DDP copies; they are few.
        warnings.filterwarnings('ignore', 'Grad strides do not match bucket view strides')
        device_ids = [torch.cuda.current_device()] if model.device.type == 'cuda' else None
        unused = model.opt.get('find_unused_parameters', False)
        return DistributedDataParallel(net, device_ids=device_ids, find_unused_parameters=unused)
    if model.opt['num_gpu'] > 1:
        return DataParallel(net)
    return net


def init_dist_pytorch(backend: str, **kwargs: Any) -> None:
    """``dist_util._init_dist_pytorch``, which divides by the number of GPUs: without one, gloo on the CPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ['RANK']) % torch.cuda.device_count())
    else:
        backend = 'gloo'
    torch.distributed.init_process_group(backend=backend, **kwargs)
