"""LKDN and LKDN-S.

Xie et al., Large Kernel Distillation Network for Efficient Single Image Super-Resolution, CVPR workshops 2023.
"""

import functools
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from lkdn_basicsr import reparam
from lkdn_basicsr.archs.blocks import ACTIVATIONS, LKDB, UPSAMPLERS
from lkdn_basicsr.archs.config import LKDNConfig, LKDNSConfig
from lkdn_basicsr.archs.convs import CONVS, BSConvU


@ARCH_REGISTRY.register()
class LKDN(nn.Module):
    """Large kernel distillation network of the paper, with the arguments, defaults and errors of LKDNConfig."""

    # inspect.signature follows wraps() and lists the arguments, against which option files are validated.
    @functools.wraps(LKDNConfig.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self._config = config = LKDNConfig(*args, **kwargs)
        self.num_in = config.num_in
        self.fea_conv = BSConvU(config.num_in_ch * config.num_in, config.num_feat)
        self.blocks = [f'B{i}' for i in range(1, config.num_block + 1)]  # the official names, not those of a ModuleList
        conv, activation = CONVS[config.conv], ACTIVATIONS[config.activation]
        lka = config.lka_kernel, config.lka_dilation
        for name in self.blocks:
            self.add_module(name, LKDB(config.num_feat, config.num_atten, conv, config.attention, lka, activation))
        self.c1 = nn.Conv2d(config.num_feat * config.num_block, config.num_feat, 1)
        self.act = activation()
        self.c2 = BSConvU(config.num_feat, config.num_feat)
        self.upsampler = UPSAMPLERS[config.upsampler](config.num_feat, config.num_out_ch, config.upscale)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, num_in_ch, H, W), RGB in [0, 1], to (N, num_out_ch, upscale·H, upscale·W), not clipped."""
        shallow = self.fea_conv(x.repeat(1, self.num_in, 1, 1))
        features, out = [], shallow
        for name in self.blocks:
            out = self.get_submodule(name)(out)
            features.append(out)
        deep = self.c2(self.act(self.c1(torch.cat(features, dim=1))))
        return self.upsampler(deep + shallow)

    @property
    def config(self) -> dict[str, Any]:
        """``type`` and all arguments of the network in its present form: after fusing, those of the fused network."""
        config = {'type': type(self).__name__, **vars(self._config), 'num_in': self.num_in}
        in_training_form = any(isinstance(module, reparam.Reparameterizable) for module in self.modules())
        return config if in_training_form else reparam.fuse_config(config)

    @torch.no_grad()
    def fold_input(self) -> None:
        """Fold the repetition of the input into the first convolution, in place: the network with ``num_in: 1``."""
        weight = self.fea_conv.pw.weight
        out_channels, in_channels = weight.shape[:2]
        folded = weight.double().unflatten(1, (self.num_in, -1)).sum(1).to(weight)
        self.fea_conv.pw = nn.Conv2d(in_channels // self.num_in, out_channels, 1, bias=False, device='meta')
        self.fea_conv.pw.load_state_dict({'weight': folded}, assign=True)
        self.num_in = 1


@ARCH_REGISTRY.register()
class LKDN_S(LKDN):
    """LKDN-S, the smaller network of the NTIRE 2023 efficient super-resolution challenge: 5 blocks of width 42."""

    @functools.wraps(LKDNSConfig.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(**vars(LKDNSConfig(*args, **kwargs)))
