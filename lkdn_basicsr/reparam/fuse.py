"""Fusing: train with several branches, run one convolution.

The algebra of each re-parameterizable block is a rule: a pure function from the block's state dict to that of the plain
block. :func:`fuse` applies the rules to a network, by way of :meth:`Reparameterizable.fuse` of its blocks, and
:func:`fuse_state_dict` to a checkpoint, so both give the same numbers.
"""

import abc
import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.reparam.transforms import (
    Branch,
    add_branches,
    average_kernel,
    fold_batch_norm,
    identity_kernel,
    sequence_1x1_kxk,
)

State = Mapping[str, Tensor]
Rule = Callable[[State], dict[str, Tensor]]
_FOLDED_KEYS = ('running_mean', 'running_var', 'weight', 'bias')


class Reparameterizable(nn.Module, abc.ABC):
    """A block that is trained with several branches and can be fused. :func:`fuse` replaces only these."""

    @abc.abstractmethod
    def fuse(self) -> nn.Module:
        """Return a new module with the output that this one has in evaluation mode; leave this one unchanged."""


def fuse_rbsb(state: State) -> dict[str, Tensor]:
    """Fuse RBSB, the re-parameterized blueprint shallow block of the LKDN paper, to a blueprint separable convolution.

    ``y = pw(x) + x`` and ``dw(y) + y + rep1x1(y)`` become ``dw'(pw'(x))``.

    Args:
        state: ``pw.weight`` (C, C, 1, 1), ``dw.weight`` (C, 1, K, K), ``dw.bias``, ``rep1x1.weight`` (C, 1, 1, 1),
            ``rep1x1.bias``.
    """
    pointwise, depthwise = state['pw.weight'], state['dw.weight']
    channels = len(depthwise)
    shortcut = identity_kernel(channels, groups=channels).to(depthwise), depthwise.new_zeros(channels)
    rep1x1 = state['rep1x1.weight'], state['rep1x1.bias']
    weight, bias = add_branches((depthwise, state['dw.bias']), rep1x1, shortcut)
    return {'pw.weight': pointwise + identity_kernel(channels).to(pointwise), 'dw.weight': weight, 'dw.bias': bias}


def fuse_dbb(state: State) -> dict[str, Tensor]:
    """Fuse a pointwise convolution and a depthwise Diverse Branch Block to a blueprint separable convolution.

    The branches 1×1, 1×1–K×K, 1×1–average and K×K, with the running statistics of their batch norms (eps 1e-5, that of
    ``nn.BatchNorm2d``), become one K×K convolution. Exact at the borders if the input is padded before the 1×1.

    Args:
        state: ``pw.weight`` (C, I, 1, 1); below ``dw.`` those of ``archs.convs.DiverseBranches``: weights (C, 1, 1, 1)
            and (C, 1, K, K), and those of the batch norms, (C,).
    """

    def branch(name: str, norm: int, weight: Tensor | None = None) -> Branch:
        """Return a batch norm and the convolution before it, or that with another weight, as one convolution."""
        weight = state[f'dw.{name}.{norm - 1}.weight'] if weight is None else weight
        mean, var, gamma, beta = (state[f'dw.{name}.{norm}.{key}'] for key in _FOLDED_KEYS)
        return fold_batch_norm(weight, mean, var, gamma, beta)

    kxk = branch('kxk', 1)
    channels, _, kernel_size, _ = kxk[0].shape
    average = average_kernel(channels, kernel_size, groups=channels).to(kxk[0])
    weight, bias = add_branches(
        branch('point', 1),
        sequence_1x1_kxk(branch('point_kxk', 1), branch('point_kxk', 3), channels),
        sequence_1x1_kxk(branch('point_average', 1), branch('point_average', 3, average), channels),
        kxk,
    )
    return {'pw.weight': state['pw.weight'], 'dw.weight': weight, 'dw.bias': bias}


def fuse_upsampler(state: State) -> dict[str, Tensor]:
    """Fuse the branches of ``pixelshuffle_rep``, 1×1 + 3×3 + (1×1 then 3×3), to the 3×3 of ``pixelshuffledirect``.

    Args:
        state: weight and bias of ``conv1``, ``conv3``, ``conv1x1``, ``conv3x3``.
    """

    def branch(name: str) -> Branch:
        return state[f'{name}.weight'], state[f'{name}.bias']

    sequence = sequence_1x1_kxk(branch('conv1x1'), branch('conv3x3'))
    weight, bias = add_branches(branch('conv1'), branch('conv3'), sequence)
    return {'0.weight': weight, '0.bias': bias}


_DBB_CONVS = ('point.0', 'point_kxk.0', 'point_kxk.2', 'point_average.0', 'kxk.0')
_DBB_NORMS = ('point.1', 'point_kxk.1', 'point_kxk.3', 'point_average.1', 'point_average.3', 'kxk.1')
_RBSB_KEYS = {'pw.weight', 'dw.weight', 'dw.bias', 'rep1x1.weight', 'rep1x1.bias'}
_UPSAMPLER_KEYS = {f'{conv}.{key}' for conv in ('conv1', 'conv3', 'conv1x1', 'conv3x3') for key in ('weight', 'bias')}
_DBB_KEYS = {'pw.weight'} | {f'dw.{conv}.weight' for conv in _DBB_CONVS}
_DBB_KEYS |= {f'dw.{norm}.{key}' for norm in _DBB_NORMS for key in (*_FOLDED_KEYS, 'num_batches_tracked')}

# All keys of a block below its prefix, and its rule.
_RULES: dict[frozenset[str], Rule] = {
    frozenset(_RBSB_KEYS): fuse_rbsb,
    frozenset(_UPSAMPLER_KEYS): fuse_upsampler,
    frozenset(_DBB_KEYS): fuse_dbb,
}
# What the arguments of a network become when it is fused.
_FUSED_ARGUMENTS = {
    'conv': {'BSConvU_rep': 'BSConvU', 'BSConvU_dbb': 'BSConvU'},
    'upsampler': {'pixelshuffle_rep': 'pixelshuffledirect'},
}


def _apply(rule: Rule, state: State) -> dict[str, Tensor]:
    """Apply a rule in float64, which contains every dtype of a checkpoint, and return to the dtype of the state."""
    dtype = next(value.dtype for value in state.values() if value.is_floating_point())  # a batch norm counts in int64
    fused = rule({key: value.detach().double() for key, value in state.items()})
    return {key: value.to(dtype) for key, value in fused.items()}


def fused_block(build: Callable[[], nn.Module], rule: Rule, block: nn.Module) -> nn.Module:
    """Return the plain block that replaces a re-parameterizable one, in its dtype and on its device.

    ``build`` creates the plain block; it is called on the meta device, where no random numbers are drawn.
    """
    with torch.device('meta'):
        plain = build()
    plain.load_state_dict(_apply(rule, block.state_dict()), assign=True)
    return plain


def fuse(network: nn.Module, fold_input: bool = False) -> nn.Module:
    """Return a fused copy of a network: every :class:`Reparameterizable` block is replaced. The network is unchanged.

    The copy has the same class, dtype, device, training mode and output.

    Args:
        fold_input: also fold the ``num_in`` copies that LKDN makes of its input into its first convolution.
    """
    fused = _fuse_module(copy.deepcopy(network))
    if fold_input:
        fused.fold_input()  # type: ignore[operator]
    return fused


def _fuse_module(module: nn.Module) -> nn.Module:
    """Fuse the children of a module in place, then return the module itself, or its replacement."""
    for name, child in list(module.named_children()):
        fused = _fuse_module(child)
        if fused is not child:
            module.add_module(name, fused)
    return module.fuse().train(module.training) if isinstance(module, Reparameterizable) else module


def fuse_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the fused network, from those of the training form."""
    fused = dict(config)
    for name, names in _FUSED_ARGUMENTS.items():
        if isinstance(fused.get(name), str):
            fused[name] = names.get(fused[name], fused[name])
    return fused


def fuse_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict of the fused network, in the structure of that of the training form, which is unchanged.

    Args:
        state_dict: flat (keys to tensors), or a checkpoint that contains such under ``params`` and ``params_ema``, and
            may contain the arguments of its network under ``network_g``. What is fused already stays as it is.

    Raises:
        InputError: tensors that have the keys of a re-parameterizable block have other shapes or types.
    """
    if any(isinstance(value, dict) for value in state_dict.values()):
        nested = {key: fuse_state_dict(v) if isinstance(v, dict) else v for key, v in state_dict.items()}
        if isinstance(nested.get('network_g'), dict):
            nested['network_g'] = fuse_config(nested['network_g'])
        return nested

    keys_below: dict[str, list[str]] = {}  # the keys below every prefix that may be a block's
    for key in state_dict:
        parts = key.split('.')
        for cut in range(len(parts)):
            keys_below.setdefault('.'.join(parts[:cut]), []).append('.'.join(parts[cut:]))
    fused: Any = copy.copy(state_dict)  # with the metadata of an OrderedDict from Module.state_dict()
    for prefix, keys in keys_below.items():
        rule = _RULES.get(frozenset(keys))
        if rule is None:
            continue
        start = f'{prefix}.' if prefix else ''
        block = {key: fused.pop(start + key) for key in keys}
        try:
            fused.update((start + key, value) for key, value in _apply(rule, block).items())
        except (RuntimeError, ValueError, LookupError, StopIteration):  # by torch, for the shapes of another block
            reason = f'{prefix or "the state dict"} has keys of a re-parameterizable block, and other shapes'
            raise InputError(f'{reason}: give a checkpoint of LKDN or LKDN_S') from None
    return fused
