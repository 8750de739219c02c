"""Checkpoint files: writing and reading them safely, fetching the official ones, fitting weights to a network."""

import hashlib
import io
import logging
import os
import re
import socket
import zipfile
from collections import OrderedDict

import torch

from lkdn_basicsr import files, reparam
from lkdn_basicsr.errors import InputError

OFFICIAL_URL = 'https://github.com/stella-von/LKDN/raw/main/experiments/pretrained_models/LKDN'
OFFICIAL_SHA256 = {
    'LKDN-S_del_rep_x4.pth': 'b802a3945d7d4f22f836668a78448b37fe5da90d7b08afc564fbddfa594a8cf1',
    'LKDN-S_x4.pth': '39ff2c69cdeb40f842c9f93368caee3323a4309c350373edeb2dc9ef3cc05851',
    'LKDN_x2.pth': '02b429e795ad0863fdf21c6924c79344e30a39d637c44442d13124193b012e6b',
    'LKDN_x3.pth': '52835d49d402683ea2085c13e4afc3aca49f6b806ea29d6ed29b2238cd7874c5',
    'LKDN_x4.pth': 'f534422583c99dad994fd7df897f6f872637218430cfedf6c2d2a072ea86dbd7',
}


def ensure(path):
    """Make sure that a checkpoint file is there; one of the official weights is downloaded if it is not.

    The download shows its progress, is checked by SHA-256, and gets its name only when it is whole.

    Args:
        path (str): of a file; the official weights are known by the file's name.

    Raises:
        InputError: it is not there, and cannot be had.
    """
    name = os.path.basename(path)
    if os.path.isfile(path):
        return
    if name not in OFFICIAL_SHA256:
        raise InputError(
            f'checkpoint {path} is not there: give the path of a .pth file, or one of the names that are '
            f'downloaded, {", ".join(OFFICIAL_SHA256)}'
        )
    url = f'{OFFICIAL_URL}/{name}'
    logging.getLogger('basicsr').warning(f'Downloading {url} to {path}')
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(30)  # torch.hub sets none, and some networks swallow what they do not let through
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        torch.hub.download_url_to_file(url, path, hash_prefix=OFFICIAL_SHA256[name])
    except (OSError, RuntimeError) as error:  # no network and HTTP errors are OSErrors, a wrong sum is a RuntimeError
        raise InputError(
            f'{name} could not be downloaded ({error}): fetch {url} on another machine, or from the '
            f"authors' repository github.com/stella-von/LKDN, and put it at {path}"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)


def save(contents, path):
    """Write a checkpoint whole or not at all: a run may be killed, or the disk fill up, at any moment.

    The file gets its name when it is complete and on the disk; until then the old one stays.

    Args:
        contents (dict): what :func:`load` can read: tensors, numbers, texts, lists and dictionaries.
        path (str): of the file.

    Returns:
        str: SHA-256 of the file, in hexadecimal.

    Raises:
        InputError: it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    data = buffer.getbuffer()
    try:
        files.replace(path, data)
    except OSError as error:
        raise InputError(
            f'{path} could not be written ({error.strerror}): the checkpoints before it are whole, so '
            'make it possible to write there, then go on with --auto_resume'
        ) from None
    return hashlib.sha256(data).hexdigest()


def sha256(path):
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def load(path):
    """Load a checkpoint, tensors only, to the CPU.

    Raises:
        InputError: the file is missing, damaged, or not a dictionary.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch.load does not look at the checksums, and loads wrong numbers
            if damaged:
                raise ValueError(f'{damaged} does not match its checksum')
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise InputError(f'checkpoint {path} is not there: give the path of a .pth file') from None
    except Exception as error:  # torch.load raises whatever zipfile, pickle or the system do
        if 'Weights only' in str(error) and _is_pickle(path):
            raise InputError(
                f'checkpoint {path} holds more than tensors, which could run code when it is loaded: save '
                'its state_dict() anew with torch.save'
            ) from None
        raise InputError(f'checkpoint {path} is damaged, or no PyTorch checkpoint: copy or download it again') from None
    if not isinstance(checkpoint, dict):
        raise InputError(
            f'checkpoint {path} holds a {type(checkpoint).__name__}, not a state dict: give a .pth file '
            "of BasicSR's form"
        )
    return checkpoint


def _is_pickle(path):
    """Whether a file is what torch.save writes, now or formerly, or a pickle; torch says the same of any other file."""
    with open(path, 'rb') as file:
        return zipfile.is_zipfile(path) or file.read(1) == b'\x80'


def pick_weights(checkpoint, param_key=None):
    """The state dict in a checkpoint: wrapped as BasicSR saves it, or flat.

    Args:
        checkpoint (dict): as :func:`load` gives it.
        param_key (str | None): ``params``, ``params_ema``, or None for the root, as in BasicSR. What is not there gives
            way to what is: the other key, then the root.

    Returns:
        tuple[dict, str | None]: keys to tensors, without a leading ``module.``; and the key they were found under.
    """
    keys = [key for key in (param_key, 'params_ema', 'params') if key is not None and key in checkpoint]
    key = keys[0] if keys else None
    weights = checkpoint if key is None else checkpoint[key]
    if any(name.startswith('module.') for name in weights):
        metadata = getattr(weights, '_metadata', {})
        weights = OrderedDict((name.removeprefix('module.'), value) for name, value in weights.items())
        # It tells what keys and shapes do not, see archs.config_from_state_dict.
        weights._metadata = {name.removeprefix('module').removeprefix('.'): value for name, value in metadata.items()}
    return weights, key


def fit(network, weights):
    """Bring a network and weights into a form that they have in common: as they are, or either or both fused.

    Args:
        network (nn.Module): described in either form.
        weights (dict): of either form; keys to tensors.

    Returns:
        tuple[nn.Module, dict]: a network and weights that load into it strictly.

    Raises:
        InputError: the weights are those of another network; the sentence says how they differ.
    """
    if _shapes(network.state_dict()) == _shapes(weights):
        return network, weights
    plain = reparam.fuse_state_dict(weights)
    if _shapes(network.state_dict()) == _shapes(plain):
        return network, plain
    fused = reparam.fuse(network)
    if _shapes(fused.state_dict()) == _shapes(plain):
        return fused, plain
    raise InputError(_difference(_shapes(network.state_dict()), _shapes(weights)))


def _shapes(state_dict):
    return {key: tuple(value.shape) for key, value in state_dict.items() if hasattr(value, 'shape')}


def _difference(wanted, found):
    for key, shape in wanted.items():
        if key not in found:
            return f'the network has {key} and the checkpoint has not'
        if found[key] != shape:
            return f'{key} is {found[key]} in the checkpoint and {shape} in the network'
    return f'the checkpoint has {next(iter(found.keys() - wanted.keys()))} and the network has not'


def describe_mismatch(
    network, checkpoint, param_key='params', strict=True, is_train=False, model_type='ReparamSRModel', ema=False
):
    """Why a model class could not load a checkpoint into a network, before it is built in earnest.

    Args:
        network (nn.Module): as ``network_g`` describes it; it may be on the meta device.
        checkpoint (dict): as :func:`load` gives it.
        param_key (str | None), strict (bool): ``path:param_key_g`` and ``path:strict_load_g``.
        is_train (bool): training needs the branches of a network in training form.
        model_type (str): ReparamSRModel takes any form of a checkpoint, others what BasicSR's load_network takes.
        ema (bool): there are EMA weights to load, which BasicSR's SRModel looks for under ``params_ema`` whatever
            ``param_key_g`` says.

    Returns:
        str | None: a clause without a full stop; None if it fits.
    """
    if model_type == 'ReparamSRModel':
        weights, _ = pick_weights(checkpoint, param_key)
    elif param_key is None:
        weights = checkpoint
        if ema and is_train and not {'params_ema', 'params'} & set(checkpoint):
            return (
                f'it is flat, and {model_type} with train:ema_decay looks for params_ema in it; '
                'model_type: ReparamSRModel takes it'
            )
    else:
        weights = checkpoint.get(param_key, checkpoint.get('params'))
        if weights is None:
            return f'it has no {param_key}; set path:param_key_g to ~ for a flat file, or model_type: ReparamSRModel'
    if not isinstance(weights, dict):
        return f'it holds a {type(weights).__name__} where the weights should be'
    weights = {name.removeprefix('module.'): value for name, value in weights.items()}
    if not strict:
        wanted, found = _shapes(network.state_dict()), _shapes(weights)
        return None if wanted.items() & found.items() else _difference(wanted, found)
    try:
        fitting, _ = fit(network, weights)
    except InputError as error:
        return str(error)
    if fitting is not network and is_train:
        return (
            'it is fused and network_g is in training form, whose branches cannot be got back; give a checkpoint '
            'in training form, or conv: BSConvU and upsampler: pixelshuffledirect'
        )
    if model_type != 'ReparamSRModel' and _shapes(network.state_dict()) != _shapes(weights):
        return f'one of them is fused and the other is not; {model_type} does not take that, ReparamSRModel does'
    return None


def list_training_states(folder):
    """The training states in a folder, newest first: a list of (iteration, path). Other names are passed over."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = [
        (int(name[: -len('.state')]), os.path.join(folder, name)) for name in names if re.fullmatch(r'\d+\.state', name)
    ]
    return sorted(found, reverse=True)


def iteration_of(name):
    """The iteration in the name of a checkpoint's file, ``net_g_4.pth``, ``net_g_4_fused.pth`` or ``4.state``."""
    found = re.fullmatch(r'(?:net_.+_)?(\d+)(?:_fused)?\.(?:pth|state)', name)
    return int(found[1]) if found else None


def network_entry(network, options):
    return dict(options or {})
