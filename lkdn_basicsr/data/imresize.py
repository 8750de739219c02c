"""MATLAB's bicubic ``imresize``, pixel for pixel.

The LR images of DIV2K, Flickr2K and the benchmarks were made with it, so a PSNR is comparable with that of a paper only
if the LR pixels are exactly these.
"""

import math
from typing import Literal

import numpy as np

# Adding this and cutting off the fraction rounds half away from zero. 0.5 itself would turn 0.49999999999999994 into 1.
HALF = np.nextafter(0.5, 0)

Edges = Literal['mirror', 'repeat']


def imresize(image: np.ndarray, scale: float, edges: Edges = 'mirror') -> np.ndarray:
    """Resize as MATLAB's ``imresize(image, scale, 'bicubic')`` does, antialiased when shrinking.

    One axis after the other, rows first. uint8 images are rounded (half away from zero) and clipped after each axis, as
    in MATLAB; floats are not rounded, and may leave the range of the input.

    Args:
        image: (H, W) or (H, W, C), uint8, float32 or float64.
        scale: Size of the output over size of the input: ``1 / 4`` shrinks, ``2`` enlarges.
        edges: How the image continues beyond its border: ``'mirror'`` as in current MATLAB, or ``'repeat'`` for the
            border pixel, as in old versions (the usual LR images of Set5, Set14 and B100).

    Returns:
        (ceil(H * scale), ceil(W * scale)[, C]), dtype of the input.

    Raises:
        TypeError, ValueError: The image has another dtype or shape, or is empty; or another argument is invalid.
    """
    if image.dtype not in (np.uint8, np.float32, np.float64):
        raise TypeError(f'imresize takes uint8, float32 or float64 images, not {image.dtype}; convert it first.')
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f'imresize takes non-empty (H, W) or (H, W, C) images, not the shape {image.shape}.')
    if not 0 < scale < math.inf:
        raise ValueError(f'The scale of imresize must be a positive number, not {scale}.')
    if edges not in ('mirror', 'repeat'):
        raise ValueError(f"edges must be 'mirror' or 'repeat', not {edges!r}.")
    for _ in range(2):
        # The axis that is resized comes first, so that one tap is one weight times contiguous rows.
        rows = np.ascontiguousarray(image)
        resized = _resize_rows(rows.reshape(len(rows), -1), scale, edges)
        image = resized.reshape(-1, *rows.shape[1:]).swapaxes(0, 1)
    return np.ascontiguousarray(image)


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    inner, outer = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return inner * (x <= 1) + outer * ((x > 1) & (x <= 2))


def _taps(length: int, scale: float, edges: Edges) -> tuple[np.ndarray, np.ndarray]:
    """Return the input rows that make each output row, and their weights: two arrays (output rows, taps)."""
    shrink = min(scale, 1)
    width = 4 / shrink
    # MATLAB's formulae, in its order and counting from 1: another order rounds differently in the last bit.
    center = np.arange(1, math.ceil(length * scale) + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(center - width / 2)
    rows = left[:, None] + np.arange(math.ceil(width) + 2)
    weights = shrink * _cubic(shrink * (center[:, None] - rows))
    weights /= weights.sum(axis=1, keepdims=True)
    rows = rows.astype(np.int64) - 1
    used = weights.any(axis=0)
    rows, weights = rows[:, used], weights[:, used]
    if edges == 'repeat':
        return rows.clip(0, length - 1), weights
    rows %= 2 * length
    return np.minimum(rows, 2 * length - 1 - rows), weights


def _resize_rows(image: np.ndarray, scale: float, edges: Edges) -> np.ndarray:
    """Resize a (rows, columns) array along its first axis.

    Products are added tap after tap, as MATLAB adds them: where the exact sum is half an integer, another order of
    additions may land on its other side.
    """
    rows, weights = _taps(len(image), scale, edges)
    is_uint8 = image.dtype == np.uint8
    # Weights that are multiples of 2^-12 (x1/2, x1/4, x2, x4) times bytes fit the 24 bits of a float32: nothing is
    # rounded, so float32 gives the same results as float64 in half the time.
    lossless = is_uint8 and not np.any(weights * 4096 % 1) and np.abs(weights).sum(axis=1).max() * 255 < 4096
    dtype = np.float32 if lossless else np.float64
    weights = weights.astype(dtype)[:, :, None]
    resized = np.empty((len(rows), image.shape[1]), image.dtype)
    # Tiles that stay in a core's cache, 16 output rows of 2048 columns.
    for top in range(0, len(rows), 16):
        part, part_weights = rows[top : top + 16], weights[top : top + 16]
        first, last = part.min(), part.max() + 1
        part = part - first
        for left in range(0, image.shape[1], 2048):
            columns = slice(left, left + 2048)
            tile = image[first:last, columns].astype(dtype)
            total = tile[part[:, 0]]
            total *= part_weights[:, 0]
            for tap in range(1, part.shape[1]):
                product = tile[part[:, tap]]
                product *= part_weights[:, tap]
                total += product
            if is_uint8:
                total += dtype(HALF)
                total.clip(0, 255, out=total)
            resized[top : top + 16, columns] = total
    return resized
