"""What a network costs: its parameters, and the multiplications with addition (Multi-Adds) of one picture."""

import copy
import math
import warnings

import torch
from torch.utils.flop_counter import FlopCounterMode

OUTPUT = (720, 1280)  # height and width of the picture that the field counts Multi-Adds, and times networks, for
_ATEN = torch.ops.aten


def lr_size(scale):
    """Height and width of the picture that becomes 1280×720; at ×3, where 1280 does not divide, 427×240."""
    return tuple(round(side / scale) for side in OUTPUT)


def count(network, scale):
    """Parameters and Multi-Adds of a network, for an output of 1280×720.

    The convention is that of the paper's tables (its authors count with thop): one Multi-Add for every multiplication
    with a weight, or of two activations, in convolutions, linear layers, matrix products and attention; and two for
    every value that a normalisation layer (layer, group, batch or instance norm) puts out, which it normalises, and
    scales and shifts. LKDN ×4 has 18.225 G of the former, 18.276 G with the latter; the paper prints 18.3. BSRN ×4 has
    19.177 G, and 19.414 G with one more for every bias that is added, as older versions of thop counted; its paper
    prints 19.4. SwinIR-light ×4 has 63.1 G, products of attention included; its paper prints 49.6.

    Left out are: activations and softmax, sums (biases, shortcuts), products of two maps element by element, pooling,
    interpolation and shuffling, Fourier transforms, and normalisations that are written by hand. Where a network
    extends the picture to whole windows, what it computes there counts.

    The network runs on the meta device, where only shapes are computed; one that cannot runs in earnest, on the device
    where it is, with the picture of full size.

    Args:
        network (nn.Module): (1, 3, H, W) to (1, 3, scale·H, scale·W), in evaluation mode; left alone.
        scale (int): upscaling factor.

    Returns:
        tuple[int, int]: number of parameters (each shared one once), and of Multi-Adds.
    """
    params = sum(parameter.numel() for parameter in network.parameters())
    shape = (1, 3, *lr_size(scale))
    with torch.inference_mode(), warnings.catch_warnings(action='ignore'):
        fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # nn.MultiheadAttention as one operator, which nobody counts
        try:
            try:
                multi_adds = _multi_adds(copy.deepcopy(network).to('meta'), torch.empty(shape, device='meta'))
            except (RuntimeError, NotImplementedError, TypeError, ValueError):  # what operators say of a meta tensor
                device = next((parameter.device for parameter in network.parameters()), None)
                # A copy: some keep tensors of the last picture's size in themselves.
                multi_adds = _multi_adds(copy.deepcopy(network), torch.zeros(shape, device=device))
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)
    return params, multi_adds


def _multi_adds(network, picture):
    with FlopCounterMode(display=False, custom_mapping=_NORMS) as counter:
        network(picture)
    return counter.get_total_flops() // 2


def _norm(shape, *args, **kwargs):
    """FLOPs of a normalisation, which are halved like all others: twice its two Multi-Adds for every value."""
    return 4 * math.prod(shape)


_NORMS = {
    getattr(_ATEN, name): _norm
    for name in ('native_layer_norm', 'native_group_norm', 'native_batch_norm', 'cudnn_batch_norm')
}
