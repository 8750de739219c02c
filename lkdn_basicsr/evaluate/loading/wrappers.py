"""Wrappers that make third-party networks take images of any size, and keep third-party code quiet."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any

import spandrel
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from torch import nn
from torch.nn import functional as F


class PadToWindow(nn.Module):
    """A network whose input sizes must be multiples of its window (in pixels), for images of any size.

    Images are padded at the bottom and on the right by reflection and the output is cropped, as in BasicSR's
    SwinIRModel.
    """

    def __init__(self, core: nn.Module, window: int) -> None:
        super().__init__()
        self.core, self.window = core, window

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, 3, H, W) to (N, 3, scale·H, scale·W)."""
        height, width = x.shape[-2:]
        bottom, right = -height % self.window, -width % self.window
        mode = 'reflect' if bottom < height and right < width else 'replicate'
        out = self.core(F.pad(x, (0, right, 0, bottom), mode))
        scale = out.shape[-1] // (width + right)
        return out[..., : height * scale, : width * scale]


def pad_to_window(network: nn.Module) -> nn.Module:
    """Return a network of BasicSR's registry in :class:`PadToWindow`, or as it is if it has no windows."""
    if isinstance(network, RRDBNet):
        window = 4 // network.scale  # at scales 2 and 1 it begins with a pixel unshuffle
    else:
        sizes: list[Any] = [getattr(module, 'window_size', 1) for module in network.modules()]
        flat = [size for entry in sizes for size in (entry if isinstance(entry, tuple | list) else [entry])]
        window = math.lcm(*(size for size in flat if isinstance(size, int) and size > 0))
    return network if window == 1 else PadToWindow(network, window)


class SpandrelNetwork(nn.Module):
    """A network of spandrel, which pads images to the sizes that the network needs, and clips the output to [0, 1]."""

    def __init__(self, descriptor: spandrel.ImageModelDescriptor) -> None:
        super().__init__()
        self.core, self.descriptor = descriptor.model, descriptor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, 3, H, W) to (1, 3, scale·H, scale·W) in [0, 1]."""
        return self.descriptor(x)


@contextlib.contextmanager
def suppress_output() -> Iterator[None]:
    """Suppress what third-party code prints, logs or warns about when a network is built."""
    sink, disabled = io.StringIO(), logging.root.manager.disable
    with warnings.catch_warnings(action='ignore'), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
