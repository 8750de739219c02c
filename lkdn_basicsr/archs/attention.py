"""Attention modules of LKDB: each gives a map that its input is multiplied by. Attribute names are checkpoint keys."""

import torch.nn.functional as F
from torch import nn

from lkdn_basicsr.archs.convs import BSConvU


class LKA(nn.Module):
    """Large kernel attention (Visual Attention Network, Guo et al. 2022), a K×K convolution taken apart into three.

    A pointwise, a depthwise (2d−1)×(2d−1) and a depthwise ⌈K/d⌉×⌈K/d⌉ convolution with dilation d; LKDN puts the
    pointwise first. The pair of depthwise ones sees a square of side d (⌈K/d⌉ + 1) − 1, which is K or up to 2 (d − 1)
    more: 17 for the K 15 and d 3 of LKDN, 23 for the 21 and 3 of the Visual Attention Network. With d 1 the second
    is the whole K×K, and the first a factor for each channel.

    Args:
        channels (int): C.
        kernel (int): K. Default: 15.
        dilation (int): d, K or less. Default: 3.
    """

    def __init__(self, channels, kernel=15, dilation=3):
        super().__init__()
        dilated = -(-kernel // dilation)
        margin, self.rest = divmod(dilation * (dilated - 1), 2)  # an even dilated kernel may need one more on a side
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 2 * dilation - 1, padding=dilation - 1, groups=channels)
        self.depthwise_dilated = nn.Conv2d(
            channels, channels, dilated, padding=margin, dilation=dilation, groups=channels
        )

    def forward(self, x):
        """(N, C, H, W) to the same shape."""
        near = self.depthwise(self.pointwise(x))
        if self.rest:
            near = F.pad(near, [0, 1, 0, 1])  # right and below
        return x * self.depthwise_dilated(near)


class ESA(nn.Module):
    """Enhanced spatial attention (RFANet, Liu et al., CVPR 2020), built from BSConvU as BSRN does.

    The map comes from a quarter of the channels, at a sixth of the resolution, so that its field of view is wide.

    Args:
        channels (int): C.
    """

    def __init__(self, channels):
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

    def forward(self, x):
        """(N, C, H, W) to the same shape, H and W 3 or more; below 15, the window of the pooling is what there is."""
        reduced = self.conv1(x)
        wide = self.conv2(reduced)
        wide = F.max_pool2d(wide, [min(7, side) for side in wide.shape[2:]], stride=3)
        wide = self.act(self.conv3(self.act(self.conv_max(wide))))
        wide = F.interpolate(self.conv3_(wide), x.shape[2:], mode='bilinear', align_corners=False)
        return x * self.conv4(wide + self.conv_f(reduced)).sigmoid()


class CCA(nn.Module):
    """Contrast-aware channel attention (IMDN, Hui et al., ACM MM 2019): of mean plus standard deviation of a channel.

    Args:
        channels (int): C.
    """

    def __init__(self, channels):
        super().__init__()
        narrow = max(1, channels // 16)
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1), nn.Sigmoid()
        )

    def forward(self, x):
        """(N, C, H, W) to the same shape."""
        # On a flat picture the square root of a variance has no gradient, and 0 · inf is NaN; torch's std has 0 there.
        contrast = x.std((2, 3), correction=0, keepdim=True)
        return x * self.conv_du(contrast + x.mean((2, 3), keepdim=True))
