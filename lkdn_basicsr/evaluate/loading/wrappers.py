"""Networks of others made alike: for pictures of any size, and quiet."""

import contextlib
import io
import logging
import math
import warnings

from basicsr.archs.rrdbnet_arch import RRDBNet
from torch import nn
from torch.nn import functional as F


class PaddedToWindow(nn.Module):
    """A network that wants sizes that are multiples of its window, for any size.

    Pictures are extended below and on the right by reflection and the result is cropped, as BasicSR's SwinIRModel does.

    Args:
        core (nn.Module): the network.
        window (int): pixels.
    """

    def __init__(self, core, window):
        super().__init__()
        self.core, self.window = core, window

    def forward(self, x):
        """(N, 3, H, W) to (N, 3, scale·H, scale·W)."""
        height, width = x.shape[-2:]
        bottom, right = -height % self.window, -width % self.window
        mode = 'reflect' if bottom < height and right < width else 'replicate'
        out = self.core(F.pad(x, (0, right, 0, bottom), mode))
        scale = out.shape[-1] // (width + right)
        return out[..., : height * scale, : width * scale]


def pad_to_window(network):
    """A network of BasicSR's registry, :class:`PaddedToWindow` by the windows that are in it, if there are any."""
    if isinstance(network, RRDBNet):
        window = 4 // network.scale  # at scales 2 and 1 it begins with a pixel unshuffle
    else:
        sizes = [getattr(module, 'window_size', 1) for module in network.modules()]
        flat = [size for entry in sizes for size in (entry if isinstance(entry, tuple | list) else [entry])]
        window = math.lcm(*(size for size in flat if isinstance(size, int) and size > 0))
    return network if window == 1 else PaddedToWindow(network, window)


class SpandrelNetwork(nn.Module):
    """A network as spandrel loads it, which extends pictures to the sizes that the network wants, and clips.

    Args:
        descriptor (spandrel.ImageModelDescriptor)
    """

    def __init__(self, descriptor):
        super().__init__()
        self.core, self.descriptor = descriptor.model, descriptor

    def forward(self, x):
        """(1, 3, H, W) to (1, 3, scale·H, scale·W) in [0, 1]."""
        return self.descriptor(x)


@contextlib.contextmanager
def silence():
    """What code of others prints or warns of when a network is built is not for the user."""
    quiet = io.StringIO()
    with warnings.catch_warnings(action='ignore'), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(previous)
