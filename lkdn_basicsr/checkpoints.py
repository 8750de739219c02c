"""Checkpoint files: reading and writing them, downloading the official ones, fitting weights to a network.

The weights of a file reach a fused network by ``load``, ``pick_weights``, ``fit`` and ``reparam.fuse``, in this order.
"""

import copy
import hashlib
import io
import logging
import os
import re
import socket
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

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
_COMMENT, _DIGITS = b'lkdn_basicsr SHA-256 ', 64  # of all bytes before the digits, which end the file
_BLOCK = 1 << 20
IS_FUSED = (
    'is fused and network_g is in training form, which cannot be restored from it; give a checkpoint in training form, '
    'or conv: BSConvU and upsampler: pixelshuffledirect'
)


def ensure(path: str) -> None:
    """Download a checkpoint if it is missing and is one of the official files, by its name.

    Its progress is shown on a terminal. The file is checked by SHA-256, and renamed when it is complete. Raises
    InputError if it fails.
    """
    name = os.path.basename(path)
    if os.path.isfile(path):
        return
    if name not in OFFICIAL_SHA256:
        known = f'give the path of a .pth file, or one of the names that are downloaded, {", ".join(OFFICIAL_SHA256)}'
        raise InputError(f'checkpoint {path} does not exist: {known}')
    other = "or from the authors' repository github.com/stella-von/LKDN, "
    download(f'{OFFICIAL_URL}/{name}', path, OFFICIAL_SHA256[name], other)


def download(url: str, path: str, sha256: str, other: str = '') -> None:
    """Download a file. It shows its progress, and is renamed when it is complete and its SHA-256 begins like that.

    Raises InputError if it fails; ``other`` names other places to get the file from.
    """
    logging.getLogger('basicsr').warning(f'Downloading {url} to {path}')
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(30)  # torch.hub sets none, and some firewalls drop packets silently
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        torch.hub.download_url_to_file(url, path, sha256, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # network and HTTP errors are OSErrors, a wrong checksum a RuntimeError
        how = f'fetch {url} on another machine, {other}and put it at {path}'
        raise InputError(f'{os.path.basename(path)} could not be downloaded ({error}): {how}') from None
    finally:
        socket.setdefaulttimeout(timeout)


def network_entry(network: nn.Module, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the entry ``network_g`` of a checkpoint: ``type`` and arguments, from which the network can be rebuilt.

    An LKDN describes its present form by its ``config``; others are described by their options in the option file.
    """
    config = getattr(network, 'config', None)
    return copy.deepcopy(dict(config if isinstance(config, dict) else options or {}))


def save(contents: Mapping[str, Any], path: str) -> str:
    """Write what :func:`load` can read (tensors, numbers, strings, lists, dicts); return the SHA-256 of the file.

    The write is atomic: a run may be killed, or the disk fill up, at any moment. Raises InputError if it fails.
    """
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    checksum = _append_checksum(buffer)
    try:
        files.replace(path, buffer.getbuffer())
    except OSError as error:
        fix = 'earlier checkpoints are intact; check the disk and its permissions, then resume with --auto_resume'
        raise InputError(f'{path} could not be written ({error.strerror}): {fix}') from None
    return checksum


def _append_checksum(buffer: io.BytesIO) -> str:
    """Append the SHA-256 of a ZIP archive to it, as its comment; return the SHA-256 of the result.

    The checksums in the archive do not cover the archive itself: one in 600 flipped bits changes what is loaded.
    """
    buffer.seek(-2, os.SEEK_END)  # the last two bytes are the length of the comment
    buffer.write((len(_COMMENT) + _DIGITS).to_bytes(2, 'little') + _COMMENT)
    digest = hashlib.sha256(buffer.getbuffer())
    digits = digest.hexdigest().encode()
    buffer.write(digits)
    digest.update(digits)
    return digest.hexdigest()


def sha256(path: str) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def load(path: str) -> dict[str, Any]:
    """Load a checkpoint to the CPU, without running its code; raise InputError if it is missing, damaged or no dict."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f'checkpoint {path} is not a file: give the path of a .pth file')
    try:
        file = open(path, 'rb')
    except FileNotFoundError:
        raise InputError(f'checkpoint {path} does not exist: give the path of a .pth file') from None
    except OSError as error:
        raise InputError(f'checkpoint {path} cannot be read ({error.strerror}): make it readable') from None
    with file:
        try:
            _verify(file)
            file.seek(0)
            with warnings.catch_warnings(action='ignore'):  # about old protocols and layouts, which load or fail anyway
                checkpoint = torch.load(file, map_location='cpu', weights_only=True)
        except Exception as error:  # torch.load raises whatever zipfile, pickle and the system raise
            if 'Weights only' in str(error) and _is_pickle(file):
                reason = 'contains more than tensors, which could run code when it is loaded'
                raise InputError(f'checkpoint {path} {reason}: save only its state_dict() with torch.save') from None
            reason = 'is damaged, or no PyTorch checkpoint'
            raise InputError(f'checkpoint {path} {reason}: copy or download it again') from None
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise InputError(f"checkpoint {path} contains a {kind}, not a state dict: give a .pth file in BasicSR's format")
    return checkpoint


def _verify(file: BinaryIO) -> None:
    """Raise ValueError if a file does not match its checksum, or would need more memory than its size.

    Files of earlier releases, of BasicSR and of the authors have no checksum, but those of the ZIP archive, which
    torch.load ignores. A file without either, in PyTorch's format before 1.6, is not verified.
    """
    size, end = file.seek(0, os.SEEK_END), len(_COMMENT) + _DIGITS
    file.seek(-min(size, end), os.SEEK_END)
    comment = file.read()
    if comment.startswith(_COMMENT):
        file.seek(0)
        digest = hashlib.sha256()
        for start in range(0, size - _DIGITS, _BLOCK):
            digest.update(file.read(min(_BLOCK, size - _DIGITS - start)))
        if digest.hexdigest().encode() != comment[-_DIGITS:]:
            raise ValueError('it does not match its checksum')
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > size:  # torch.save does not compress
                raise ValueError('it is compressed, or its entries overlap')
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f'{damaged} does not match its checksum')


def _is_pickle(file: BinaryIO) -> bool:
    """Return whether torch.save or pickle wrote a file; torch reports "Weights only" for any other file as well."""
    file.seek(0)
    return file.read(1) == b'\x80' or zipfile.is_zipfile(file)


def pick_weights(checkpoint: Mapping[str, Any], param_key: str | None = None) -> tuple[dict[str, Tensor], str | None]:
    """Return the state dict in a checkpoint, without leading ``module.``, and its key.

    Args:
        checkpoint: from :func:`load`, with the state dict under ``params_ema`` or ``params``, or flat.
        param_key: ``params``, ``params_ema``, or None for a flat file, as in BasicSR. If it is missing, the other key
            is used, then the file as a flat one.
    """
    keys = [key for key in (param_key, 'params_ema', 'params') if key is not None and key in checkpoint]
    key = keys[0] if keys else None
    weights: Any = checkpoint if key is None else checkpoint[key]
    if any(name.startswith('module.') for name in weights):
        metadata = getattr(weights, '_metadata', {})
        weights = OrderedDict((name.removeprefix('module.'), value) for name, value in weights.items())
        # Earlier releases stored the arguments of the network in it, see archs.config_from_state_dict.
        weights._metadata = {name.removeprefix('module').removeprefix('.'): value for name, value in metadata.items()}
    return weights, key


def fit(network: nn.Module, weights: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a network and weights in a common form, so that the weights load strictly: either or both may get fused.

    Raises InputError if the weights belong to another network; the message is how they differ.
    """
    if _shapes(network.state_dict()) == _shapes(weights):
        return network, weights
    fused_weights = reparam.fuse_state_dict(weights)
    if _shapes(network.state_dict()) == _shapes(fused_weights):
        return network, fused_weights
    fused = reparam.fuse(network)
    if _shapes(fused.state_dict()) == _shapes(fused_weights):
        return fused, fused_weights
    raise InputError(_difference(_shapes(network.state_dict()), _shapes(weights)))


def _shapes(state_dict: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state_dict.items() if hasattr(value, 'shape')}


def _difference(wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> str:
    for key, shape in wanted.items():
        if key not in found:
            return f'the network has {key} and the checkpoint has not'
        if found[key] != shape:
            return f'{key} is {found[key]} in the checkpoint and {shape} in the network'
    return f'the checkpoint has {next(iter(found.keys() - wanted.keys()))} and the network has not'


def describe_mismatch(
    network: nn.Module,
    checkpoint: Mapping[str, Any],
    param_key: str | None = 'params',
    strict: bool = True,
    is_train: bool = False,
    model_type: str = 'ReparamSRModel',
    ema: bool = False,
) -> str | None:
    """Return why a model class could not load a checkpoint into a network, as a clause; None if it can.

    ``param_key`` and ``strict`` are ``path:param_key_g`` and ``path:strict_load_g``.

    Args:
        network: built from ``network_g``; it may be on the meta device.
        is_train: a network in training form cannot be trained from a fused checkpoint.
        model_type: ReparamSRModel loads any form of a checkpoint, others what BasicSR's load_network loads.
        ema: there are EMA weights to load, which BasicSR's SRModel expects under ``params_ema`` whatever
            ``param_key_g`` is.
    """
    if model_type == 'ReparamSRModel':
        weights, _ = pick_weights(checkpoint, param_key)
    elif param_key is None:
        weights = dict(checkpoint)
        if ema and is_train and not {'params_ema', 'params'} & set(checkpoint):
            reason = f'it is flat, and {model_type} with train:ema_decay expects params_ema in it'
            return f'{reason}; use model_type: ReparamSRModel, which loads it'
    else:
        weights = checkpoint.get(param_key, checkpoint.get('params'))
        if weights is None:
            return f'it has no {param_key}; set path:param_key_g to ~ for a flat file, or model_type: ReparamSRModel'
    if not isinstance(weights, dict):
        return f'it contains a {type(weights).__name__} in place of the weights'
    weights = {name.removeprefix('module.'): value for name, value in weights.items()}
    if not strict:
        wanted, found = _shapes(network.state_dict()), _shapes(weights)
        return None if wanted.items() & found.items() else _difference(wanted, found)
    try:
        fitting, _ = fit(network, weights)
    except InputError as error:
        return str(error)
    if fitting is not network and is_train:
        return f'it {IS_FUSED}'
    if model_type != 'ReparamSRModel' and _shapes(network.state_dict()) != _shapes(weights):
        return f'one of them is fused and the other is not; {model_type} cannot load that, ReparamSRModel can'
    return None


def list_training_states(folder: str) -> list[tuple[int, str]]:
    """Return iteration and path of the training states in a folder, newest first; other files are ignored."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    states = [name for name in names if re.fullmatch(r'\d+\.state', name)]
    return sorted(((int(name.partition('.')[0]), os.path.join(folder, name)) for name in states), reverse=True)


def iteration_of(name: str) -> int | None:
    """Return the iteration in a file name such as ``net_g_4.pth``, ``net_g_4_fused.pth`` or ``4.state``."""
    found = re.fullmatch(r'(?:net_.+_)?(\d+)(?:_fused)?\.(?:pth|state)', name)
    return int(found[1]) if found else None
