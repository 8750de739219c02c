"""Open a super-resolution network of any kind from its file. Nothing in the file is executed."""

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
from typing import Any

import safetensors.torch
import torch
from torch import nn

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError, one_line
from lkdn_basicsr.evaluate.loading.detect import detect_network
from lkdn_basicsr.evaluate.loading.from_config import from_config, from_option_file
from lkdn_basicsr.evaluate.loading.wrappers import suppress_output
from lkdn_basicsr.options.option_file import format_value, read_option_file

PROBE_SIZE = 32  # height and width in pixels of the image that every network is run on when it is loaded


@dataclasses.dataclass
class LoadedNetwork:
    """A network that is ready to use.

    Attributes:
        network: In evaluation mode, float32, on the CPU. Maps (1, 3, H, W) RGB in [0, 1], of any size, to
            (1, 3, scale·H, scale·W); the output is not necessarily clipped.
        digest: SHA-256 in hexadecimal of everything that determines the output: the file of the weights, and the
            config if an option file describes the network.
    """

    network: nn.Module
    scale: int
    name: str  # of the method, see :func:`method_name`
    path: str  # as it was given
    digest: str


def load(path: str | os.PathLike[str], scale: int | None = None) -> LoadedNetwork:
    """Load a network from a checkpoint or an option file.

    A checkpoint is opened by the first of these that its weights fit: the config that was saved in it (``network_g``);
    the option file in the folder of its run (``NAME/*.yml`` for ``NAME/models/net_g_*.pth``); its keys and shapes, see
    :func:`detect.detect_network`. LKDN and SPAN are fused. ``params_ema`` is preferred to ``params``, unless an option
    file has ``path:param_key_g``.

    Args:
        path: A checkpoint (.pth or .safetensors; missing official weights are downloaded), or an option file (.yml)
            whose ``network_g`` is in BasicSR's registry and whose ``path:pretrain_network_g`` names the weights.
        scale: The scale that the network must have; None accepts any.

    Raises:
        InputError: The file cannot be read, its network is unknown, has another scale, or is not for RGB images.
    """
    path = os.fspath(path)
    is_option_file = path.lower().endswith(('.yml', '.yaml'))
    network, digest = _load_option_file(path) if is_option_file else _load_checkpoint(path)
    found = _infer_scale(network.float().eval().requires_grad_(False), path)
    if scale is not None and found != scale:
        raise InputError(f'{path} is a ×{found} network, but --scale is {scale}: give a ×{scale} network')
    return LoadedNetwork(network, found, method_name(path), path, digest)


def method_name(path: str) -> str:
    """Return the name of a method in tables: the run's name for ``NAME/models/net_g_*.pth``, else the file's stem."""
    return os.path.basename(_run_folder(path) or os.path.splitext(path)[0])


def _load_option_file(path: str) -> tuple[nn.Module, str]:
    option_file = read_option_file(path)
    paths: Any = option_file.opt.get('path')
    file = paths.get('pretrain_network_g') if isinstance(paths, dict) else None
    if not isinstance(file, str):
        raise option_file.error(('path',), 'has no pretrain_network_g; give the checkpoint of the network')
    file, param_key = os.path.expanduser(file), paths.get('param_key_g', 'params')
    if not isinstance(param_key, str | None):
        raise option_file.error(('path', 'param_key_g'), f'is {format_value(param_key)}, but must be text or ~')
    weights = _read_checkpoint(file, param_key).weights
    return from_option_file(option_file, weights), _digest(file, option_file.opt['network_g'], param_key)


def _load_checkpoint(path: str) -> tuple[nn.Module, str]:
    checkpoint = _read_checkpoint(path)
    weights = checkpoint.weights
    network = from_config(checkpoint.config, weights)
    if network is None:
        run_config = _config_of_run(path)
        network = from_config(run_config, weights)
        if network is not None:
            return network, _digest(path, run_config)
        network = detect_network(weights)
    if network is None:
        raise InputError(
            f'{path} contains weights of a network that lkdn_basicsr, BasicSR and spandrel cannot detect: give a test '
            'option file (.yml) instead, with the network as network_g and this file as path:pretrain_network_g'
        )
    return network, _digest(path)


def _run_folder(path: str) -> str | None:
    """Return the folder ``NAME`` of the run that saved ``NAME/models/net_g_*.pth``; None for any other file."""
    folder, file = os.path.split(os.path.abspath(path))
    return os.path.dirname(folder) if os.path.basename(folder) == 'models' and file.startswith('net_g_') else None


def _config_of_run(path: str) -> Any:
    """Return ``network_g`` of the newest option file in the folder of the run that saved a checkpoint, or None."""
    root = _run_folder(path)
    files = glob.glob(os.path.join(glob.escape(root), '*.yml')) if root else []
    for file in sorted(files, key=os.path.getmtime, reverse=True):
        with contextlib.suppress(InputError, KeyError):  # not an option file, or of something else
            return read_option_file(file).opt['network_g']
    return None


def _read_checkpoint(path: str, param_key: str | None = None) -> checkpoints.Checkpoint:
    """Read a checkpoint of either format; download official weights."""
    checkpoints.ensure(path)
    if not path.lower().endswith('.safetensors'):
        return checkpoints.read(path, param_key)
    with open(path, 'rb') as file:
        contents = file.read()
    try:
        weights = safetensors.torch.load(contents)
    except Exception as error:  # of the parser in Rust, of torch for the dtypes that it names
        raise InputError(f'{path} cannot be read ({one_line(error)}): copy or download it again') from None
    return checkpoints.parse(weights, path)


def _digest(file: str, *description: Any) -> str:
    """Return the SHA-256 of a file and of the parts of an option file that describe its network."""
    digest = checkpoints.sha256(file)
    text = json.dumps([digest, *description], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest() if description else digest


def _infer_scale(network: nn.Module, path: str) -> int:
    """Return the upscaling factor of a super-resolution network for RGB images, by running it on a small image."""
    try:
        _, channels, _, width = _probe_shape(network, in_channels=3)
    except Exception as error:  # third-party code may raise anything
        try:
            _probe_shape(network, in_channels=1)
        except Exception:
            raise InputError(
                f'{path} cannot upscale an RGB image of {PROBE_SIZE}×{PROBE_SIZE} pixels ({one_line(error)}): correct '
                'the options that describe it, or leave it out'
            ) from None
        channels = 1
    if channels == 1:
        raise InputError(f'{path} is a network for single-channel images: give one with RGB input and output')
    if channels != 3 or width % PROBE_SIZE:
        raise InputError(f'{path} does not map RGB images to RGB images: give a super-resolution network')
    return width // PROBE_SIZE


def _probe_shape(network: nn.Module, in_channels: int) -> torch.Size:
    """Return the (N, C, H, W) of the output for a small gray image; raises whatever the network raises."""
    with torch.inference_mode(), suppress_output():
        output = network(torch.full((1, in_channels, PROBE_SIZE, PROBE_SIZE), 0.5))
    if not torch.is_tensor(output) or output.dim() != 4:
        raise TypeError('it does not return an image')
    return output.shape
