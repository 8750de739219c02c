"""The transforms of Diverse Branch Block (Ding et al., CVPR 2021, transforms I to III, V and VI) as pure functions.

A branch is a pair ``(weight, bias)`` of a convolution with stride 1 and zero padding ``K // 2``: weight
``(out_channels, in_channels / groups, K, K)``, bias ``(out_channels,)``. All functions are exact in real arithmetic,
for the complete image with its borders, and keep dtype and device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Branch = tuple[Tensor, Tensor]


def add_branches(*branches: Branch) -> Branch:
    """Return the convolution whose output is the sum of those of the branches (transform II), padded to one size."""
    weights, biases = zip(*branches)
    size, zero = max(weight.shape[-1] for weight in weights), torch.zeros(())
    return sum((pad_kernel(weight, size) for weight in weights), start=zero), sum(biases, start=zero)


def pad_kernel(weight: Tensor, kernel_size: int) -> Tensor:
    """Return (O, I, k, k) as the center of zeros (O, I, K, K), transform VI; ValueError if K − k is odd or negative."""
    size = weight.shape[-1]
    margin, odd = divmod(kernel_size - size, 2)
    if margin < 0 or odd:
        raise ValueError(f'a {size}×{size} kernel cannot be the center of {kernel_size}×{kernel_size}')
    return F.pad(weight, [margin] * 4)


def identity_kernel(channels: int, groups: int = 1) -> Tensor:
    """Return the kernel whose output is its input, (channels, channels / groups, 1, 1) in float64: a shortcut."""
    return torch.eye(channels // groups, dtype=torch.float64).repeat(groups, 1)[:, :, None, None]


def sequence_1x1_kxk(pointwise: Branch, kxk: Branch, groups: int = 1) -> Branch:
    """Return a 1×1 convolution followed by a K×K one, with the same groups, as one K×K convolution (transform III).

    Exact at the borders only if the block pads the input of the K×K convolution with the bias of the 1×1, not with
    zeros. The weights are (M, I / groups, 1, 1) and (O, M / groups, K, K).
    """
    (weight1, bias1), (weight2, bias2) = pointwise, kxk
    first = weight1.flatten(1).unflatten(0, (groups, -1))  # (groups, M / groups, I / groups)
    second = weight2.unflatten(0, (groups, -1))  # (groups, O / groups, M / groups, K, K)
    weight = torch.einsum('gmi,gomkl->goikl', first, second).flatten(0, 1)
    bias = torch.einsum('gm,gomkl->go', bias1.unflatten(0, (groups, -1)), second).flatten() + bias2
    return weight, bias


def average_kernel(channels: int, kernel_size: int, groups: int = 1) -> Tensor:
    """Return K×K average pooling, stride 1, zero padding counted, as a (C, C / groups, K, K) kernel (transform V)."""
    return identity_kernel(channels, groups).expand(-1, -1, kernel_size, kernel_size) / kernel_size**2


def fold_batch_norm(
    weight: Tensor, mean: Tensor, var: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5
) -> Branch:
    """Return a convolution without bias and a batch norm in evaluation mode as one convolution (transform I).

    The weight is (O, I, K, K). The others are running mean and variance, weight and bias of the batch norm, (O,), and
    its eps, by default that of ``nn.BatchNorm2d``.
    """
    gain = (var + eps).rsqrt() * gamma
    return weight * gain.view(-1, 1, 1, 1), -mean * gain + beta
