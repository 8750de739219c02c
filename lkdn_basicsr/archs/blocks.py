"""The blocks of LKDN. Attribute names are those of the official code, because they are checkpoint keys."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lkdn_basicsr.archs.attention import CCA, ESA, LKA
from lkdn_basicsr.archs.convs import BSConvU, Conv
from lkdn_basicsr.reparam.fuse import Reparameterizable, fuse_upsampler, fused_block

Activation = Callable[[], nn.Module]
ATTENTIONS = ('lka', 'esa_cca', 'esa', 'cca', 'none')
_LeakyReLU = functools.partial(nn.LeakyReLU, 0.05)  # the slope of IMDN and RFDN
# PReLU has one slope, because it follows convolutions of different widths.
ACTIVATIONS: dict[str, Activation] = dict(gelu=nn.GELU, relu=nn.ReLU, lrelu=_LeakyReLU, silu=nn.SiLU, prelu=nn.PReLU)


class LKDB(nn.Module):
    """Large kernel distillation block (LKDB) of the LKDN paper; with another attention, the block of BSRN.

    With ``lka``: c5 to ``num_atten`` channels, LKA, c6, LayerNorm over the channels of each pixel. With the others, in
    the same place and in the order of BSRN: c5 to ``num_feat`` channels, ESA if named, CCA if named. The input is added
    at the end.

    Args:
        num_feat: C, channels of input and output.
        num_atten: channels of LKA; without effect on the others.
        conv: one of ``CONVS``, called with the channels of input and output; the features are distilled through it.
        attention: one of ``ATTENTIONS``.
        lka: kernel and dilation, see :class:`LKA`.
        activation: one of ``ACTIVATIONS``; ESA and CCA keep their own.
    """

    def __init__(
        self, num_feat: int, num_atten: int, conv: Conv, attention: str, lka: tuple[int, int], activation: Activation
    ) -> None:
        super().__init__()
        distilled = num_feat // 2
        self.c1_d = nn.Conv2d(num_feat, distilled, 1)
        self.c1_r = conv(num_feat, num_feat)
        self.c2_d = nn.Conv2d(num_feat, distilled, 1)
        self.c2_r = conv(num_feat, num_feat)
        self.c3_d = nn.Conv2d(num_feat, distilled, 1)
        self.c3_r = conv(num_feat, num_feat)
        self.c4 = BSConvU(num_feat, distilled)
        self.act = activation()

        self.has_lka = attention == 'lka'
        self.c5 = nn.Conv2d(distilled * 4, num_atten if self.has_lka else num_feat, 1)
        if self.has_lka:
            self.atten = LKA(num_atten, *lka)
            self.c6 = nn.Conv2d(num_atten, num_feat, 1)
            self.pixel_norm = nn.LayerNorm(num_feat)
        else:
            self.esa = ESA(num_feat) if 'esa' in attention else nn.Identity()
            self.cca = CCA(num_feat) if 'cca' in attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        distilled1, r1 = self.act(self.c1_d(x)), self.act(self.c1_r(x))
        distilled2, r2 = self.act(self.c2_d(r1)), self.act(self.c2_r(r1))
        distilled3, r3 = self.act(self.c3_d(r2)), self.act(self.c3_r(r2))
        r4 = self.act(self.c4(r3))

        out = self.c5(torch.cat([distilled1, distilled2, distilled3, r4], dim=1))
        if self.has_lka:
            out = self.c6(self.atten(out))
            # Over the channels of each pixel. The official code copies the result to NCHW; benchmarks/gpu_layout.py
            # measures whether a GPU needs that.
            out = self.pixel_norm(out.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        else:
            out = self.cca(self.esa(out))
        return out + x


def pixelshuffledirect(in_channels: int, out_channels: int, upscale: int) -> nn.Sequential:
    """Return a 3×3 convolution and a pixel shuffle: (N, C, H, W) to (N, out_channels, upscale·H, upscale·W)."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale))


class UpsamplerRep(Reparameterizable):
    """The re-parameterized upsampler ``pixelshuffle_rep``: 1×1, 3×3 and 1×1–3×3 in parallel, then a pixel shuffle."""

    def __init__(self, in_channels: int, out_channels: int, upscale: int) -> None:
        super().__init__()
        shuffled = out_channels * upscale**2
        self.conv1 = nn.Conv2d(in_channels, shuffled, 1)
        self.conv3 = nn.Conv2d(in_channels, shuffled, 3, 1, 1)
        self.conv1x1 = nn.Conv2d(in_channels, in_channels * 2, 1)
        self.conv3x3 = nn.Conv2d(in_channels * 2, shuffled, 3)
        self.pixel_shuffle = nn.PixelShuffle(upscale)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, upscale·H, upscale·W)."""
        # The 3×3 must be padded with the bias of the 1×1: with zeros, fusing would not be exact at the borders.
        bias = self.conv1x1.bias.view(1, -1, 1, 1)  # type: ignore[union-attr]
        padded = F.pad(F.conv2d(x, self.conv1x1.weight), (1, 1, 1, 1)) + bias
        return self.pixel_shuffle(self.conv1(x) + self.conv3(x) + self.conv3x3(padded))

    def fuse(self) -> nn.Module:
        """Return the ``pixelshuffledirect`` with the same output."""
        channels, shuffled, upscale = self.conv3.in_channels, self.conv3.out_channels, self.pixel_shuffle.upscale_factor
        return fused_block(lambda: pixelshuffledirect(channels, shuffled // upscale**2, upscale), fuse_upsampler, self)


UPSAMPLERS = {'pixelshuffledirect': pixelshuffledirect, 'pixelshuffle_rep': UpsamplerRep}
