"""Regions of pictures where methods are told apart: found, checked, cut out."""

import dataclasses
import os
import re

import cv2
import numpy as np
from tqdm import tqdm

from lkdn_basicsr.data.image_files import read_image
from lkdn_basicsr.errors import InputError, nearest

SIDE = 80  # HR pixels of a region that is found, 20 LR pixels at x4: as in the papers' figures


@dataclasses.dataclass(frozen=True)
class Region:
    """A rectangle of a test set's picture, in HR pixels.

    Attributes:
        set_name (str): The test set.
        picture (str): The picture, without extension.
        x, y (int | None): Left and upper edge; None, as the size, for where methods differ most.
        width, height (int | None): Its size.
    """

    set_name: str
    picture: str
    x: int = None
    y: int = None
    width: int = None
    height: int = None

    def __str__(self):
        text = f'{self.set_name}/{self.picture}'
        return text if self.x is None else f'{text}:{self.x},{self.y},{self.width},{self.height}'

    def of(self, picture):
        """The pixels of the region: a view of (H, W, ...)."""
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]


def parse_region(text):
    """A region as it is given on a command line.

    Args:
        text (str): ``SET/PICTURE:x,y,width,height``, or ``SET/PICTURE`` for the region where methods differ most.

    Raises:
        InputError: It reads otherwise.
    """
    match = re.fullmatch(r'([^/]+)/([^/]+?)(?::(-?\d+),(-?\d+),(-?\d+),(-?\d+))?', text.strip())
    if not match or re.search(r':[-\d,. ]*$', match[2]):
        raise InputError(
            f'The region {text!r} cannot be read; write SET/PICTURE:x,y,width,height in HR pixels, as in '
            'Urban100/img_092:120,300,80,80, or SET/PICTURE alone.'
        )
    return Region(match[1], match[2], *(number and int(number) for number in match.groups()[2:]))


def check_region(region, sets):
    """See that a region lies in a picture of the test sets.

    Args:
        region (Region): With or without numbers.
        sets (list[Benchmark]): The test sets.

    Returns:
        Benchmark: The one that it is of.

    Raises:
        InputError: The set or the picture is unknown, or the region is empty or not all inside.
    """
    by_name = {benchmark.name: benchmark for benchmark in sets}
    if region.set_name not in by_name:
        raise InputError(
            f'The region {region} is of the set {region.set_name}, which is not among the test sets; '
            f'{_nearest(region.set_name, by_name)}.'
        )
    benchmark = by_name[region.set_name]
    if region.picture not in benchmark.images:
        raise InputError(
            f'The region {region} is of a picture that {benchmark.folder} does not hold; '
            f'{_nearest(region.picture, benchmark.images)}.'
        )
    if region.x is not None:
        height, width = benchmark.read(region.picture)[0].shape[:2]
        inside = (
            region.width > 0
            and region.height > 0
            and 0 <= region.x <= width - region.width
            and 0 <= region.y <= height - region.height
        )
        if not inside:
            raise InputError(
                f'The region {region} is not inside its picture, which is {width} pixels wide and '
                f'{height} high; give x,y,width,height within them.'
            )
    return benchmark


def complete(region, results, sets, side=SIDE):
    """A region with its numbers: where methods differ most, if it has none.

    Raises:
        InputError: As :func:`check_region`.
    """
    benchmark = check_region(region, sets)
    return region if region.x is not None else _most_differing(region.picture, benchmark, results, side)[1]


def differing_regions(results, sets, count, side=SIDE):
    """Where methods differ most: the windows with the largest variance, over the methods, of the mean squared error.

    Bicubic, which differs from every network most, does not count, unless there is just one network.

    Args:
        results (list[Result]): The methods.
        sets (list[Benchmark]): The test sets; of each picture at most one region is taken.
        count (int): How many regions.
        side (int): Width and height in HR pixels; less where a picture is smaller.

    Returns:
        list[Region]: The largest difference first.
    """
    everything = [(picture, benchmark) for benchmark in sets for picture in benchmark.images]
    found = [
        _most_differing(picture, benchmark, results, side)
        for picture, benchmark in tqdm(
            everything, 'Where methods differ', unit='picture', leave=False, delay=2, disable=None
        )
    ]  # None: shown on a terminal only
    return [region for _, region in sorted(found, key=lambda pair: -pair[0])[:count]]


def pictures(region, results, benchmark):
    """The whole pictures that a region is of, by what made them: ``HR``, then each method that has it.

    Args:
        region (Region): Of this test set.
        results (list[Result]): The methods.
        benchmark (Benchmark): The test set.

    Returns:
        list[tuple[Result | None, ndarray]]: None for HR; (H, W, 3) uint8 RGB, all of one size.

    Raises:
        InputError: A picture is missing or damaged.
    """
    found = [(None, cv2.cvtColor(benchmark.read(region.picture)[0], cv2.COLOR_BGR2RGB))]
    for result in results:
        scores = result.scores.get(benchmark.name)
        if scores and region.picture in scores.psnr:
            found.append((result, read_image(os.path.join(scores.folder, f'{region.picture}.png'))))
    return found


def _most_differing(picture, benchmark, results, side):
    """(variance, region) of a picture."""
    region = Region(benchmark.name, picture)
    networks = [result for result in results if result.params is not None]
    (_, gt), *found = pictures(region, networks if len(networks) > 1 else results, benchmark)
    width, height = (min(side, length) for length in (gt.shape[1], gt.shape[0]))
    errors = [_window_errors(image, gt, height, width) for _, image in found]
    if len(errors) > 1:
        mean = sum(errors) / len(errors)
        errors = [(error - mean) ** 2 for error in errors]
    total = sum(errors, np.zeros((1, 1)))
    y, x = np.unravel_index(total.argmax(), total.shape)
    return total[y, x] / max(1, len(errors)), Region(benchmark.name, picture, int(x), int(y), width, height)


def _window_errors(image, gt, height, width):
    """The mean squared error of each window that lies inside: (H - height + 1, W - width + 1) float64."""
    difference = cv2.absdiff(image, gt)
    squared = cv2.transform(cv2.multiply(difference, difference, dtype=cv2.CV_32F), np.ones((1, 3), np.float32))
    table = cv2.integral(squared, sdepth=cv2.CV_64F)  # whole numbers, without rounding: equal pictures differ by 0
    sums = table[height:, width:] - table[:-height, width:]
    sums -= table[height:, :-width]
    sums += table[:-height, :-width]
    return sums / (3 * height * width)


def _nearest(name, names):
    near = nearest(name, names)
    if near is not None:
        return f'did you mean {near}'
    listed = list(names)
    return f'there {"is" if len(listed) == 1 else "are"} {", ".join(listed[:5])}{", …" if len(listed) > 5 else ""}'
