"""Small benchmarks, networks and checkpoints, made by formula."""

import cv2
import numpy as np
import torch

from lkdn_basicsr import archs
from lkdn_basicsr.data import imresize


def write_benchmark(root, name='Small', scale=4, images=('a', 'b'), height=40, width=48):
    """Write a benchmark of colored waves and return its folder."""
    folder = root / name
    for kind in ('GTmod', 'LRbicx'):
        (folder / f'{kind}{scale}').mkdir(parents=True)
    for number, image in enumerate(images):
        y, x, channel = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing='ij')
        waves = np.sin(0.31 * x + 0.2 * number) + np.cos(0.23 * y * (1 + 0.3 * channel) + number)
        gt = np.rint(127.5 + 60 * waves).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f'GTmod{scale}' / f'{image}.png'), gt)
        cv2.imwrite(str(folder / f'LRbicx{scale}' / f'{image}.png'), imresize(gt, 1 / scale))
    return folder


def randomize(network, seed=0):
    """Add noise to all weights, so that no bias is zero and no branch is without effect; return the network."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.03)
    return network.eval()


def small_lkdn(**arguments):
    """Return an LKDN of 4.5 K parameters, the same at every call; its output is around 0.5."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = randomize(archs.LKDN(**{'num_feat': 8, 'num_atten': 8, 'num_block': 1, **arguments}))
    biases = [value for name, value in network.upsampler.named_parameters() if name in ('0.bias', 'conv3.bias')]
    biases[0].data.fill_(0.5)
    return network


def save_checkpoint(network, path, key='params', **entries):
    """Save weights under a key as BasicSR does, or flat if it is None, and further entries; return the path as str."""
    state = network.state_dict()
    torch.save(state if key is None else {key: state, **entries}, path)
    return str(path)
