"""Attention modules of LKDB: each multiplies its input by a map. Attribute names are checkpoint keys."""

import torch.nn.functional as F
from torch import Tensor, nn

from lkdn_basicsr.archs.convs import BSConvU


class LKA(nn.Module):
    """Large kernel attention (Visual Attention Network, Guo et al. 2022): a K×K convolution decomposed into three.

    A pointwise, a depthwise (2d−1)×(2d−1) and a depthwise ⌈K/d⌉×⌈K/d⌉ convolution with dilation d; LKDN puts the
    pointwise one first. The receptive field of the two depthwise ones is a square of side d (⌈K/d⌉ + 1) − 1, which is
    K or up to 2 (d − 1) more: 17 for K 15 and d 3 (LKDN), 23 for K 21 and d 3 (Visual Attention Network). With d 1, the
    second one is the complete K×K convolution, and the first one a factor per channel. K is ``kernel``, d ``dilation``.
    """

    def __init__(self, channels: int, kernel: int = 15, dilation: int = 3) -> None:
        super().__init__()
        dilated = -(-kernel // dilation)
        margin, self.extra = divmod(dilation * (dilated - 1), 2)  # an even kernel may need one more pixel on one side
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 2 * dilation - 1, padding=dilation - 1, groups=channels)
        self.depthwise_dilated = nn.Conv2d(channels, channels, dilated, 1, margin, dilation, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        near = self.depthwise(self.pointwise(x))
        if self.extra:
            near = F.pad(near, [0, 1, 0, 1])  # at the right and at the bottom
        return x * self.depthwise_dilated(near)


class ESA(nn.Module):
    """Enhanced spatial attention (RFANet, Liu et al., CVPR 2020), built from BSConvU as in BSRN.

    The map is computed from a quarter of the channels at a sixth of the resolution, for a wide receptive field.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // 4)
        self.conv1 = nn.Conv2d(channels, narrow, 1)
        self.conv_f = nn.Conv2d(narrow, narrow, 1)
        self.conv_max = BSConvU(narrow, narrow)
        self.conv2 = BSConvU(narrow, narrow, stride=2, padding=0)
        self.conv3 = BSConvU(narrow, narrow)
        self.conv3_ = BSConvU(narrow, narrow)
        self.conv4 = nn.Conv2d(narrow, channels, 1)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape; H and W are at least 3. Below 15, the pooling window shrinks to fit."""
        reduced = self.conv1(x)
        wide = self.conv2(reduced)
        wide = F.max_pool2d(wide, [min(7, side) for side in wide.shape[2:]], stride=3)
        wide = self.act(self.conv3(self.act(self.conv_max(wide))))
        wide = F.interpolate(self.conv3_(wide), x.shape[2:], mode='bilinear', align_corners=False)
        return x * self.conv4(wide + self.conv_f(reduced)).sigmoid()


class CCA(nn.Module):
    """Contrast-aware channel attention (IMDN, Hui et al., ACM MM 2019): from mean + standard deviation per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // 16)
        layers = nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1), nn.Sigmoid()
        self.conv_du = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        # The gradient of sqrt(variance) is 0 · inf = NaN on a constant image; the gradient of torch's std is 0 there.
        contrast = x.std((2, 3), correction=0, keepdim=True)
        return x * self.conv_du(contrast + x.mean((2, 3), keepdim=True))
