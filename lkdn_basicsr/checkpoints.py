"""Checkpoint files: reading and writing them, downloading the official ones, fitting weights to a network.

The weights of a file reach a fused network by ``read``, ``fit`` and ``reparam.fuse``, in this order.
"""

import copy
import dataclasses
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
from lkdn_basicsr.errors import InputError, one_line, system_error

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
_FIX = 'give a file that contains the state_dict() of a network'
# Of weights, and of buffers such as indices, masks and counters.
_DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
_DTYPES += [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
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
    if files.exists(path):
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
    folder, timeout = os.path.dirname(path) or '.', socket.getdefaulttimeout()
    os.makedirs(folder, exist_ok=True)
    try:
        socket.setdefaulttimeout(30)  # torch.hub sets none, and some firewalls drop packets silently
        torch.hub.download_url_to_file(url, path, sha256, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # network and HTTP errors are OSErrors, a wrong checksum a RuntimeError
        if isinstance(error, OSError) and error.errno and system_error(error):  # a full disk
            raise
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

    The write is atomic: a run may be killed, or the disk fill up, at any moment. Raises OSError if it fails.
    """
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    checksum = _append_checksum(buffer)
    files.replace(path, buffer.getbuffer())
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
    with file:
        try:
            _verify(file)
            file.seek(0)
            with warnings.catch_warnings(action='ignore'):  # about old protocols and layouts, which load or fail anyway
                checkpoint = torch.load(file, map_location='cpu', weights_only=True)
        except Exception as error:  # torch.load raises whatever zipfile, pickle and the system raise
            if isinstance(error, OSError) and system_error(error):  # the file may be intact
                raise
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


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights of a network, validated, and what their file says about it."""

    weights: dict[str, Tensor]  # dense, on the CPU, finite; the names have no leading ``module.``
    key: str | None  # of the weights in the file; None for a flat one
    config: dict[str, Any]  # the entry network_g, of which nothing is validated; empty if there is none


def read(path: str, param_key: str | None = None) -> Checkpoint:
    """Load a checkpoint, see :func:`load` and :func:`parse`."""
    return parse(load(path), path, param_key)


def parse(contents: Mapping[Any, Any], path: str, param_key: str | None = None) -> Checkpoint:
    """Return the weights in the contents of a checkpoint.

    Args:
        contents: from :func:`load`, with the weights under ``params_ema`` or ``params``, or flat. A dict under
            ``params-ema``, ``state_dict``, ``model`` or ``net``, as other trainers save, is found as well.
        path: of the file, for messages.
        param_key: ``params``, ``params_ema``, or None for a flat file, as in BasicSR. If it is missing, the other key
            is used, then the file as a flat one.

    Raises:
        InputError: there are no weights, or what is in their place is not dense numbers, or is NaN or infinite.
    """
    keys = [key for key in (param_key, 'params_ema', 'params') if key is not None and key in contents]
    keys += [key for key in ('params-ema', 'state_dict', 'model', 'net') if isinstance(contents.get(key), dict)]
    key = keys[0] if keys else None
    found = contents if key is None else contents[key]
    weights: dict[str, Tensor] = OrderedDict()
    if not isinstance(found, dict) or not found:
        kind = 'nothing' if isinstance(found, dict) else f'a {type(found).__name__}'
        raise InputError(f'checkpoint {path} has {kind} in place of weights: {_FIX}')
    for name, value in found.items():
        problem = describe_problem(value) if isinstance(name, str) else f'is not a name: {_FIX}'
        if problem:
            raise InputError(f'checkpoint {path}: {one_line(repr(name))} {problem}')
        weights[name.removeprefix('module.')] = value.detach()
    # BasicSR and torch version their modules in it, and the first releases stored the arguments of the network in it.
    metadata = getattr(found, '_metadata', None)
    weights._metadata = {  # type: ignore[attr-defined]
        name.removeprefix('module').removeprefix('.'): module
        for name, module in (metadata.items() if isinstance(metadata, dict) else ())
        if isinstance(name, str) and isinstance(module, dict) and isinstance(module.get('version', 1), int)
    }
    config = contents.get('network_g')
    return Checkpoint(weights, key, config if isinstance(config, dict) else {})


def describe_problem(value: Any) -> str | None:
    """Return why a value cannot be a weight, as the end of a sentence; None if it can."""
    if not isinstance(value, Tensor):
        return f'is of type {type(value).__name__}, not a tensor: {_FIX}'
    if value.layout is not torch.strided or value.is_quantized or value.is_nested or value.is_meta:
        return f'is a sparse, quantized or empty tensor: {_FIX}'
    if value.dtype not in _DTYPES:
        return f'is a tensor of {str(value.dtype).removeprefix("torch.")}: convert it to float32'
    stored = value.untyped_storage().nbytes() // value.element_size()
    if value.numel() > stored or (value.numel() == 0 and max(value.shape) > 0):
        return f'has the shape {tuple(value.shape)}, but the file contains {stored} values: {_FIX}'
    if value.is_floating_point() and not torch.isfinite(value).all():
        return 'contains NaN or infinite values: give a checkpoint of a training that did not diverge'
    return None


def fit(network: nn.Module, weights: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a network and weights in a common form, so that the weights load strictly: either or both may get fused.

    Raises InputError if the weights belong to another network; the message is how they differ.
    """
    wanted, found = _shapes(network.state_dict()), _shapes(weights)
    if wanted == found:
        return network, weights
    try:
        fused_weights = reparam.fuse_state_dict(weights)
    except InputError:  # with shapes that no block has
        raise InputError(_difference(wanted, found)) from None
    if wanted == _shapes(fused_weights):
        return network, fused_weights
    fused = reparam.fuse(network)
    if _shapes(fused.state_dict()) == _shapes(fused_weights):
        return fused, fused_weights
    raise InputError(_difference(wanted, found))


def _shapes(state_dict: Mapping[str, Any]) -> dict[str, str]:
    """Return the shapes of tensors, and which ones contain integers: ``(3, 8)``, ``(3, 8) of integers``."""
    tensors = {key: value for key, value in state_dict.items() if isinstance(value, Tensor)}
    kinds = {True: '', False: ' of integers'}
    return {key: f'{tuple(value.shape)}{kinds[value.is_floating_point()]}' for key, value in tensors.items()}


def _difference(wanted: dict[str, str], found: dict[str, str]) -> str:
    for key, shape in wanted.items():
        if key not in found:
            return f'the network has {key} and the checkpoint has not'
        if found[key] != shape:
            return f'{key} is {found[key]} in the checkpoint and {shape} in the network'
    return f'the checkpoint has {one_line(min(found.keys() - wanted.keys()))} and the network has not'


def describe_mismatch(
    network: nn.Module,
    weights: dict[str, Tensor],
    strict: bool = True,
    is_train: bool = False,
    model_type: str = 'ReparamSRModel',
) -> str | None:
    """Return why a model class could not load weights into a network, as a clause; None if it can.

    Args:
        network: built from ``network_g``; it may be on the meta device.
        strict: ``path:strict_load_g``.
        is_train: a network in training form cannot be trained from a fused checkpoint.
        model_type: ReparamSRModel loads any form of a checkpoint, others only that of the network.
    """
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
    names = os.listdir(folder) if files.exists(folder) else []
    states = [name for name in names if re.fullmatch(r'\d+\.state', name)]
    return sorted(((int(name.partition('.')[0]), os.path.join(folder, name)) for name in states), reverse=True)


def iteration_of(name: str) -> int | None:
    """Return the iteration in a file name such as ``net_g_4.pth``, ``net_g_4_fused.pth`` or ``4.state``."""
    found = re.fullmatch(r'(?:net_.+_)?(\d+)(?:_fused)?\.(?:pth|state)', name)
    return int(found[1]) if found else None
