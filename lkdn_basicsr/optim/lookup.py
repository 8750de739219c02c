"""Optimizers by the names that option files use."""

import inspect

import torch

from lkdn_basicsr.optim.adan import Adan


def optimizers():
    """The optimizers that an option file can name: Adan and the classes of torch.optim, by class name."""
    found = {
        name: value
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    return {**found, 'Adan': Adan}
