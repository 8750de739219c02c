"""Detect a network from the keys and shapes of its weights.

Init arguments that keys and shapes do not determine get their usual values. For BasicSR's networks, ``res_scale`` is 1,
or 0.1 for an EDSR of at least 256 features, as in BasicSR's own option files; ``img_range`` and ``rgb_mean`` are the
defaults of the classes. A config or an option file takes precedence, see :func:`load.load`.
"""

import math
from typing import Any

import spandrel
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from lkdn_basicsr import archs, checkpoints, reparam
from lkdn_basicsr.evaluate.loading.from_config import limit_to
from lkdn_basicsr.evaluate.loading.wrappers import SpandrelNetwork, pad_to_window, suppress_output
from lkdn_basicsr.options.registries import registered

Weights = dict[str, torch.Tensor]


def detect_network(weights: Weights) -> nn.Module | None:
    """Return the network of a state dict with these weights, for images of any size; None if it is unknown."""
    networks = (detect(weights) for detect in (_detect_lkdn, _detect_bsrn, _detect_basicsr, _detect_spandrel))
    with limit_to(weights):
        return next((network for network in networks if network is not None), None)


def _detect_lkdn(weights: Weights) -> nn.Module | None:
    """LKDN or LKDN-S in training form or fused; returned fused."""
    try:
        name, arguments = archs.config_from_state_dict(weights)
        network, weights = checkpoints.fit(getattr(archs, name)(**arguments), weights)
    except (ValueError, RuntimeError, MemoryError):  # keys or shapes of another network; InputError is a ValueError
        return None
    network.load_state_dict(weights)
    return reparam.fuse(network)


def _detect_bsrn(weights: Weights) -> nn.Module | None:
    """BSRN as its authors save it: an LKDN with shortcuts in its convolutions, and other keys for the upsampler."""
    renamed = {key.replace('upsampler.upsampleOneStep.', 'upsampler.'): value for key, value in weights.items()}
    try:
        name, arguments = archs.config_from_state_dict(renamed)
        network = getattr(archs, name)(**arguments | {'conv': 'BSConvU_idt'})
        network.load_state_dict(renamed)
    except (ValueError, RuntimeError, MemoryError):
        return None
    return network


def _detect_basicsr(weights: Weights) -> nn.Module | None:
    """MSRResNet, EDSR, RCAN or RRDBNet of BasicSR."""
    for name, read_arguments in _ARGUMENT_READERS.items():
        try:
            common = _common_arguments(weights)
            network = registered(ARCH_REGISTRY)[name](**common | read_arguments(weights, common))
            checkpoints.fit(network, weights)
        except Exception:  # weights of another class
            continue
        network.load_state_dict(weights)
        return pad_to_window(network)
    return None


def _detect_spandrel(weights: Weights) -> nn.Module | None:
    """Any network of spandrel, which includes SwinIR and SRVGGNetCompact of BasicSR, equal to BasicSR's bit for bit."""
    with suppress_output():
        try:
            descriptor = spandrel.ModelLoader().load_from_state_dict(dict(weights))  # a copy: some loaders modify it
        except Exception:  # a few keys decide on the class, whose constructor may then raise anything
            return None
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        return None
    _fuse_span(descriptor.model)
    return SpandrelNetwork(descriptor)


def _fuse_span(network: nn.Module) -> None:
    """Fuse SPAN's convolutions in place: spandrel keeps their training form, and fuses them again for every image."""
    module: Any
    for module in network.modules():
        if hasattr(module, 'update_params') and hasattr(module, 'eval_conv'):
            module.update_params()
            module.update_params = lambda: None
            del module.conv, module.sk


def _common_arguments(weights: Weights) -> dict[str, int]:
    """Return the init arguments that BasicSR's classes have in common."""
    num_feat, num_in_ch = weights['conv_first.weight'].shape[:2]
    num_out_ch, num_block = weights['conv_last.weight'].shape[0], _count_modules(weights, 'body.')
    return {'num_in_ch': num_in_ch, 'num_out_ch': num_out_ch, 'num_feat': num_feat, 'num_block': num_block}


def _count_modules(weights: Weights, prefix: str) -> int:
    """Return the number of numbered modules below a prefix."""
    return len({key.removeprefix(prefix).split('.')[0] for key in weights if key.startswith(prefix)})


def _upsample_scale(weights: Weights) -> int:
    """Return the scale of BasicSR's Upsample, a sequence of pixel shuffles."""
    shapes = [weights[key].shape for key in weights if key.startswith('upsample.') and key.endswith('.weight')]
    return math.prod(math.isqrt(shape[0] // shape[1]) for shape in shapes)


def _msrresnet(weights: Weights, common: dict[str, int]) -> dict[str, Any]:
    shuffled = weights['upconv1.weight'].shape[0]
    return {'upscale': 4 if 'upconv2.weight' in weights else math.isqrt(shuffled // common['num_feat'])}


def _edsr(weights: Weights, common: dict[str, int]) -> dict[str, Any]:
    return {'upscale': _upsample_scale(weights), 'res_scale': 0.1 if common['num_feat'] >= 256 else 1}


def _rcan(weights: Weights, common: dict[str, int]) -> dict[str, Any]:
    squeezed = weights['body.0.residual_group.0.rcab.3.attention.1.weight'].shape[0]
    blocks = {'num_group': common['num_block'], 'num_block': _count_modules(weights, 'body.0.residual_group.')}
    return {'upscale': _upsample_scale(weights), 'squeeze_factor': common['num_feat'] // squeezed, **blocks}


def _rrdbnet(weights: Weights, common: dict[str, int]) -> dict[str, Any]:
    unshuffled = math.isqrt(common['num_in_ch'] // common['num_out_ch'])  # 2 and 4 at scales 2 and 1
    num_grow_ch = weights['body.0.rdb1.conv1.weight'].shape[0]
    return {'num_in_ch': common['num_in_ch'] // unshuffled**2, 'num_grow_ch': num_grow_ch, 'scale': 4 // unshuffled}


_ARGUMENT_READERS = {'MSRResNet': _msrresnet, 'EDSR': _edsr, 'RCAN': _rcan, 'RRDBNet': _rrdbnet}
