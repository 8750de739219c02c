"""Check that the networks can be built, and that the checkpoints in ``path`` exist and fit them."""

import contextlib
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError, one_line
from lkdn_basicsr.files import exists
from lkdn_basicsr.options.option_file import Keys, OptionFile, format_value
from lkdn_basicsr.options.registries import registered

# No network for images is larger. Without limits, a wrong option would take all memory, or forever.
MAX_ARGUMENT, MAX_VALUES, MAX_TENSORS = 100_000, 1_000_000_000, 10_000
_Contents = TypeVar('_Contents')


class TooLarge(ValueError):
    """A network is absurdly large."""


def build_network(options: dict[str, Any]) -> nn.Module:
    """Build ``network_g`` for its shapes only: on the meta device, or on the CPU if its class cannot be built there.

    The generator of torch, from which a network on the CPU draws its weights, is left as it is.
    """
    # What constructors print and warn about is shown when the network that is used is built.
    silence = contextlib.redirect_stdout(io.StringIO())
    with warnings.catch_warnings(action='ignore'), silence, torch.random.fork_rng(devices=[]):
        try:
            with torch.device('meta'):
                return construct(options, math.inf)
        except TooLarge:
            raise
        except Exception:  # some constructors, as SwinIR's, read values of the tensors that they create
            return construct(options)


def construct(options: dict[str, Any], max_values: float = MAX_VALUES) -> nn.Module:
    """Return the network of a config, or raise TooLarge, see :func:`limit_size`, or what the constructor raises."""
    arguments = {name: value for name, value in options.items() if name != 'type'}
    for name, value in arguments.items():
        if not _largest(value) <= MAX_ARGUMENT:  # NaN is not either
            raise TooLarge(f'{name} is {format_value(value)}, but must be at most {MAX_ARGUMENT}')
    with limit_size(max_values):
        network = registered(ARCH_REGISTRY)[options['type']](**arguments)
    for name, parameter in network.named_parameters():
        if parameter.numel() == 0:
            raise ValueError(f'{name} has no values, but the shape {tuple(parameter.shape)}')
    return network


@contextlib.contextmanager
def limit_size(values: float = math.inf, tensors: int = MAX_TENSORS) -> Iterator[None]:
    """Raise TooLarge where a network gets more parameters, before it takes much memory or time."""
    found = [0, 0]

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        found[0] += 0 if parameter is None else parameter.numel()
        found[1] += 1
        if found[0] > values or found[1] > tensors:
            raise TooLarge(f'it has more than {values:,} parameters, or more than {tensors:,} tensors of them')

    # It is called when a parameter is allocated, which takes no memory, and before it is initialized.
    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _largest(value: Any) -> float:
    """Return the largest absolute number in the value of an argument, or 0."""
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    if isinstance(value, dict):
        return _largest([*value.values()])
    return abs(value) if isinstance(value, int | float) else 0


def check_networks(option_file: OptionFile) -> None:
    """Build every network of options that ``check_schema`` has checked.

    Raises:
        InputError: A network refuses its arguments.
    """
    for key, options in option_file.opt.networks().items():
        try:
            build_network(options)
        except Exception as error:  # a constructor may raise anything
            raise option_file.error((key,), f'is refused by {options["type"]}: {one_line(error)}') from error


def check_checkpoints(option_file: OptionFile, is_train: bool, resuming: bool, fetch: bool = True) -> None:
    """Check the files that ``path`` names, after ``check_schema``; download official weights that are missing.

    Args:
        resuming: Whether training resumes from a state, so that the pretrained weights are not read.
        fetch: Whether to download; if not, a note is added to ``option_file.notes``.

    Raises:
        InputError: A file is missing, damaged, not a checkpoint, or of another network; a test names none.
    """
    path = option_file.opt['path']
    state = path.get('resume_state')
    if is_train and state is not None:
        _read(option_file, ('path', 'resume_state'), state, checkpoints.load)
    if not is_train and path.get('pretrain_network_g') is None:
        raise option_file.error(('path',), 'has no pretrain_network_g, so there is nothing to test; give a checkpoint')
    for network, options in option_file.opt.networks().items():
        key = f'pretrain_{network}'
        file = path.get(key)
        if resuming or file is None:
            continue
        suffix = network.removeprefix('network_')
        if not fetch and not os.path.exists(file) and os.path.basename(file) in checkpoints.OFFICIAL_SHA256:
            option_file.notes.append(f"{file} does not exist and will be downloaded from the authors' repository.")
            continue
        try:
            checkpoints.ensure(file)
        except InputError as error:
            raise option_file.error(('path', key), f'is {file}, which does not exist: {one_line(error)}') from error
        param_key = path.get(f'param_key_{suffix}', 'params')
        checkpoint = _read(option_file, ('path', key), file, checkpoints.read, param_key)
        strict = path.get(f'strict_load_{suffix}', True)
        form = checkpoint.weights, strict, is_train, option_file.opt['model_type']
        reason = checkpoints.describe_mismatch(build_network(options), *form)
        if reason:
            raise option_file.error(('path', key), f'is {file}, which does not fit {network}: {reason}')


def _read(option_file: OptionFile, keys: Keys, file: str, read: Callable[..., _Contents], *arguments: Any) -> _Contents:
    """Return what ``read(file, *arguments)`` returns; an error names the option."""
    if not exists(file):
        raise option_file.error(keys, f'is {file}, which does not exist; correct the path or copy the file there')
    if not os.path.isfile(file) or os.path.getsize(file) == 0:
        raise option_file.error(keys, f'is {file}, which is empty or not a file; give a checkpoint')
    try:
        return read(file, *arguments)
    except InputError as error:
        raise option_file.error(keys, f'is unusable: {one_line(error)}') from error
