"""Networks from their files: ours, BasicSR's, those that spandrel knows, and whatever an option file describes."""
import contextlib
import dataclasses
import glob
import hashlib
import io
import json
import logging
import math
import os
import warnings

import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn import functional as F

from lkdn_basicsr import archs, checkpoints, reparam
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate.recognise import recognise_basicsr
from lkdn_basicsr.options.check import REFUSALS, one_line, registered
from lkdn_basicsr.options.read import hint, read_option_file

PROBE = 32  # pixels of a side of the picture that every network is tried on before anything is measured


@dataclasses.dataclass
class LoadedNetwork:
    """A network, ready to use.

    Attributes:
        network (nn.Module): in evaluation mode, float32, on the CPU: (1, 3, H, W) RGB in [0, 1], of any size, to
            (1, 3, scale·H, scale·W), perhaps not clipped.
        scale (int): upscaling factor.
        architecture (str): the name of its class.
        name (str): of the method: the file's stem, or the name of the run that a ``net_g_*.pth`` is of.
        path (str): the file that was given.
        digest (str): SHA-256, in hexadecimal, of what determines the output: the weights' file, and the options where
            an option file describes the network.
    """

    network: nn.Module
    scale: int
    architecture: str
    name: str
    path: str
    digest: str


def load(path, scale=None):
    """Load a super-resolution network of any kind from its file; nothing in the file is executed.

    Tried in this order: the option file in the folder of its run (``NAME/*.yml`` for ``NAME/models/net_g_*.pth``),
    where the weights fit the network that it describes; our networks; BasicSR's MSRResNet, EDSR, RCAN and RRDBNet, by
    keys and shapes; and what spandrel knows (SwinIR and SRVGGNetCompact of BasicSR among them, equal to BasicSR's to
    the last bit). Ours are fused, and so is SPAN, as they are used. What is in no key or shape has its usual value, see
    ``recognise.py``; where it is another, give an option file, which says it. ``params_ema`` is taken before
    ``params``, but for an option file, whose ``path:param_key_g`` counts.

    Args:
        path (str): a checkpoint (.pth or .safetensors), or an option file (.yml) whose ``network_g`` describes a
            network of BasicSR's registry and whose ``path:pretrain_network_g`` names its weights.
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
    core = getattr(network, 'core', network)
    return LoadedNetwork(network, found, type(core).__name__, method_name(path), path, digest)


def method_name(path):
    """What a method is called in tables: the stem of its file, or the run's name for ``NAME/models/net_g_*.pth``."""
    root = _run_folder(path)
    return os.path.basename(root) if root else os.path.splitext(os.path.basename(path))[0]


def _run_folder(path):
    """The folder of the run that a checkpoint was saved by, or None."""
    folder, file = os.path.split(os.path.abspath(path))
    return os.path.dirname(folder) if os.path.basename(folder) == 'models' and file.startswith('net_g_') else None


# ---------------------------------------------------- option files -------------------------------------------------- #


def _from_option_file(path):
    source = read_option_file(path)
    file = (source.opt.get('path') or {}).get('pretrain_network_g')
    if not isinstance(file, str):
        raise source.error(('path',), 'has no pretrain_network_g; give the checkpoint of the network')
    file = os.path.expanduser(file)
    checkpoints.ensure(file)
    param_key = source.opt['path'].get('param_key_g', 'params')
    try:
        network = _described(source, _read(file, param_key))
    except InputError as error:
        raise InputError(str(error) if path in str(error) else f'{path}: {error}') from None
    return network, _digest(file, source.opt['network_g'], param_key)


def _described(source, weights):
    """The network that an option file describes, with these weights."""
    options = source.opt.get('network_g')
    if not isinstance(options, dict) or not isinstance(options.get('type'), str):
        raise source.error(('network_g',), 'does not describe a network; give its type and arguments')
    known = registered(ARCH_REGISTRY)
    if options['type'] not in known:
        raise source.error(('network_g', 'type'), f'is {options["type"]}, which is no known network; '
                           f'{hint(options["type"], list(known))}')
    try:
        with _silence():
            network = known[options['type']](**{key: value for key, value in options.items() if key != 'type'})
    except REFUSALS as error:
        raise source.error(('network_g',), f'is refused by {options["type"]}: {one_line(error)}') from None
    network = _fill(network, weights)
    if isinstance(network, archs.LKDN) or source.opt.get('model_type') == 'ReparamSRModel':
        network = reparam.fuse(network)  # that model class tests the fused network; others may mean another thing by it
    return _for_any_size(network)


def _fill(network, weights):
    """The network with the weights, both fused where only one of them was; InputError says how they differ."""
    try:
        network, weights = checkpoints.fit(network, weights)
    except InputError as error:
        raise InputError(f'the checkpoint does not fit network_g: {error}') from None
    except REFUSALS as error:  # of a class of someone else whose fuse() is another thing than ours
        raise InputError(f'the checkpoint does not fit network_g: {one_line(error)}') from None
    network.load_state_dict(weights)
    return network


class Windowed(nn.Module):
    """A network that wants sizes that are multiples of its window, for any size.

    Pictures are extended below and on the right by reflection and the result is cropped, as BasicSR's SwinIRModel does.

    Args:
        core (nn.Module): the network.
        window (int): pixels.
    """

    def __init__(self, core, window):
        super().__init__()
        self.core, self.window = core, window

    def forward(self, x):
        """(N, 3, H, W) to (N, 3, scale·H, scale·W)."""
        height, width = x.shape[-2:]
        bottom, right = -height % self.window, -width % self.window
        mode = 'reflect' if bottom < height and right < width else 'replicate'
        out = self.core(F.pad(x, (0, right, 0, bottom), mode))
        scale = out.shape[-1] // (width + right)
        return out[..., :height * scale, :width * scale]


def _for_any_size(network):
    """A network of BasicSR's registry, for pictures of any size."""
    if isinstance(network, RRDBNet):
        window = 4 // network.scale  # at scales 2 and 1 it begins with a pixel unshuffle
    else:
        sizes = [getattr(module, 'window_size', 1) for module in network.modules()]
        flat = [size for entry in sizes for size in (entry if isinstance(entry, tuple | list) else [entry])]
        window = math.lcm(*(size for size in flat if isinstance(size, int) and size > 0))
    return network if window == 1 else Windowed(network, window)


# ---------------------------------------------------- checkpoints --------------------------------------------------- #


def _from_checkpoint(path):
    weights = _read(path)
    source = _option_file_of_run(path)
    if source is not None:
        with contextlib.suppress(InputError):
            return _described(source, weights), _digest(path, source.opt['network_g'])
    for recognise in (_ours, _basicsrs, _known_to_spandrel):
        network = recognise(weights)
        if network is not None:
            return network, _digest(path)
    raise InputError(f'{path} is of no network that lkdn_basicsr, BasicSR or spandrel know by its weights: give, in '
                     'place of the checkpoint, a test option file (.yml) whose network_g describes it and whose '
                     'path:pretrain_network_g names it')


def _option_file_of_run(path):
    """The newest readable option file in the folder of the run that saved a checkpoint."""
    root = _run_folder(path)
    files = glob.glob(os.path.join(glob.escape(root), '*.yml')) if root else []
    for file in sorted(files, key=os.path.getmtime, reverse=True):
        with contextlib.suppress(InputError):
            source = read_option_file(file)
            if 'network_g' in source.opt:
                return source
    return None


def _ours(weights):
    try:
        name, arguments = archs.config_from_state_dict(weights)
        return reparam.fuse(_fill(getattr(archs, name)(**arguments), weights))
    except (ValueError, RuntimeError):  # InputError is a ValueError: keys or shapes of something else
        return None


def _basicsrs(weights):
    network = recognise_basicsr(weights)
    return network and _for_any_size(network)


class Described(nn.Module):
    """A network as spandrel loads it, which extends pictures to the sizes that the network wants, and clips.

    Args:
        descriptor (spandrel.ImageModelDescriptor)
    """

    def __init__(self, descriptor):
        super().__init__()
        self.core, self.descriptor = descriptor.model, descriptor

    def forward(self, x):
        """(1, 3, H, W) to (1, 3, scale·H, scale·W) in [0, 1]."""
        return self.descriptor(x)


def _known_to_spandrel(weights):
    import spandrel
    with _silence():
        try:
            descriptor = spandrel.ModelLoader().load_from_state_dict(dict(weights))  # some change the dict
        except Exception:  # a few keys tell it the class, and building or loading that class may fail in any way
            return None
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        return None
    _drop_branches(descriptor.model)
    return Described(descriptor)


def _drop_branches(network):
    """Fuse SPAN's convolutions, which spandrel keeps in training form and fuses anew for every picture."""
    for module in network.modules():
        if hasattr(module, 'update_params') and hasattr(module, 'eval_conv'):
            module.update_params()
            module.update_params = _nothing
            del module.conv, module.sk


def _nothing():
    pass


# ------------------------------------------------------ common ------------------------------------------------------ #


def _read(path, param_key=None):
    """The weights in a file: keys to tensors."""
    if not path.lower().endswith('.safetensors'):
        try:
            weights, _ = checkpoints.pick_weights(checkpoints.load(path), param_key)
        except AttributeError:  # keys that are no text
            weights = None
        if not isinstance(weights, dict):
            raise InputError(f'checkpoint {path} holds no weights by name: give a .pth file of BasicSR\'s form')
        return weights
    import safetensors.torch
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise InputError(f'checkpoint {path} is not there: give the path of a file') from None
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f'checkpoint {path} cannot be read ({one_line(error)}): copy or download it again') from None


def _digest(file, *description):
    digest = checkpoints.sha256(file)
    if description:
        digest = hashlib.sha256(json.dumps([digest, *description], sort_keys=True).encode()).hexdigest()
    return digest


def _probe(network, path):
    """The scale of a network, by trying it; InputError if it is not one for RGB pictures."""
    output, reason = _try(network, 3)
    if output is None and _try(network, 1)[0] is not None or output is not None and output.shape[1] == 1:
        raise InputError(f'{path} is a network for single-channel pictures, which are not compared: give one that '
                         'takes and returns RGB')
    if output is None:
        raise InputError(f'{path} cannot super-resolve an RGB picture of {PROBE}×{PROBE} pixels ({reason}): correct '
                         'the options that describe it, or leave it out')
    if output.shape[1] != 3 or output.shape[-1] % PROBE:
        raise InputError(f'{path} does not turn an RGB picture into one: give a super-resolution network')
    return output.shape[-1] // PROBE


def _try(network, channels):
    """The output for a small grey picture, or None and why there is none."""
    with torch.inference_mode(), _silence():
        try:
            output = network(torch.full((1, channels, PROBE, PROBE), 0.5))
        except Exception as error:  # code of anyone
            return None, one_line(error)
    return (output, None) if torch.is_tensor(output) and output.dim() == 4 else (None, 'it returns no picture')


@contextlib.contextmanager
def _silence():
    """What code of others prints or warns of when a network is built is not for the user."""
    quiet = io.StringIO()
    with warnings.catch_warnings(action='ignore'), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(previous)
