"""Networks from their files: ours, BasicSR's, those that spandrel knows, and whatever an option file describes."""

import contextlib
import dataclasses
import hashlib
import json
import os

import torch
from torch import nn

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError, one_line
from lkdn_basicsr.evaluate.loading import from_options as described
from lkdn_basicsr.evaluate.loading.detect import detect_network
from lkdn_basicsr.evaluate.loading.wrappers import silence
from lkdn_basicsr.options.option_file import read_option_file

PROBE = 32  # pixels of a side of the picture that every network is tried on before anything is measured


@dataclasses.dataclass
class LoadedNetwork:
    """A network, ready to use.

    Attributes:
        network (nn.Module): in evaluation mode, float32, on the CPU: (1, 3, H, W) RGB in [0, 1], of any size, to
            (1, 3, scale·H, scale·W), perhaps not clipped.
        scale (int): upscaling factor.
        name (str): of the method: the file's stem, or the name of the run that a ``net_g_*.pth`` is of.
        path (str): the file that was given.
        digest (str): SHA-256, in hexadecimal, of what determines the output: the weights' file, and the options where
            an option file describes the network.
    """

    network: nn.Module
    scale: int
    name: str
    path: str
    digest: str


def load(path, scale=None):
    """Load a super-resolution network of any kind from its file; nothing in the file is executed.

    Tried in this order: the option file in the folder of its run (``NAME/*.yml`` for ``NAME/models/net_g_*.pth``),
    where the weights fit the network that it describes; our networks, and BSRN; BasicSR's MSRResNet, EDSR, RCAN and
    RRDBNet, by keys and shapes; and what spandrel knows (SwinIR and SRVGGNetCompact of BasicSR among them, equal to
    BasicSR's to the last bit). Ours are fused, and so is SPAN, as they are used. What is in no key or shape has its
    usual value, see ``detect.py``; where it is another, give an option file, which says it. ``params_ema`` is taken
    before ``params``, but for an option file, whose ``path:param_key_g`` counts.

    Args:
        path (str): a checkpoint (.pth or .safetensors; one of the official weights is downloaded if it is not there),
            or an option file (.yml) whose ``network_g`` describes a network of BasicSR's registry and whose
            ``path:pretrain_network_g`` names its weights.
        scale (int | None): the scale that it must have; None for any.

    Returns:
        LoadedNetwork

    Raises:
        InputError: the file cannot be read, nobody knows its network, it is of another scale, or not for RGB pictures.
    """
    path = os.fspath(path)
    if path.lower().endswith(('.yml', '.yaml')):
        network, digest = _from_option_file(path)
    else:
        network, digest = _from_checkpoint(path)
    network = network.float().eval().requires_grad_(False)
    found = _probe(network, path)
    if scale is not None and found != scale:
        raise InputError(f'{path} is a ×{found} network; --scale is {scale}')
    return LoadedNetwork(network, found, method_name(path), path, digest)


def method_name(path):
    """What a method is called in tables: the stem of its file, or the run's name for ``NAME/models/net_g_*.pth``."""
    root = described.run_folder(path)
    return os.path.basename(root) if root else os.path.splitext(os.path.basename(path))[0]


def _from_option_file(path):
    source = read_option_file(path)
    file, param_key = described.checkpoint_of(source)
    network = described.build(source, _read(file, param_key))
    return network, _digest(file, source.opt['network_g'], param_key)


def _from_checkpoint(path):
    checkpoints.ensure(path)
    weights = _read(path)
    source = described.option_file_of_run(path)
    if source is not None:
        with contextlib.suppress(InputError):
            return described.build(source, weights), _digest(path, source.opt['network_g'])
    network = detect_network(weights)
    if network is None:
        raise InputError(
            f'{path} is of no network that lkdn_basicsr, BasicSR or spandrel know by its weights: give, '
            'in place of the checkpoint, a test option file (.yml) whose network_g describes it and whose '
            'path:pretrain_network_g names it'
        )
    return network, _digest(path)


def _read(path, param_key=None):
    """The weights in a file: keys to tensors."""
    if not path.lower().endswith('.safetensors'):
        try:
            weights, _ = checkpoints.pick_weights(checkpoints.load(path), param_key)
        except AttributeError:  # keys that are no text
            weights = None
        if not isinstance(weights, dict):
            raise InputError(f"checkpoint {path} holds no weights by name: give a .pth file of BasicSR's form")
        return weights
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise InputError(f'checkpoint {path} is not there: give the path of a file') from None
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f'checkpoint {path} cannot be read ({one_line(error)}): copy or download it again') from None


def _digest(file, *description):
    """SHA-256 of a file, and of how an option file describes it."""
    digest = checkpoints.sha256(file)
    if description:
        digest = hashlib.sha256(json.dumps([digest, *description], sort_keys=True).encode()).hexdigest()
    return digest


def _probe(network, path):
    """The scale of a network, by trying it; InputError if it is not one for RGB pictures."""
    output, reason = _try(network, 3)
    if output is None and _try(network, 1)[0] is not None or output is not None and output.shape[1] == 1:
        raise InputError(
            f'{path} is a network for single-channel pictures, which are not compared: give one that '
            'takes and returns RGB'
        )
    if output is None:
        raise InputError(
            f'{path} cannot super-resolve an RGB picture of {PROBE}×{PROBE} pixels ({reason}): correct '
            'the options that describe it, or leave it out'
        )
    if output.shape[1] != 3 or output.shape[-1] % PROBE:
        raise InputError(f'{path} does not turn an RGB picture into one: give a super-resolution network')
    return output.shape[-1] // PROBE


def _try(network, channels):
    """The output for a small grey picture, or None and why there is none."""
    with torch.inference_mode(), silence():
        try:
            output = network(torch.full((1, channels, PROBE, PROBE), 0.5))
        except Exception as error:  # code of anyone
            return None, one_line(error)
    return (output, None) if torch.is_tensor(output) and output.dim() == 4 else (None, 'it returns no picture')
