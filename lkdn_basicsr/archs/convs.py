"""The convolutions in the distillation path of LKDN. Attribute names are the official checkpoint keys."""

import functools
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from lkdn_basicsr.reparam.fuse import Reparameterizable, fuse_dbb, fuse_rbsb, fused_block

Conv = Callable[[int, int], nn.Module]  # called with the channels of input and output


def plain_conv(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Conv2d:
    """Return ``Conv``: the K×K convolution that BSConvU replaces, with the output size of the input."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


class BSConvU(nn.Module):
    """Blueprint separable convolution, unconstrained (Haase and Amthor, CVPR 2020): pointwise, then depthwise.

    Kernel size K, stride and padding are those of the depthwise one; padding None is K // 2, which keeps the image size
    at stride 1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, padding: int | None = None
    ) -> None:
        super().__init__()
        padding = kernel_size // 2 if padding is None else padding
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dw = nn.Conv2d(out_channels, out_channels, kernel_size, stride, padding, groups=out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.dw(self.pw(x))


class BSConvU_idt(BSConvU):
    """BSConvU with a shortcut, the blueprint shallow block of BSRN (LKDN, Table 2).

    The shortcut spans both convolutions. Their product has rank one and the sum with the identity has not, so no
    BSConvU is equal to this block, and fusing keeps it as it is. Its keys are those of BSConvU.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x


class BSConvU_rep(BSConvU, Reparameterizable):
    """Re-parameterized blueprint shallow block (RBSB) of the LKDN paper: trained with shortcuts and a depthwise 1×1.

    Because of the shortcuts, ``out_channels`` must be ``in_channels``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.rep1x1 = nn.Conv2d(in_channels, in_channels, 1, groups=in_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pw(x) + x
        return self.dw(x) + x + self.rep1x1(x)

    def fuse(self) -> nn.Module:
        """Return the BSConvU with the same output."""
        shape = self.pw.in_channels, self.pw.out_channels, self.dw.kernel_size[0]
        return fused_block(lambda: BSConvU(*shape), fuse_rbsb, self)


class DiverseBranches(nn.Module):
    """Diverse Branch Block (Ding et al., CVPR 2021) on a depthwise K×K convolution.

    The sum of four branches, each of which ends with a batch norm: 1×1; 1×1, batch norm, K×K; 1×1, batch norm, K×K
    average; K×K, with an odd K. The convolutions have no bias.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        conv = functools.partial(nn.Conv2d, channels, channels, groups=channels, bias=False)
        norm = functools.partial(nn.BatchNorm2d, channels)
        self.point = nn.Sequential(conv(1), norm())
        self.point_kxk = nn.Sequential(conv(1), norm(), conv(kernel_size), norm())
        self.point_average = nn.Sequential(conv(1), norm(), nn.AvgPool2d(kernel_size, 1), norm())
        self.kxk = nn.Sequential(conv(kernel_size), norm())
        self.margin = kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        # The fused K×K convolution pads x with zeros. To be exact at the borders, a branch must see what its 1×1 and
        # batch norm make of these zeros, so x is padded before them.
        padded = F.pad(x, [self.margin] * 4)
        return self.point(x) + self.point_kxk(padded) + self.point_average(padded) + self.kxk(padded)


class BSConvU_dbb(Reparameterizable):
    """BSConvU whose depthwise convolution is trained as a Diverse Branch Block.

    In training mode, the batch norms use the statistics of the batch; in evaluation mode and in :meth:`fuse`, the
    running ones. ``kernel_size`` must be odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dw = DiverseBranches(out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.dw(self.pw(x))

    def fuse(self) -> nn.Module:
        """Return the BSConvU with the output that this block has in evaluation mode."""
        shape = self.pw.in_channels, self.pw.out_channels, 2 * self.dw.margin + 1
        return fused_block(lambda: BSConvU(*shape), fuse_dbb, self)


CONVS: dict[str, Conv] = dict(
    Conv=plain_conv, BSConvU=BSConvU, BSConvU_idt=BSConvU_idt, BSConvU_rep=BSConvU_rep, BSConvU_dbb=BSConvU_dbb
)
