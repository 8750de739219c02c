"""Whether the networks can be built, and whether the checkpoints named under ``path`` are there and fit them."""

import os
import warnings

import torch
from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError, one_line
from lkdn_basicsr.options.registries import CONSTRUCTOR_ERRORS, registered


def build_network(options):
    """Builds a network for its shapes alone: without memory for its weights, where its code allows that.

    Args:
        options (dict): ``type`` and arguments, as in ``network_g``.

    Returns:
        nn.Module: On the meta device, or on the CPU.
    """
    cls = registered(ARCH_REGISTRY)[options['type']]
    arguments = {name: value for name, value in options.items() if name != 'type'}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the network is built once more to be used, and warns then
        try:
            with torch.device('meta'):
                return cls(**arguments)
        except CONSTRUCTOR_ERRORS:  # some, as SwinIR, compute with the numbers in their own tensors when they are built
            return cls(**arguments)


def check_networks(source):
    """Builds every network of the options.

    Args:
        source (OptionFile): Options that :func:`check_schema` has passed.

    Raises:
        InputError: A network refuses its arguments.
    """
    for key, options in source.opt.items():
        if key.startswith('network_') and isinstance(options, dict):
            try:
                build_network(options)
            except CONSTRUCTOR_ERRORS as err:
                raise source.error((key,), f'is refused by {options["type"]}: {one_line(err)}') from err


def check_checkpoints(source, is_train, resuming, fetch=True):
    """Checks the files that ``path`` names; official weights that are missing are fetched.

    Args:
        source (OptionFile): Options that :func:`check_schema` has passed.
        is_train (bool): Whether the options are to train by.
        resuming (bool): Whether training goes on from a state, so that the pretrained weights are not read.
        fetch (bool): Whether to download official weights that are missing; if not, that is noted. Default: True.

    Raises:
        InputError: A file is missing, damaged, no checkpoint, or of another network; a test names none.
    """
    path = source.opt['path']
    state = path.get('resume_state')
    if is_train and state is not None:
        _load(source, ('path', 'resume_state'), state)
    if not is_train and path.get('pretrain_network_g') is None:
        raise source.error(('path',), 'has no pretrain_network_g, so there is nothing to test; give a checkpoint')
    for network, options in source.opt.items():
        key = f'pretrain_{network}'
        file = path.get(key)
        if resuming or not network.startswith('network_') or file is None:
            continue
        suffix = network.removeprefix('network_')
        if not fetch and not os.path.exists(file) and os.path.basename(file) in checkpoints.OFFICIAL_SHA256:
            source.notes.append(f"{file} is not there and will be downloaded from the authors' repository.")
            continue
        try:
            checkpoints.ensure(file)
        except InputError as err:
            raise source.error(('path', key), f'is {file}, which is not there: {one_line(err)}') from err
        checkpoint = _load(source, ('path', key), file)
        reason = checkpoints.describe_mismatch(
            build_network(options),
            checkpoint,
            path.get(f'param_key_{suffix}', 'params'),
            path.get(f'strict_load_{suffix}', True),
            is_train,
            source.opt['model_type'],
            ema=is_train and source.opt['train'].get('ema_decay', 0) > 0,
        )
        if reason:
            raise source.error(('path', key), f'is {file}, which does not fit {network}: {reason}')


def _load(source, keys, file):
    if not os.path.exists(file):
        raise source.error(keys, f'is {file}, which does not exist; correct the path or copy the file there')
    if not os.path.isfile(file) or os.path.getsize(file) == 0:
        what = 'an empty file' if os.path.isfile(file) else 'a folder'
        raise source.error(keys, f'is {file}, which is {what}; give a checkpoint')
    try:
        return checkpoints.load(file)
    except InputError as err:
        raise source.error(keys, f'is unusable: {one_line(err)}') from err
