"""Whether the networks can be built, and whether the checkpoints named under ``path`` are there and fit them."""

import importlib
import os
import pickle
import warnings
import zipfile

import torch
from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check import REFUSALS, one_line, registered


def _checkpoints():
    """Our own module on checkpoints, where this package has it: official weights, fused and wrapped forms."""
    if importlib.util.find_spec('lkdn_basicsr.checkpoints') is None:
        return None
    return importlib.import_module('lkdn_basicsr.checkpoints')


def check_networks(source):
    """Builds every network of the options, without memory for its weights where its code allows.

    Args:
        source (OptionFile): Options that :func:`check_options` has passed.

    Returns:
        dict[str, dict[str, torch.Size]]: For each ``network_*``, the shapes of its state dict.

    Raises:
        InputError: A network refuses its arguments.
    """
    shapes = {}
    for key, options in source.opt.items():
        if not key.startswith('network_') or not isinstance(options, dict):
            continue
        cls = registered(ARCH_REGISTRY)[options['type']]
        arguments = {name: value for name, value in options.items() if name != 'type'}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # the network is built once more, and warns then
                network = _build(cls, arguments)
        except REFUSALS as err:
            raise source.error((key,), f'is refused by {options["type"]}: {one_line(err)}') from err
        shapes[key] = {name: tensor.shape for name, tensor in network.state_dict().items()}
    return shapes


def _build(cls, arguments):
    try:
        with torch.device('meta'):
            return cls(**arguments)
    except REFUSALS:  # some networks compute with the numbers in their own tensors when they are built
        return cls(**arguments)


def load_checkpoint(path, label=None):
    """A checkpoint read as tensors and nothing else, on the CPU.

    Args:
        path (str): File.
        label (str | None): Begins the message; for example where the path was given. Default: the path.

    Returns:
        object: What the file holds, usually a dict.

    Raises:
        InputError: The file is missing, empty, cut short, damaged, no checkpoint, or would run code when loaded.
    """
    label = label or path
    if not os.path.exists(path):
        raise InputError(f'{label} does not exist; correct the path or copy the file there')
    if not os.path.isfile(path):
        raise InputError(f'{label} is a folder, but must be a checkpoint file (.pth)')
    if os.path.getsize(path) == 0:
        raise InputError(f'{label} is an empty file; copy it again')
    try:
        with open(path, 'rb') as f:
            zipped = f.read(4) == b'PK\x03\x04'
        if zipped:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch.load itself does not look at the checksums
            if damaged:
                raise InputError(f'{label} is damaged ({damaged} does not match its checksum); copy it again')
        return torch.load(path, map_location='cpu', weights_only=True)
    except zipfile.BadZipFile as err:
        raise InputError(f'{label} is cut short or damaged; copy it again') from err
    except pickle.UnpicklingError as err:
        if zipped:
            raise InputError(
                f'{label} holds something other than tensors, which could run code, and is not loaded; '
                'save its state dict again with plain torch.save'
            ) from err
        raise InputError(
            f'{label} is not a checkpoint of torch.save, or is damaged; correct the path or copy it again'
        ) from err
    except (EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as err:
        raise InputError(
            f'{label} is not a checkpoint of torch.save, or is damaged; correct the path or copy it again'
        ) from err


def describe_mismatch(shapes, loaded, param_key, strict):
    """Why the weights in a checkpoint do not fit a network as BasicSR loads them; None when they do.

    Args:
        shapes (dict[str, torch.Size]): The state dict of the network.
        loaded (dict): The checkpoint.
        param_key (str | None): Key of the weights; None for a file that is a state dict itself.
        strict (bool): Whether every key must fit; otherwise one must.
    """
    if not isinstance(loaded, dict):
        return f'holds a {type(loaded).__name__}, not weights'
    if param_key is not None:
        if param_key not in loaded and 'params' in loaded:
            param_key = 'params'
        if param_key not in loaded:
            if loaded and all(isinstance(value, torch.Tensor) for value in loaded.values()):
                return f'holds weights without the key {param_key}; leave `param_key_…: ~` empty for it'
            return f'has no key {param_key}; it has {", ".join(map(str, list(loaded)[:5]))}'
        loaded = loaded[param_key]
    elif 'params' in loaded and not isinstance(loaded['params'], torch.Tensor):
        return f'holds weights under {", ".join(map(str, loaded))}; name one of these as param_key'
    if not isinstance(loaded, dict):
        return f'holds a {type(loaded).__name__} under {param_key}, not weights'
    loaded = {str(key).removeprefix('module.'): getattr(value, 'shape', None) for key, value in loaded.items()}
    missing = [key for key in shapes if key not in loaded]
    extra = [key for key in loaded if key not in shapes]
    wrong = [key for key in shapes if key in loaded and shapes[key] != loaded[key]]
    if strict and missing:
        return f'is of another network: it lacks {missing[0]} and {len(missing) - 1} other tensors'
    if strict and extra:
        return f'is of another network: its {extra[0]} and {len(extra) - 1} other tensors have no place'
    if strict and wrong:
        return (
            f'is of another network: its {wrong[0]} is {tuple(loaded[wrong[0]] or ())}, '
            f'but must be {tuple(shapes[wrong[0]])}'
        )
    if len(missing) + len(wrong) == len(shapes):
        return 'is of another network: not one of its tensors fits'
    return None


def check_weights(source, shapes, is_train, resuming):
    """Checks the files that ``path`` names.

    Args:
        source (OptionFile): Options that :func:`check_options` has passed.
        shapes (dict): From :func:`check_networks`.
        is_train (bool): Whether the options are to train by.
        resuming (bool): Whether training goes on from a state, so that the pretrained weights are not read.

    Raises:
        InputError: A file is missing, damaged, no checkpoint, or of another network; a test names none.
    """
    path = source.opt['path']
    ours = _checkpoints()
    state = path.get('resume_state')
    if is_train and state is not None:
        _where_missing(source, ('path', 'resume_state'), state)
        load_checkpoint(state, source.where('path', 'resume_state') + f' {state}')
    if not is_train and path.get('pretrain_network_g') is None:
        raise source.error(('path',), 'has no pretrain_network_g, so there is nothing to test; give a checkpoint')
    if resuming:
        return
    for network, network_shapes in shapes.items():
        key = f'pretrain_{network}'
        file = path.get(key)
        if file is None:
            continue
        suffix = network.removeprefix('network_')
        param_key = path.get(f'param_key_{suffix}', 'params')
        strict = path.get(f'strict_load_{suffix}', True)
        if not os.path.exists(file) and ours is not None and hasattr(ours, 'ensure'):
            ours.ensure(file)
        _where_missing(source, ('path', key), file)
        loaded = load_checkpoint(file, source.where('path', key) + f' {file}')
        if ours is not None and hasattr(ours, 'describe_mismatch') and network == 'network_g':
            reason = ours.describe_mismatch(
                source.opt[network], file, param_key, strict, is_train, source.opt['model_type']
            )
        else:
            reason = describe_mismatch(network_shapes, loaded, param_key, strict)
        if reason:
            raise source.error(('path', key), f'{file} {reason}')


def _where_missing(source, keys, file):
    if not os.path.exists(file):
        raise source.error(keys, f'is {file}, which does not exist; correct the path or copy the file there')
