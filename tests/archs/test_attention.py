import pytest
import torch
from torch import nn

from lkdn_basicsr.archs.attention import CCA, ESA, LKA


@pytest.mark.parametrize('height, width', [(3, 3), (4, 4), (4, 30), (14, 15), (15, 14)])
def test_esa_handles_small_images(height, width):
    x = torch.rand(1, 8, height, width, requires_grad=True)
    output = ESA(8)(x)
    output.sum().backward()
    assert output.shape == x.shape and x.grad.isfinite().all() and (x.grad != 0).all()


def test_cca_has_a_gradient_on_constant_images():
    attention = CCA(16)
    x = torch.full((2, 16, 5, 6), 0.5)
    x[1, :, 2, 3] = 0.7
    x.requires_grad_()
    attention(x).sum().backward()
    assert x.grad.isfinite().all() and (x.grad != 0).all()
    mean = x.mean((2, 3), keepdim=True)  # the formula of IMDN
    contrast = (x - mean).square().mean((2, 3), keepdim=True).sqrt()
    # A unit in the last place of float32 intermediates; the contrast of a constant channel is that of its mean.
    torch.testing.assert_close(attention(x), x * attention.conv_du(contrast + mean), rtol=0, atol=1e-6)


@pytest.mark.parametrize('kernel, dilation', [(15, 3), (21, 3), (7, 3), (14, 4), (11, 3), (9, 9), (6, 1), (1, 1)])
def test_lka_has_the_documented_receptive_field(kernel, dilation):
    attention = LKA(1, kernel, dilation).double()
    for parameter in attention.parameters():
        nn.init.constant_(parameter, 1)
    ratio = -(-kernel // dilation)
    side = dilation * (ratio + 1) - 1
    assert kernel <= side <= kernel + 2 * (dilation - 1)
    assert attention.depthwise.kernel_size == (2 * dilation - 1,) * 2
    assert attention.depthwise_dilated.kernel_size == (ratio,) * 2
    x = torch.ones(1, 1, 61, 60, dtype=torch.float64, requires_grad=True)
    output = attention(x)
    assert output.shape == x.shape
    (seen,) = torch.autograd.grad(output[0, 0, 30, 30], x)
    rows, columns = seen[0, 0].nonzero().T
    assert rows.min() == columns.min() and rows.max() == columns.max()
    assert rows.max() - rows.min() + 1 == side and seen.count_nonzero() == side**2
    assert 0 <= rows.max() + rows.min() - 60 <= 1  # in the center, or one more at the right and at the bottom
