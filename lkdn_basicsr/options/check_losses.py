"""Check what BasicSR's perceptual loss needs: layers of its VGG network, and the weights of that network."""

import os
from typing import Any

import torch
from basicsr.archs.vgg_arch import NAMES, VGG_PRETRAIN_PATH, insert_bn
from torchvision.models import get_model_weights

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError, hint, one_line
from lkdn_basicsr.options.option_file import OptionFile


def vgg_weights(vgg_type: str) -> tuple[str, str]:
    """Return the URL of the weights that torchvision loads for a ``vgg_type``, and where it puts them."""
    url = get_model_weights(vgg_type).IMAGENET1K_V1.url  # type: ignore[attr-defined]
    return url, os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(url))


def has_weights(options: dict[str, Any]) -> bool:
    """Return whether a loss has its weights on this machine; losses other than ``PerceptualLoss`` need none."""
    if options.get('type') != 'PerceptualLoss' or os.path.exists(VGG_PRETRAIN_PATH):
        return True
    return os.path.exists(vgg_weights(options.get('vgg_type', 'vgg19'))[1])


def check_losses(option_file: OptionFile, fetch: bool = True) -> None:
    """Check the perceptual losses of a training, after ``check_schema``; download their weights if these are missing.

    Args:
        fetch: Whether to download; if not, a note is added to ``option_file.notes``.

    Raises:
        InputError: There is no such VGG network or layer, or the weights cannot be downloaded.
    """
    for key, options in option_file.opt['train'].items():
        if not isinstance(options, dict) or options.get('type') != 'PerceptualLoss':
            continue
        keys, vgg_type = ('train', key), options.get('vgg_type', 'vgg19')
        names = NAMES.get(vgg_type.removesuffix('_bn'))
        if names is None:
            raise option_file.error((*keys, 'vgg_type'), f'is {vgg_type}; use one of {", ".join(NAMES)}, or with _bn')
        layers = insert_bn(names) if vgg_type.endswith('_bn') else names
        for layer in options['layer_weights'] if isinstance(options['layer_weights'], dict) else [None]:
            if layer not in layers:
                reason = f'names the layer {layer}, which {vgg_type} does not have; {hint(layer, layers)}'
                raise option_file.error((*keys, 'layer_weights'), reason)
        if has_weights(options):
            continue
        url, file = vgg_weights(vgg_type)
        if not fetch:
            option_file.notes.append(f'{file} does not exist and will be downloaded from {url}.')
            continue
        try:
            checkpoints.download(url, file, os.path.splitext(file)[0].rpartition('-')[2])
        except InputError as error:
            raise option_file.error(keys, f'needs weights: {one_line(error)}') from error
