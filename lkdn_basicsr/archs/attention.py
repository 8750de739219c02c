"""Attention modules of LKDB."""
from torch import nn


class LKA(nn.Module):
    """Large kernel attention (Visual Attention Network, Guo et al. 2022), 17×17 here.

    A pointwise, a depthwise 5×5 and a depthwise dilated 5×5 (dilation 3) convolution give the map that the input is
    multiplied by; LKDN puts the pointwise first.

    Args:
        channels (int): C.
    """

    def __init__(self, channels):
        super().__init__()
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.depthwise_dilated = nn.Conv2d(channels, channels, 5, padding=6, dilation=3, groups=channels)

    def forward(self, x):
        """(N, C, H, W) to the same shape."""
        return x * self.depthwise_dilated(self.depthwise(self.pointwise(x)))
