"""Check that the networks can be built, and that the checkpoints in ``path`` exist and fit them."""

import os
import warnings
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError, one_line
from lkdn_basicsr.options.option_file import Keys, OptionFile
from lkdn_basicsr.options.registries import CONSTRUCTOR_ERRORS, registered


def build_network(options: dict[str, Any]) -> nn.Module:
    """Build ``network_g`` for its shapes only: on the meta device, or on the CPU if its class cannot be built there."""
    cls = registered(ARCH_REGISTRY)[options['type']]
    arguments = {name: value for name, value in options.items() if name != 'type'}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # they are shown when the network that is used is built
        try:
            with torch.device('meta'):
                return cls(**arguments)
        except CONSTRUCTOR_ERRORS:  # some constructors, as SwinIR's, read values of the tensors that they create
            return cls(**arguments)


def check_networks(option_file: OptionFile) -> None:
    """Build every network of options that ``check_schema`` has checked.

    Raises:
        InputError: A network refuses its arguments.
    """
    for key, options in option_file.opt.networks().items():
        try:
            build_network(options)
        except CONSTRUCTOR_ERRORS as error:
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
        _load(option_file, ('path', 'resume_state'), state)
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
        reason = checkpoints.describe_mismatch(
            build_network(options),
            _load(option_file, ('path', key), file),
            path.get(f'param_key_{suffix}', 'params'),
            path.get(f'strict_load_{suffix}', True),
            is_train,
            option_file.opt['model_type'],
            ema=is_train and option_file.opt['train'].get('ema_decay', 0) > 0,
        )
        if reason:
            raise option_file.error(('path', key), f'is {file}, which does not fit {network}: {reason}')


def _load(option_file: OptionFile, keys: Keys, file: str) -> Any:
    if not os.path.exists(file):
        raise option_file.error(keys, f'is {file}, which does not exist; correct the path or copy the file there')
    if not os.path.isfile(file) or os.path.getsize(file) == 0:
        raise option_file.error(keys, f'is {file}, which is empty or not a file; give a checkpoint')
    try:
        return checkpoints.load(file)
    except InputError as error:
        raise option_file.error(keys, f'is unusable: {one_line(error)}') from error
