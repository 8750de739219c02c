"""Each transform against the layers it replaces, on the complete image with its borders, in float64.

Tolerance 1e-12: sums of some hundred products of numbers around 1 have rounding errors of about 1e-14.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lkdn_basicsr.reparam import transforms


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def conv(x, branch, groups=1):
    weight, bias = branch
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)


def branch(out_channels, in_channels, kernel_size):
    return random(out_channels, in_channels, kernel_size, kernel_size), random(out_channels)


X = random(2, 6, 7, 5)


def check(found, expected, groups=1):
    torch.testing.assert_close(conv(X, found, groups), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('small, large', [(3, 3), (1, 3), (1, 5), (3, 7)])
def test_added_branches_are_one_convolution_whose_center_is_the_small_kernel(small, large):
    a, b = branch(4, 6, small), branch(4, 6, large)
    check(transforms.add_branches(a, b), conv(X, a) + conv(X, b))


@pytest.mark.parametrize('small, large', [(2, 3), (5, 3)])
def test_kernel_without_a_center_is_refused(small, large):
    with pytest.raises(ValueError, match='center'):
        transforms.pad_kernel(torch.zeros(1, 1, small, small), large)


@pytest.mark.parametrize('groups', [1, 2, 6])
def test_identity_and_average_pooling_are_convolutions(groups):
    check((transforms.identity_kernel(6, groups), None), X, groups)
    check((transforms.average_kernel(6, 3, groups), None), F.avg_pool2d(X, 3, 1, 1), groups)


@pytest.mark.parametrize('groups', [1, 2])
def test_sequence_is_one_convolution_if_padded_with_the_bias(groups):
    pointwise, kxk = branch(8, 6 // groups, 1), branch(4, 8 // groups, 3)
    bias = pointwise[1].view(1, -1, 1, 1)
    padded = F.pad(conv(X, pointwise, groups) - bias, (1, 1, 1, 1)) + bias
    check(transforms.sequence_1x1_kxk(pointwise, kxk, groups), F.conv2d(padded, *kxk, groups=groups), groups)


@torch.no_grad()
def test_batch_norm_is_folded_into_the_convolution_before_it():
    weight, _ = branch(4, 6, 3)
    bn = nn.BatchNorm2d(4, eps=1e-3).double().eval()
    for value in (bn.running_mean, bn.weight, bn.bias):
        nn.init.normal_(value)
    nn.init.uniform_(bn.running_var, 0.1, 2)
    folded = transforms.fold_batch_norm(weight, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=1e-3)
    check(folded, bn(conv(X, (weight, None))))
