"""Networks told by the keys and shapes of their weights alone.

What is in neither has its usual value. Of BasicSR's networks: ``res_scale`` is 1, and 0.1 for an EDSR of 256 features
or more, as BasicSR's own option files have it; ``img_range`` and ``rgb_mean`` are the defaults of the classes.
"""

import math

from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr import archs, checkpoints, reparam
from lkdn_basicsr.evaluate.loading.wrappers import SpandrelNetwork, pad_to_window, silence
from lkdn_basicsr.options.registries import registered


def detect_network(weights):
    """The network that a state dict belongs to, with these weights, for pictures of any size.

    Args:
        weights (dict): keys to tensors; left alone.

    Returns:
        nn.Module | None: ours, fused; or BSRN; or BasicSR's MSRResNet, EDSR, RCAN or RRDBNet; or what spandrel knows;
        or None.
    """
    for kind in (_ours, _bsrn, _basicsrs, _known_to_spandrel):
        network = kind(weights)
        if network is not None:
            return network
    return None


def _ours(weights):
    try:
        name, arguments = archs.config_from_state_dict(weights)
        network, weights = checkpoints.fit(getattr(archs, name)(**arguments), weights)
    except (ValueError, RuntimeError):  # InputError is a ValueError: keys or shapes of something else
        return None
    network.load_state_dict(weights)
    return reparam.fuse(network)


def _bsrn(weights):
    """BSRN by its authors' keys: our network with its attention and a shortcut, under another name of the upsampler."""
    renamed = {key.replace('upsampler.upsampleOneStep.', 'upsampler.'): value for key, value in weights.items()}
    try:
        name, arguments = archs.config_from_state_dict(renamed)
        network = getattr(archs, name)(**arguments | {'conv': 'BSConvU_idt'})
        network.load_state_dict(renamed)
    except (ValueError, RuntimeError):
        return None
    return network


def _basicsrs(weights):
    for name, read in READERS.items():
        try:
            network = registered(ARCH_REGISTRY)[name](**read(weights))
            checkpoints.fit(network, weights)
        except (LookupError, AttributeError, ValueError, RuntimeError, ZeroDivisionError):
            continue
        network.load_state_dict(weights)
        return pad_to_window(network)
    return None


def _known_to_spandrel(weights):
    import spandrel

    with silence():
        try:
            descriptor = spandrel.ModelLoader().load_from_state_dict(dict(weights))  # some change the dict
        except Exception:  # a few keys tell it the class, and building or loading that class may fail in any way
            return None
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        return None
    _drop_branches(descriptor.model)
    return SpandrelNetwork(descriptor)


def _drop_branches(network):
    """Fuse SPAN's convolutions, which spandrel keeps in training form and fuses anew for every picture."""
    for module in network.modules():
        if hasattr(module, 'update_params') and hasattr(module, 'eval_conv'):
            module.update_params()
            module.update_params = _nothing
            del module.conv, module.sk


def _nothing():
    pass


# ------------------------------------------- arguments of BasicSR's classes -------------------------------------- #


def _common(weights):
    return {
        'num_in_ch': weights['conv_first.weight'].shape[1],
        'num_out_ch': weights['conv_last.weight'].shape[0],
        'num_feat': weights['conv_first.weight'].shape[0],
        'num_block': _count(weights, 'body.'),
    }


def _count(weights, prefix):
    """How many modules stand numbered below a prefix."""
    return len({key.removeprefix(prefix).split('.')[0] for key in weights if key.startswith(prefix)})


def _upscale(weights):
    """The scale of BasicSR's Upsample: pixel shuffles, one behind another."""
    shapes = [weights[key].shape for key in weights if key.startswith('upsample.') and key.endswith('.weight')]
    return math.prod(math.isqrt(shape[0] // shape[1]) for shape in shapes)


def _msrresnet(weights):
    num_feat, shuffled = weights['conv_first.weight'].shape[0], weights['upconv1.weight'].shape[0]
    return _common(weights) | {'upscale': 4 if 'upconv2.weight' in weights else math.isqrt(shuffled // num_feat)}


def _edsr(weights):
    arguments = _common(weights)
    return arguments | {'upscale': _upscale(weights), 'res_scale': 0.1 if arguments['num_feat'] >= 256 else 1}


def _rcan(weights):
    arguments = _common(weights)
    squeezed = weights['body.0.residual_group.0.rcab.3.attention.1.weight'].shape[0]
    return arguments | {
        'upscale': _upscale(weights),
        'num_group': arguments['num_block'],
        'num_block': _count(weights, 'body.0.residual_group.'),
        'squeeze_factor': arguments['num_feat'] // squeezed,
    }


def _rrdbnet(weights):
    arguments = _common(weights)
    unshuffled = math.isqrt(arguments['num_in_ch'] // arguments['num_out_ch'])  # 2 and 4 for scales 2 and 1
    return arguments | {
        'num_in_ch': arguments['num_in_ch'] // unshuffled**2,
        'num_grow_ch': weights['body.0.rdb1.conv1.weight'].shape[0],
        'scale': 4 // unshuffled,
    }


READERS = {'MSRResNet': _msrresnet, 'EDSR': _edsr, 'RCAN': _rcan, 'RRDBNet': _rrdbnet}
