"""The blocks that LKDN is made of. Attribute names are those of the official code, because they are checkpoint keys."""
import torch
from torch import nn
from torch.nn import functional as F

from lkdn_basicsr import reparam
from lkdn_basicsr.archs.attention import LKA


class BSConvU(nn.Module):
    """Blueprint separable convolution, unconstrained (Haase and Amthor, CVPR 2020): pointwise, then depthwise.

    Args:
        in_channels (int), out_channels (int): of the block.
        kernel_size (int): K of the depthwise convolution; the size of the picture is kept.
    """

    def __init__(self, in_channels, out_channels, kernel_size=3):
        super().__init__()
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dw = nn.Conv2d(out_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=out_channels)

    def forward(self, x):
        return self.dw(self.pw(x))


class BSConvU_idt(BSConvU):
    """BSConvU with a shortcut, the blueprint shallow block of the ablation (LKDN, Table 2).

    The shortcut goes around both convolutions, so that their product has rank one and the sum has not: there is no
    BSConvU equal to it, and fusing leaves the block as it is.
    """

    def __init__(self, channels, out_channels, kernel_size=3):
        super().__init__(channels, out_channels, kernel_size)
        # Without parameters; it marks the block in the metadata of a state dict, whose keys are those of BSConvU.
        self.shortcut = nn.Identity()

    def forward(self, x):
        return super().forward(x) + self.shortcut(x)


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
        with torch.device('meta'):
            plain = BSConvU(self.pw.in_channels, self.pw.out_channels, self.dw.kernel_size[0])
        return _load(plain, reparam.fuse_rbsb, self)


CONVS = {conv.__name__: conv for conv in (BSConvU, BSConvU_idt, BSConvU_rep)}


class LKDB(nn.Module):
    """Large kernel distillation block, LKDB of the LKDN paper.

    Args:
        num_feat (int): C, channels in and out.
        num_atten (int): channels of the attention.
        conv (type): the block that the distillation is done through, one of ``CONVS``.
    """

    def __init__(self, num_feat, num_atten, conv=BSConvU):
        super().__init__()
        distilled = num_feat // 2
        self.c1_d = nn.Conv2d(num_feat, distilled, 1)
        self.c1_r = conv(num_feat, num_feat)
        self.c2_d = nn.Conv2d(num_feat, distilled, 1)
        self.c2_r = conv(num_feat, num_feat)
        self.c3_d = nn.Conv2d(num_feat, distilled, 1)
        self.c3_r = conv(num_feat, num_feat)
        self.c4 = BSConvU(num_feat, distilled)
        self.act = nn.GELU()

        self.c5 = nn.Conv2d(distilled * 4, num_atten, 1)
        self.atten = LKA(num_atten)
        self.c6 = nn.Conv2d(num_atten, num_feat, 1)
        self.pixel_norm = nn.LayerNorm(num_feat)

    def forward(self, x):
        """(N, C, H, W) to the same shape."""
        distilled1, r1 = self.act(self.c1_d(x)), self.act(self.c1_r(x))
        distilled2, r2 = self.act(self.c2_d(r1)), self.act(self.c2_r(r1))
        distilled3, r3 = self.act(self.c3_d(r2)), self.act(self.c3_r(r2))
        r4 = self.act(self.c4(r3))

        out = self.c6(self.atten(self.c5(torch.cat([distilled1, distilled2, distilled3, r4], dim=1))))
        out = self.pixel_norm(out.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # over the channels of each pixel
        return out + x


def pixelshuffledirect(in_channels, out_channels, upscale):
    """One 3×3 convolution and a pixel shuffle: (N, in_channels, H, W) to (N, out_channels, upscale·H, upscale·W)."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale))


class UpsamplerRep(nn.Module):
    """The re-parameterized upsampler, ``pixelshuffle_rep``: 1×1, 3×3 and 1×1–3×3 in parallel, then a pixel shuffle.

    Args:
        in_channels (int), out_channels (int), upscale (int): as :func:`pixelshuffledirect`.
    """

    def __init__(self, in_channels, out_channels, upscale):
        super().__init__()
        shuffled = out_channels * upscale**2
        self.conv1 = nn.Conv2d(in_channels, shuffled, 1)
        self.conv3 = nn.Conv2d(in_channels, shuffled, 3, 1, 1)
        self.conv1x1 = nn.Conv2d(in_channels, in_channels * 2, 1)
        self.conv3x3 = nn.Conv2d(in_channels * 2, shuffled, 3)
        self.pixel_shuffle = nn.PixelShuffle(upscale)

    def forward(self, x):
        # What the 3×3 sees beyond the border must be the bias of the 1×1, or the two would not fuse exactly there.
        bordered = F.pad(F.conv2d(x, self.conv1x1.weight), (1, 1, 1, 1)) + self.conv1x1.bias.view(1, -1, 1, 1)
        return self.pixel_shuffle(self.conv1(x) + self.conv3(x) + self.conv3x3(bordered))

    def fuse(self):
        """The ``pixelshuffledirect`` that gives the same output."""
        upscale = self.pixel_shuffle.upscale_factor
        with torch.device('meta'):
            plain = pixelshuffledirect(self.conv3.in_channels, self.conv3.out_channels // upscale**2, upscale)
        return _load(plain, reparam.fuse_upsampler, self)


UPSAMPLERS = {'pixelshuffledirect': pixelshuffledirect, 'pixelshuffle_rep': UpsamplerRep}


def _load(plain, rule, block):
    """Give a plain block on the meta device, where building one draws no random numbers, the block's fused weights."""
    plain.load_state_dict(reparam.apply_rule(rule, block.state_dict()), assign=True)
    return plain
