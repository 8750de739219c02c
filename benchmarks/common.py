"""What the benchmarks share: images like those of DF2K, processes of their own, and the environment."""

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version

import cv2
import numpy as np

_PHOTOGRAPHS = ('astronaut', 'chelsea', 'coffee', 'rocket')
_TILE = 300  # no photograph is less high or wide


def photographs(count, height=1356, width=2040, seed=0):
    """Yield images of DF2K's size, (height, width, 3) uint8 RGB, that are as hard to compress.

    Each is a mosaic of random tiles of scikit-image's photographs, flipped and rotated. Enlarged photographs would be
    smooth, and their PNGs smaller and faster than those of real images; repeated ones would compress too well.
    """
    from skimage import data

    rng = np.random.default_rng(seed)
    sources = [getattr(data, name)() for name in _PHOTOGRAPHS]
    for _ in range(count):
        image = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, _TILE):
            for left in range(0, width, _TILE):
                source = sources[rng.integers(len(sources))]
                y, x = (rng.integers(length - _TILE + 1) for length in source.shape[:2])
                tile = np.rot90(source[y : y + _TILE, x : x + _TILE], rng.integers(4))[:, :: rng.choice((1, -1))]
                target = image[top : top + _TILE, left : left + _TILE]
                target[...] = tile[: target.shape[0], : target.shape[1]]
        yield image


def write_folder(folder, images):
    """Write images as ``0001.png``, … into an existing folder."""
    for i, image in enumerate(images):
        cv2.imwrite(f'{folder}/{i + 1:04d}.png', image[..., ::-1])


def run_apart(script, *arguments, **variables):
    """Run a script in a process of its own, and return the JSON value in the last line of its output."""
    command = [sys.executable, os.path.abspath(script), *map(str, arguments)]
    environment = {**os.environ, **variables}
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def build_parser(doc, images):
    """Return a parser of the options that the benchmarks of data share; ``images`` are made by default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--hr', metavar='DIR', help='folder of HR images (default: made of photographs)')
    images_help = f'how many 2040x1356 images are made (default: {images})'
    parser.add_argument('--images', '--pictures', type=int, default=images, help=images_help)
    parser.add_argument('--repeats', type=int, default=3, help='runs of each (default: 3)')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def environment(**more):
    packages = {name: version(name) for name in ('basicsr', 'torch', 'numpy', 'opencv-python', 'lmdb')}
    return {'machine': platform.machine(), **more, 'python': platform.python_version(), **packages}
