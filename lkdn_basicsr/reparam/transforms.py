"""The transforms of Diverse Branch Block (Ding et al., CVPR 2021, transforms I to VI), as functions of tensors.

A branch is a pair ``(weight, bias)`` of a convolution with stride 1 and zero padding ``K // 2``: weight
``(out_channels, in_channels / groups, K, K)``, bias ``(out_channels,)``. All functions are exact in real arithmetic, on
the whole picture with its borders; they keep dtype and device.
"""

import torch
import torch.nn.functional as F


def add_branches(*branches):
    """Parallel branches whose outputs are added, as one: kernels and biases are summed (transform II).

    Args:
        branches (tuple[Tensor, Tensor]): weights of one shape (see :func:`pad_kernel`) and their biases.

    Returns:
        tuple[Tensor, Tensor]: weight and bias of the one convolution.
    """
    weights, biases = zip(*branches)
    return sum(weights), sum(biases)


def pad_kernel(weight, kernel_size):
    """A kernel as the centre of a larger one, zeros around it: 1×1 to K×K (transform VI).

    Args:
        weight (Tensor): (O, I, k, k).
        kernel_size (int): K ≥ k, and of the same parity, so that there is a centre.

    Returns:
        Tensor: (O, I, K, K).
    """
    margin, odd = divmod(kernel_size - weight.shape[-1], 2)
    if margin < 0 or odd:
        raise ValueError(
            f'a {weight.shape[-1]}×{weight.shape[-1]} kernel has no place at the centre of {kernel_size}×{kernel_size}'
        )
    return F.pad(weight, [margin] * 4)


def identity_kernel(channels, kernel_size, groups=1):
    """The kernel that returns its input: a shortcut as a convolution.

    Returns:
        Tensor: (channels, channels / groups, K, K), float64.
    """
    per_group = channels // groups
    weight = torch.zeros(channels, per_group, kernel_size, kernel_size, dtype=torch.float64)
    index = torch.arange(channels)
    weight[index, index % per_group, kernel_size // 2, kernel_size // 2] = 1
    return weight


def sequence_1x1_kxk(pointwise, kxk, groups=1):
    """A 1×1 convolution followed by a K×K one, as one K×K (transform III).

    Exact at the borders only if the K×K convolution pads its input with the bias of the 1×1, not with zeros; that is
    how the block must be built.

    Args:
        pointwise (tuple[Tensor, Tensor]): weight (M, I / groups, 1, 1), bias (M,).
        kxk (tuple[Tensor, Tensor]): weight (O, M / groups, K, K), bias (O,).
        groups (int): of both convolutions.

    Returns:
        tuple[Tensor, Tensor]: weight (O, I / groups, K, K), bias (O,).
    """
    (weight1, bias1), (weight2, bias2) = pointwise, kxk
    first = weight1.flatten(1).unflatten(0, (groups, -1))  # (groups, M / groups, I / groups)
    second = weight2.unflatten(0, (groups, -1))  # (groups, O / groups, M / groups, K, K)
    weight = torch.einsum('gmi,gomkl->goikl', first, second).flatten(0, 1)
    bias = torch.einsum('gm,gomkl->go', bias1.unflatten(0, (groups, -1)), second).flatten() + bias2
    return weight, bias


def average_kernel(channels, kernel_size, groups=1):
    """Average pooling of K×K, stride 1, with its zero padding counted, as a convolution (transform V).

    Returns:
        Tensor: (channels, channels / groups, K, K), float64.
    """
    centre = identity_kernel(channels, 1, groups)
    return centre.expand(-1, -1, kernel_size, kernel_size) / kernel_size**2


def concat_branches(*branches):
    """Parallel branches whose outputs are concatenated along the channels (transform IV).

    Returns:
        tuple[Tensor, Tensor]: weight (sum of O, I, K, K), bias (sum of O,).
    """
    weights, biases = zip(*branches)
    return torch.cat(weights), torch.cat(biases)


def fold_batch_norm(weight, bias, mean, var, gamma=None, beta=None, eps=1e-5):
    """A convolution followed by a batch norm in evaluation mode, as one convolution (transform I).

    Args:
        weight (Tensor): (O, I, K, K).
        bias (Tensor | None): (O,).
        mean (Tensor), var (Tensor): running statistics of the batch norm, (O,).
        gamma (Tensor | None), beta (Tensor | None): weight and bias of the batch norm, (O,); None for 1 and 0.
        eps (float): of the batch norm. Default: 1e-5, that of ``nn.BatchNorm2d``.

    Returns:
        tuple[Tensor, Tensor]: weight and bias.
    """
    gain = (var + eps).rsqrt()
    if gamma is not None:
        gain = gain * gamma
    shift = -mean * gain if bias is None else (bias - mean) * gain
    return weight * gain.view(-1, 1, 1, 1), shift if beta is None else shift + beta
