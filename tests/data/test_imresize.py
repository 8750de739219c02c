import math

import cv2
import numpy as np
import pytest

from lkdn_basicsr.data import imresize
from tests.support.images import random_image


def cubic(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def resize_line(line, scale, edges, rounded):
    """One row or column, one pixel at a time, from the definition: a cubic around each output pixel's center."""
    n, stretch, out = len(line), max(1, 1 / scale), []
    for i in range(math.ceil(n * scale)):
        center = (i + 0.5) / scale - 0.5
        near = range(math.ceil(center - 2 * stretch) - 1, math.floor(center + 2 * stretch) + 2)
        weights = [cubic((center - j) / stretch) for j in near]
        value = 0.0
        for j, weight in zip(near, weights, strict=True):
            if edges == 'repeat':
                j = min(max(j, 0), n - 1)
            else:
                while not 0 <= j < n:
                    j = -1 - j if j < 0 else 2 * n - 1 - j
            value += weight / sum(weights) * float(line[j])
        if rounded:
            value = min(max(math.floor(value + 0.5), 0), 255)
        out.append(value)
    return out


def resize_slowly(image, scale, edges):
    image = image.reshape(*image.shape[:2], -1)
    rounded = image.dtype == np.uint8
    for _ in range(2):
        lines = [[resize_line(line, scale, edges, rounded) for line in columns] for columns in image.transpose(1, 2, 0)]
        image = np.array(lines, image.dtype).swapaxes(1, 2)
    return image


@pytest.mark.parametrize('edges', ['mirror', 'repeat'])
@pytest.mark.parametrize('scale', [1 / 2, 1 / 3, 1 / 4, 1 / 8, 2, 3, 4, 0.7, 1.6])
def test_uint8_pixels_are_those_of_the_definition(scale, edges):
    image = random_image(25, 18)
    result = imresize(image, scale, edges)
    assert result.dtype == np.uint8 and result.flags.c_contiguous
    # Only dyadic weights give exact half integers; elsewhere no sum of this image is within 1e-9 of one.
    np.testing.assert_array_equal(result, resize_slowly(image, scale, edges))


@pytest.mark.parametrize('scale', [1 / 4, 1 / 3, 2.5])
def test_floats_are_neither_rounded_nor_clipped(scale):
    image = random_image(14, 23) / 255
    result = imresize(image, scale)
    assert result.dtype == np.float64
    # A dozen additions of numbers below 2: rounding error stays below 1e-14.
    np.testing.assert_allclose(result, resize_slowly(image, scale, 'mirror'), rtol=0, atol=1e-14)
    assert imresize(np.eye(8), 2).min() < 0
    assert imresize(image.astype(np.float32), scale).dtype == np.float32


def test_an_impulse_shows_the_cubic_kernel():
    line = np.zeros((8, 1))
    line[4] = 128
    # The kernel at a quarter of a pixel and its neighbors, times 128: 0.8671875, 0.2265625, -0.0703125, -0.0234375.
    assert imresize(line, 2)[:, 0].tolist() == [0, 0, 0, 0, 0, -3, -9, 29, 111, 111, 29, -9, -3, 0, 0, 0]


def test_halves_are_rounded_up_after_each_axis():
    # The mean of 0 and 1 is half an integer, exactly; the second image would be 0.25 if only the end were rounded.
    for image in ([[1, 0], [1, 0]], [[1, 0], [0, 0]]):
        assert imresize(np.array(image, np.uint8), 1 / 2, 'repeat').tolist() == [[1]]


def test_overshoot_is_clipped_between_the_axes():
    image = np.zeros((8, 8), np.uint8)
    image[4:, 4:] = 255
    unrounded = imresize(image.astype(np.float64), 2)
    at_the_end = np.clip(np.floor(unrounded + 0.5), 0, 255)
    assert unrounded.min() < -10 and unrounded.max() > 265
    assert (imresize(image, 2) != at_the_end).any()
    np.testing.assert_array_equal(imresize(image, 2)[..., None], resize_slowly(image, 2, 'mirror'))


def test_images_smaller_than_the_kernel_are_mirrored_repeatedly():
    for image in (random_image(1, 1), random_image(2, 5), random_image(3, 1)):
        np.testing.assert_array_equal(imresize(image, 1 / 4), resize_slowly(image, 1 / 4, 'mirror'))


def test_gray_color_and_strided_images_agree():
    image = random_image(37, 150)
    resized = imresize(image, 1 / 3)
    assert resized.shape == (13, 50, 3)
    for index in (0, 1, 2, slice(1), slice(None, None, -1)):
        np.testing.assert_array_equal(imresize(image[..., index], 1 / 3), resized[..., index])


def test_tiles_do_not_show():
    image = random_image(200, 1100)
    resized = imresize(image, 1 / 4)
    np.testing.assert_array_equal(resized[:, 20:40], imresize(image[:, 40:200], 1 / 4)[:, 10:30])
    np.testing.assert_array_equal(resized[20:40], imresize(image[40:], 1 / 4)[10:30])


def test_invalid_images_and_arguments_are_refused():
    invalid = {'uint16': (np.zeros((4, 4), np.uint16), 2), 'positive': (np.eye(4), 0), 'edges': (np.eye(4), 2, 'wrap')}
    for reason, arguments in (invalid | {'shape': (np.zeros((0, 4), np.uint8), 2)}).items():
        with pytest.raises((TypeError, ValueError), match=reason):
            imresize(*arguments)


def test_set5_is_reproduced_bit_for_bit(shared):
    images = sorted((shared / 'data/Set5/GTmod4').iterdir())
    assert len(images) == 5
    for path in images:
        gt, lq = cv2.imread(str(path)), cv2.imread(str(path.parents[1] / 'LRbicx4' / path.name))
        np.testing.assert_array_equal(imresize(gt, 1 / 4, 'repeat'), lq)
