"""Small test sets and checkpoints, made by formula."""

import cv2
import numpy as np
import torch

from lkdn_basicsr import archs
from lkdn_basicsr.data import imresize


def write_set(root, name='Small', scale=4, pictures=('a', 'b'), height=40, width=48):
    """A test set of colourful waves; returns its folder."""
    folder = root / name
    for kind in ('GTmod', 'LRbicx'):
        (folder / f'{kind}{scale}').mkdir(parents=True)
    for number, picture in enumerate(pictures):
        y, x, channel = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing='ij')
        waves = np.sin(0.31 * x + 0.2 * number) + np.cos(0.23 * y * (1 + 0.3 * channel) + number)
        gt = np.rint(127.5 + 60 * waves).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f'GTmod{scale}' / f'{picture}.png'), gt)
        cv2.imwrite(str(folder / f'LRbicx{scale}' / f'{picture}.png'), imresize(gt, 1 / scale))
    return folder


def shaken(network, seed=0):
    """A network whose weights are all random: no bias is zero, no branch is without effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.03)
    return network.eval()


def small_lkdn(**arguments):
    """An LKDN of 4.5 K parameters, the same at every call; its pictures are grey in the mean."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = shaken(archs.LKDN(**{'num_feat': 8, 'num_atten': 8, 'num_block': 1, **arguments}))
    biases = [value for name, value in network.upsampler.named_parameters() if name in ('0.bias', 'conv3.bias')]
    biases[0].data.fill_(0.5)
    return network


def save(network, path, wrapped='params'):
    """Save a checkpoint as BasicSR does (``params``, ``params_ema``) or flat (None); returns its path as text."""
    state = network.state_dict()
    torch.save(state if wrapped is None else {wrapped: state}, path)
    return str(path)
