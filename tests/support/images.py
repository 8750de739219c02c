"""Random images, in memory and as files."""

import cv2
import numpy as np


def random_image(height=20, width=30, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def write_images(folder, names, size=(48, 60), seed=0):
    """Write random PNG files; return name to RGB pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for name in names}
    for name, image in images.items():
        cv2.imwrite(f'{folder}/{name}.png', image[..., ::-1])
    return images
