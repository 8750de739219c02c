"""The convolutions that LKDN distils through. Attribute names are the official ones: they are checkpoint keys."""

import torch.nn.functional as F
from torch import nn

from lkdn_basicsr import reparam


def plain_conv(in_channels, out_channels, kernel_size=3):
    """``Conv``: the K×K convolution that BSConvU takes the place of; the size of the picture is kept."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


class BSConvU(nn.Module):
    """Blueprint separable convolution, unconstrained (Haase and Amthor, CVPR 2020): pointwise, then depthwise.

    Args:
        in_channels (int), out_channels (int): of the block.
        kernel_size (int): K of the depthwise convolution.
        stride (int): of the depthwise convolution. Default: 1.
        padding (int | None): of the depthwise convolution; None for K // 2, which keeps the size of the picture at
            stride 1. Default: None.
    """

    def __init__(self, in_channels, out_channels, kernel_size=3, stride=1, padding=None):
        super().__init__()
        padding = kernel_size // 2 if padding is None else padding
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dw = nn.Conv2d(out_channels, out_channels, kernel_size, stride, padding, groups=out_channels)

    def forward(self, x):
        return self.dw(self.pw(x))


class BSConvU_idt(BSConvU):
    """BSConvU with a shortcut, the blueprint shallow block of BSRN (LKDN, Table 2).

    The shortcut goes around both convolutions, so that their product has rank one and the sum has not: there is no
    BSConvU equal to it, and fusing leaves the block as it is. Its keys are those of BSConvU.
    """

    def forward(self, x):
        return super().forward(x) + x


class BSConvU_rep(BSConvU):
    """Re-parameterized blueprint shallow block, RBSB of the LKDN paper: shortcuts and a depthwise 1×1 while training.

    Args:
        channels (int), out_channels (int): the same number.
        kernel_size (int): K of the depthwise convolution.
    """

    def __init__(self, channels, out_channels, kernel_size=3):
        super().__init__(channels, out_channels, kernel_size)
        self.rep1x1 = nn.Conv2d(channels, channels, 1, groups=channels)

    def forward(self, x):
        x = self.pw(x) + x
        return self.dw(x) + x + self.rep1x1(x)

    def fuse(self):
        """The BSConvU that gives the same output."""
        return reparam.fused_block(
            lambda: BSConvU(self.pw.in_channels, self.pw.out_channels, self.dw.kernel_size[0]), reparam.fuse_rbsb, self
        )


class DiverseBranches(nn.Module):
    """Diverse Branch Block (Ding et al., CVPR 2021) on a depthwise K×K convolution.

    Four branches that are added, each ending with a batch norm: 1×1; 1×1, batch norm, K×K; 1×1, batch norm, K×K
    average; K×K. None has another bias.

    Args:
        channels (int): C.
        kernel_size (int): K, odd.
    """

    def __init__(self, channels, kernel_size):
        super().__init__()

        def conv(size):
            return nn.Conv2d(channels, channels, size, groups=channels, bias=False)

        def norm():
            return nn.BatchNorm2d(channels)

        self.point = nn.Sequential(conv(1), norm())
        self.point_kxk = nn.Sequential(conv(1), norm(), conv(kernel_size), norm())
        self.point_average = nn.Sequential(conv(1), norm(), nn.AvgPool2d(kernel_size, 1), norm())
        self.kxk = nn.Sequential(conv(kernel_size), norm())
        self.margin = kernel_size // 2

    def forward(self, x):
        """(N, C, H, W) to the same shape."""
        # One K×K convolution pads x. A branch that pads behind its batch norm must then pad with what this makes of
        # zero, or it would not fuse exactly at the borders; so the zeros go in front, and through it.
        padded = F.pad(x, [self.margin] * 4)
        return self.point(x) + self.point_kxk(padded) + self.point_average(padded) + self.kxk(padded)


class BSConvU_dbb(nn.Module):
    """BSConvU whose depthwise convolution is a Diverse Branch Block while training.

    In training mode, batch norm takes the statistics of the batch; :meth:`fuse`, as evaluation, the running ones.

    Args:
        in_channels (int), out_channels (int): of the block.
        kernel_size (int): K of the depthwise convolution, odd.
    """

    def __init__(self, in_channels, out_channels, kernel_size=3):
        super().__init__()
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dw = DiverseBranches(out_channels, kernel_size)

    def forward(self, x):
        return self.dw(self.pw(x))

    def fuse(self):
        """The BSConvU that gives the same output as this block in evaluation mode."""
        return reparam.fused_block(
            lambda: BSConvU(self.pw.in_channels, self.pw.out_channels, 2 * self.dw.margin + 1), reparam.fuse_dbb, self
        )


CONVS = {
    'Conv': plain_conv,
    'BSConvU': BSConvU,
    'BSConvU_idt': BSConvU_idt,
    'BSConvU_rep': BSConvU_rep,
    'BSConvU_dbb': BSConvU_dbb,
}
