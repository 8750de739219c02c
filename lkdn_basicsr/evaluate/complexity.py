"""Parameters and Multi-Adds (multiplications with addition) of a network."""

import contextlib
import copy
import math
import warnings
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

OUTPUT = (720, 1280)  # height and width of the output that papers count Multi-Adds for; latency is measured for it too


def lr_size(scale: int) -> tuple[int, int]:
    """Return the height and width of the input that becomes 1280×720; at ×3, which does not divide 1280, 240×427."""
    height, width = OUTPUT
    return round(height / scale), round(width / scale)


def count(network: nn.Module, scale: int) -> tuple[int, int]:
    """Count the parameters of a network, and its Multi-Adds for an output of 1280×720.

    The convention is that of the LKDN paper, whose authors count with thop: one Multi-Add for every multiplication with
    a weight, or of two activations, in convolutions, linear layers, matrix products and attention; two for every output
    value of a normalization layer (layer, group, batch or instance norm), which normalizes, then scales and shifts.

    It does not count activations and softmax, additions (biases, shortcuts), element-wise products, pooling,
    interpolation and shuffling, Fourier transforms, and normalizations that are not one of torch's layers. If a network
    pads its input to windows, the padding counts.

    docs/compare.md compares the counts of LKDN, BSRN and SwinIR-light with those in their papers. The network runs on
    the meta device, where only shapes are computed. If it cannot, it runs for real, on its own device.

    Args:
        network: Maps (1, 3, H, W) to (1, 3, scale·H, scale·W); in evaluation mode. Not modified.

    Returns:
        Number of parameters (shared ones once), number of Multi-Adds.
    """
    params = sum(parameter.numel() for parameter in network.parameters())
    shape = (1, 3, *lr_size(scale))
    with torch.inference_mode(), warnings.catch_warnings(action='ignore'), contextlib.ExitStack() as stack:
        # The fast path of attention is a single operator, which FlopCounterMode does not know.
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return params, _multi_adds(copy.deepcopy(network).to('meta'), torch.empty(shape, device='meta'))
        except (RuntimeError, NotImplementedError, TypeError, ValueError):  # raised by operators for meta tensors
            device = next((parameter.device for parameter in network.parameters()), None)
            # A copy, because some networks store tensors of the size of their last input.
            return params, _multi_adds(copy.deepcopy(network), torch.zeros(shape, device=device))


def _multi_adds(network: nn.Module, image: torch.Tensor) -> int:
    with FlopCounterMode(display=False, custom_mapping=_NORMS) as counter:
        network(image)
    return counter.get_total_flops() // 2


def _norm_flops(shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    """Return the FLOPs of a normalization: two Multi-Adds per value, at two FLOPs each."""
    return 4 * math.prod(shape)


_NORMS = {
    getattr(torch.ops.aten, name): _norm_flops
    for name in ('native_layer_norm', 'native_group_norm', 'native_batch_norm', 'cudnn_batch_norm')
}
