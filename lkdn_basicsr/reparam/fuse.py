"""Fusing: many branches to train, one convolution to use.

The algebra of each re-parameterizable block is a rule, from the block's state dict to that of the plain block. A module
with such a block has ``fuse() -> nn.Module`` that applies its rule; :func:`fuse` does so in a network and
:func:`fuse_state_dict` in a checkpoint, so that both give the same numbers.
"""

import copy

import torch

from lkdn_basicsr.reparam.transforms import (
    add_branches,
    average_kernel,
    fold_batch_norm,
    identity_kernel,
    pad_kernel,
    sequence_1x1_kxk,
)


def fuse_rbsb(state):
    """RBSB, the re-parameterized blueprint shallow block of the LKDN paper, to a blueprint separable convolution.

    ``y = pw(x) + x`` and ``dw(y) + y + rep1x1(y)`` become ``dw'(pw'(x))``.

    Args:
        state (dict[str, Tensor]): ``pw.weight`` (C, C, 1, 1), ``dw.weight`` (C, 1, K, K), ``dw.bias``,
            ``rep1x1.weight`` (C, 1, 1, 1), ``rep1x1.bias``.

    Returns:
        dict[str, Tensor]: ``pw.weight``, ``dw.weight``, ``dw.bias``.
    """
    pointwise, depthwise = state['pw.weight'], state['dw.weight']
    channels, _, _, kernel_size = depthwise.shape
    weight, bias = add_branches(
        (depthwise, state['dw.bias']),
        (pad_kernel(state['rep1x1.weight'], kernel_size), state['rep1x1.bias']),
        (identity_kernel(channels, kernel_size, groups=channels).to(depthwise), 0),
    )
    return {'pw.weight': pointwise + identity_kernel(channels, 1).to(pointwise), 'dw.weight': weight, 'dw.bias': bias}


def fuse_dbb(state):
    """A pointwise convolution and a depthwise Diverse Branch Block to a blueprint separable convolution.

    The branches 1×1, 1×1–K×K, 1×1–average and K×K, with the running statistics of their batch norms (eps 1e-5, that of
    ``nn.BatchNorm2d``), become the one K×K convolution. Exact at the borders if the input is padded in front of
    the 1×1.

    Args:
        state (dict[str, Tensor]): ``pw.weight`` (C, I, 1, 1); below ``dw.`` those of ``archs.convs.DiverseBranches``,
            weights (C, 1, 1, 1) and (C, 1, K, K), and those of the batch norms, (C,).

    Returns:
        dict[str, Tensor]: ``pw.weight``, ``dw.weight``, ``dw.bias``.
    """

    def with_norm(weight, norm):
        return fold_batch_norm(
            weight, None, *(state[f'dw.{norm}.{name}'] for name in ('running_mean', 'running_var', 'weight', 'bias'))
        )

    def branch(conv, norm):
        return with_norm(state[f'dw.{conv}.weight'], norm)

    kxk = branch('kxk.0', 'kxk.1')
    channels, _, kernel_size, _ = kxk[0].shape
    average = average_kernel(channels, kernel_size, groups=channels).to(kxk[0])
    point, point_bias = branch('point.0', 'point.1')
    weight, bias = add_branches(
        (pad_kernel(point, kernel_size), point_bias),
        sequence_1x1_kxk(branch('point_kxk.0', 'point_kxk.1'), branch('point_kxk.2', 'point_kxk.3'), channels),
        sequence_1x1_kxk(branch('point_average.0', 'point_average.1'), with_norm(average, 'point_average.3'), channels),
        kxk,
    )
    return {'pw.weight': state['pw.weight'], 'dw.weight': weight, 'dw.bias': bias}


def fuse_upsampler(state):
    """The branches of ``pixelshuffle_rep``, 1×1 + 3×3 + (1×1 then 3×3), to the one 3×3 of ``pixelshuffledirect``.

    Args:
        state (dict[str, Tensor]): weight and bias of ``conv1``, ``conv3``, ``conv1x1``, ``conv3x3``.

    Returns:
        dict[str, Tensor]: ``0.weight``, ``0.bias``.
    """

    def branch(name):
        return state[f'{name}.weight'], state[f'{name}.bias']

    conv1, bias1 = branch('conv1')
    weight, bias = add_branches(
        (pad_kernel(conv1, 3), bias1), branch('conv3'), sequence_1x1_kxk(branch('conv1x1'), branch('conv3x3'))
    )
    return {'0.weight': weight, '0.bias': bias}


_DBB_CONVS = ('point.0', 'point_kxk.0', 'point_kxk.2', 'point_average.0', 'kxk.0')
_DBB_NORMS = ('point.1', 'point_kxk.1', 'point_kxk.3', 'point_average.1', 'point_average.3', 'kxk.1')
_NORM_KEYS = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')

# The keys of a block below its prefix, all of them, and its rule.
_RULES = {
    frozenset({'pw.weight', 'dw.weight', 'dw.bias', 'rep1x1.weight', 'rep1x1.bias'}): fuse_rbsb,
    frozenset(
        f'{conv}.{kind}' for conv in ('conv1', 'conv3', 'conv1x1', 'conv3x3') for kind in ('weight', 'bias')
    ): fuse_upsampler,
    frozenset(
        [
            'pw.weight',
            *(f'dw.{conv}.weight' for conv in _DBB_CONVS),
            *(f'dw.{norm}.{key}' for norm in _DBB_NORMS for key in _NORM_KEYS),
        ]
    ): fuse_dbb,
}


def apply_rule(rule, state):
    """Apply a rule in float64, which every dtype of a checkpoint fits, and return to the dtype that was given."""
    dtype = next(value.dtype for value in state.values() if value.is_floating_point())  # a batch norm counts in int64
    fused = rule({key: value.detach().double() for key, value in state.items()})
    return {key: value.to(dtype) for key, value in fused.items()}


def fused_block(build, rule, block):
    """The plain block that takes the place of a re-parameterizable one.

    Args:
        build (callable): makes the plain block; it is called on the meta device, where no random numbers are drawn.
        rule (callable): one of those above.
        block (nn.Module): the one whose weights are fused, of any dtype and device.

    Returns:
        nn.Module: with new weights, in the dtype and on the device of the block.
    """
    with torch.device('meta'):
        plain = build()
    plain.load_state_dict(apply_rule(rule, block.state_dict()), assign=True)
    return plain


def fuse(network, fold_input=False):
    """A copy of a network in which every re-parameterizable block is fused; the network itself is left alone.

    Args:
        network (nn.Module): in training form; a network without such blocks gives a plain copy.
        fold_input (bool): also fold the input that LKDN repeats ``num_in`` times into its first convolution.

    Returns:
        nn.Module: of the same class, dtype, device and training mode, equal in its output.
    """
    if hasattr(network, 'fuse'):  # a block of its own
        return network.fuse().train(network.training)
    fused = copy.deepcopy(network)
    for name, module in list(fused.named_modules()):
        if hasattr(module, 'fuse'):
            fused.set_submodule(name, module.fuse().train(module.training))
    if fold_input:
        fused.fold_input()
    return fused


def fuse_state_dict(state_dict):
    """The state dict of the fused network, from that of the training form.

    Args:
        state_dict (dict): flat (keys to tensors), or a checkpoint that holds such under ``params`` and ``params_ema``.
            It is left alone. What is fused already stays as it is.

    Returns:
        dict: built as the argument was.
    """
    if any(isinstance(value, dict) for value in state_dict.values()):
        return {key: fuse_state_dict(value) if isinstance(value, dict) else value for key, value in state_dict.items()}

    blocks = {}  # every prefix at which a block could stand, with what stands below it
    for key in state_dict:
        parts = key.split('.')
        for cut in range(len(parts)):
            blocks.setdefault('.'.join(parts[:cut]), set()).add('.'.join(parts[cut:]))
    fused = copy.copy(state_dict)  # with the metadata that an OrderedDict from Module.state_dict() carries
    for prefix, below in blocks.items():
        rule = _RULES.get(frozenset(below))
        if rule is None:
            continue
        start = f'{prefix}.' if prefix else ''
        for key in below:
            del fused[start + key]
        fused.update(
            (start + key, value)
            for key, value in apply_rule(rule, {key: state_dict[start + key] for key in below}).items()
        )
    return fused
