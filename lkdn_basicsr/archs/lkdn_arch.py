"""LKDN and LKDN-S.

Xie et al., Large Kernel Distillation Network for Efficient Single Image Super-Resolution, CVPR workshops 2023.
"""

import numbers

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from lkdn_basicsr.archs.blocks import ACTIVATIONS, ATTENTIONS, LKDB, UPSAMPLERS
from lkdn_basicsr.archs.convs import CONVS, BSConvU

_LEAST = dict(
    num_in_ch=1, num_out_ch=1, num_feat=2, num_atten=1, num_block=1, upscale=1, num_in=1, lka_kernel=1, lka_dilation=1
)
_CHOICES = dict(conv=CONVS, upsampler=UPSAMPLERS, attention=ATTENTIONS, activation=ACTIVATIONS)


@ARCH_REGISTRY.register()
class LKDN(nn.Module):
    """Large kernel distillation network, the architecture of the paper.

    Args:
        num_in_ch (int): channels of the input picture. Default: 3.
        num_out_ch (int): channels of the output picture. Default: 3.
        num_feat (int): width of the network. Default: 56.
        num_atten (int): width of the large kernel attention; without effect on the other kinds. Default: 56.
        num_block (int): number of blocks (LKDB). Default: 8.
        upscale (int): scale factor, 1 or more. Default: 4.
        num_in (int): how many copies of the input the first convolution sees. Default: 4.
        conv (str): what is distilled through: Conv (3×3), BSConvU (blueprint separable), BSConvU_idt (with a shortcut,
            as in BSRN), BSConvU_rep (RBSB, the paper's), BSConvU_dbb (with a Diverse Branch Block). The last two
            have branches, which ``reparam.fuse`` makes one. Default: BSConvU.
        upsampler (str): pixelshuffledirect | pixelshuffle_rep, the latter with branches. Default: pixelshuffledirect.
        attention (str): of each block: lka (large kernel), esa_cca (enhanced spatial, then contrast-aware channel
            attention, as in BSRN), esa, cca, none; see ``LKDB``. Default: lka.
        lka_kernel (int): K, the convolution that lka takes apart. Default: 15.
        lka_dilation (int): d, from 1 to K, of the ⌈K/d⌉×⌈K/d⌉ convolution; the other is (2d−1)×(2d−1). Default: 3.
        activation (str): gelu | relu | lrelu (slope 0.05) | silu | prelu (one slope in each block). Default: gelu.

    Raises:
        ValueError: an argument is out of its range, or not one of those named.
    """

    def __init__(
        self,
        num_in_ch=3,
        num_out_ch=3,
        num_feat=56,
        num_atten=56,
        num_block=8,
        upscale=4,
        num_in=4,
        conv='BSConvU',
        upsampler='pixelshuffledirect',
        attention='lka',
        lka_kernel=15,
        lka_dilation=3,
        activation='gelu',
    ):
        super().__init__()
        self.built_with = _checked(
            dict(
                num_in_ch=num_in_ch,
                num_out_ch=num_out_ch,
                num_feat=num_feat,
                num_atten=num_atten,
                num_block=num_block,
                upscale=upscale,
                num_in=num_in,
                conv=conv,
                upsampler=upsampler,
                attention=attention,
                lka_kernel=lka_kernel,
                lka_dilation=lka_dilation,
                activation=activation,
            )
        )
        self.num_in = num_in
        self.fea_conv = BSConvU(num_in_ch * num_in, num_feat)
        self.blocks = [f'B{i}' for i in range(1, num_block + 1)]  # the official names, not those of a ModuleList
        for name in self.blocks:
            self.add_module(
                name,
                LKDB(num_feat, num_atten, CONVS[conv], attention, lka_kernel, lka_dilation, ACTIVATIONS[activation]),
            )
        self.c1 = nn.Conv2d(num_feat * num_block, num_feat, 1)
        self.act = ACTIVATIONS[activation]()
        self.c2 = BSConvU(num_feat, num_feat)
        self.upsampler = UPSAMPLERS[upsampler](num_feat, num_out_ch, upscale)

    def forward(self, x):
        """Super-resolve.

        Args:
            x (Tensor): (N, num_in_ch, H, W), floating point, RGB in [0, 1].

        Returns:
            Tensor: (N, num_out_ch, upscale·H, upscale·W), not clipped.
        """
        shallow = self.fea_conv(x.repeat(1, self.num_in, 1, 1))
        features, out = [], shallow
        for name in self.blocks:
            out = self.get_submodule(name)(out)
            features.append(out)
        deep = self.c2(self.act(self.c1(torch.cat(features, dim=1))))
        return self.upsampler(deep + shallow)

    @torch.no_grad()
    def fold_input(self):
        """Fold the repetition of the input into the first convolution, in place: the network with ``num_in: 1``."""
        weight = self.fea_conv.pw.weight
        out_channels, in_channels = weight.shape[:2]
        folded = weight.double().unflatten(1, (self.num_in, -1)).sum(1).to(weight)
        self.fea_conv.pw = nn.Conv2d(in_channels // self.num_in, out_channels, 1, bias=False, device='meta')
        self.fea_conv.pw.load_state_dict({'weight': folded}, assign=True)
        self.num_in = 1

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        """Note the arguments in the metadata, which ``torch.save`` keeps: some leave no trace in keys and shapes."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, '_metadata'):  # a plain dict, which Module.state_dict can be given, has none
            notes = dict(architecture=type(self).__name__, arguments=dict(self.built_with))
            destination._metadata[prefix[:-1]].update(notes)


def _checked(arguments):
    """The arguments, their numbers as plain ints, for a checkpoint may hold no others; ValueError for what is wrong."""
    for name, least in _LEAST.items():
        number = arguments[name]
        if not isinstance(number, numbers.Integral) or number < least:
            raise ValueError(f'{name}: {number} is not a whole number from {least} on')
        arguments[name] = int(number)
    for name, known in _CHOICES.items():
        if arguments[name] not in known:
            raise ValueError(f'{name}: {arguments[name]} is not known; it is one of {", ".join(known)}')
    if arguments['lka_dilation'] > arguments['lka_kernel']:
        raise ValueError(
            f'lka_dilation: {arguments["lka_dilation"]} is more than lka_kernel, '
            f'{arguments["lka_kernel"]}; lower it, or raise lka_kernel'
        )
    return arguments


@ARCH_REGISTRY.register()
class LKDN_S(LKDN):
    """LKDN-S, the smaller network of the NTIRE 2023 efficient super-resolution challenge: LKDN with other defaults.

    Args:
        num_in_ch, num_out_ch, num_feat, num_atten, num_block, upscale, num_in, conv, upsampler, attention, lka_kernel,
            lka_dilation, activation: see :class:`LKDN`. Default: width 42 and 5 blocks.
    """

    def __init__(
        self,
        num_in_ch=3,
        num_out_ch=3,
        num_feat=42,
        num_atten=42,
        num_block=5,
        upscale=4,
        num_in=4,
        conv='BSConvU',
        upsampler='pixelshuffledirect',
        attention='lka',
        lka_kernel=15,
        lka_dilation=3,
        activation='gelu',
    ):
        super().__init__(
            num_in_ch,
            num_out_ch,
            num_feat,
            num_atten,
            num_block,
            upscale,
            num_in,
            conv,
            upsampler,
            attention,
            lka_kernel,
            lka_dilation,
            activation,
        )
