"""Build networks of BasicSR's registry, plugins included, from their config.

A config is a dict with ``type`` and the init arguments: ``network_g`` of an option file, or of a checkpoint.
"""

import contextlib
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from lkdn_basicsr import checkpoints, reparam
from lkdn_basicsr.errors import one_line
from lkdn_basicsr.evaluate.loading.wrappers import pad_to_window, suppress_output
from lkdn_basicsr.options.check_networks import construct, limit_size
from lkdn_basicsr.options.option_file import OptionFile
from lkdn_basicsr.options.registries import find_registered


def limit_to(weights: dict[str, torch.Tensor]) -> contextlib.AbstractContextManager[None]:
    """Raise TooLarge where a network gets much larger than its weights, which may be fused."""
    return limit_size(10 * sum(value.numel() for value in weights.values()), 10 * len(weights))


def from_config(config: Any, weights: dict[str, torch.Tensor]) -> nn.Module | None:
    """Return the network with the weights, fused; None if the config is invalid or the weights do not fit it.

    Args:
        config: Anything; it may come from an untrusted checkpoint.
    """
    try:
        with suppress_output(), limit_to(weights):
            network = construct(config)
        return _load_weights(network, weights)
    except Exception:  # nobody has checked the config: it may be of any type, and the constructor may raise anything
        return None


def from_option_file(option_file: OptionFile, weights: dict[str, torch.Tensor]) -> nn.Module:
    """Return the network of ``network_g`` with the weights, fused.

    Raises:
        InputError: ``network_g`` is not the config of a network that can be built, or the weights do not fit it.
    """
    keys, config = ('network_g',), option_file.opt.get('network_g')
    if not isinstance(config, dict):
        raise option_file.error(keys, 'does not describe a network; give its type and arguments')
    find_registered(option_file, keys, ARCH_REGISTRY, 'network')
    reason = f'is refused by {config["type"]}'
    try:
        with suppress_output():
            network = construct(config)
        reason = 'does not fit the checkpoint'
        return _load_weights(network, weights)
    except Exception as error:  # of the constructor; InputError; or what a network's own fuse() raises
        raise option_file.error(keys, f'{reason}: {one_line(error)}') from None


def _load_weights(network: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
    network, weights = checkpoints.fit(network, weights)
    network.load_state_dict(weights)
    return pad_to_window(reparam.fuse(network))
