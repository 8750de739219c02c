"""The sub-image windows that BasicSR's ``extract_subimages`` cuts, as numbers."""

import numpy as np


def sub_image_origins(length, crop_size=480, step=240, thresh=0):
    """Where the sub-images of one axis begin.

    One begins every ``step`` pixels, and one more flush with the far edge where more than ``thresh`` pixels would be
    left over. The windows of a picture are the pairs of its row origins (outer) and column origins (inner); numbered
    from 1 in that order they are BasicSR's ``_s001``, ``_s002``, ...

    Args:
        length (int): Height or width of the picture, in pixels.
        crop_size (int): Side of a window. A picture shorter than it has no window.
        step (int): Distance between neighbouring windows.
        thresh (int): A remainder of this many pixels, or fewer, is dropped.

    Returns:
        ndarray: Origins, ascending, int64; empty where ``length < crop_size``.
    """
    origins = np.arange(0, length - crop_size + 1, step, dtype=np.int64)
    if len(origins) and length - (origins[-1] + crop_size) > thresh:
        origins = np.append(origins, length - crop_size)
    return origins
