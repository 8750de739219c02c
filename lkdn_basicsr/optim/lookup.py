"""Optimizers by the names in option files."""

import inspect
from typing import Any

import torch

from lkdn_basicsr.optim.adan import Adan


def optimizers() -> dict[str, Any]:
    """Return Adan and the optimizer classes of ``torch.optim``, by class name."""
    found = {
        name: value
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    return {**found, 'Adan': Adan}
