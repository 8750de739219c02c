"""Regions of benchmark images for the visual comparison: parsed, checked, or found where the methods differ most."""

import dataclasses
import os
import re
from collections.abc import Collection, Sequence

import cv2
import numpy as np
from tqdm import tqdm

from lkdn_basicsr.data.image_files import read_image
from lkdn_basicsr.errors import InputError, nearest
from lkdn_basicsr.evaluate.benchmarks import Benchmark
from lkdn_basicsr.evaluate.results import Result

SIDE = 80  # HR pixels: width and height of a region that is found, at most: 20 LR pixels at ×4, as in papers


@dataclasses.dataclass(frozen=True)
class BenchmarkImage:
    """An image of a benchmark, without extension; as a region to show, the one where the methods differ most."""

    benchmark: str
    image: str

    def __str__(self) -> str:
        return f'{self.benchmark}/{self.image}'


@dataclasses.dataclass(frozen=True)
class Region(BenchmarkImage):
    """A rectangle of a benchmark image, in HR pixels."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f'{super().__str__()}:{self.x},{self.y},{self.width},{self.height}'

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Return a view of the region of an (H, W, ...) image."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


def parse_region(text: str) -> BenchmarkImage:
    """Parse ``BENCHMARK/IMAGE:x,y,width,height`` or ``BENCHMARK/IMAGE``; raise InputError for another format."""
    match = re.fullmatch(r'([^/]+)/([^/]+?)(?::(-?\d+),(-?\d+),(-?\d+),(-?\d+))?', text.strip())
    if not match or re.search(r':[-\d,. ]*$', match[2]):
        example = 'as in Urban100/img_092:120,300,80,80, or only BENCHMARK/IMAGE'
        raise InputError(f'--region {text!r}: write BENCHMARK/IMAGE:x,y,width,height in HR pixels, {example}')
    benchmark, image, *numbers = match.groups()
    return BenchmarkImage(benchmark, image) if numbers[0] is None else Region(benchmark, image, *map(int, numbers))


def check_region(region: BenchmarkImage, benchmarks: Sequence[Benchmark]) -> Benchmark:
    """Return the benchmark of a region; raise InputError if the region is empty or not inside an image of these."""
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    _check_name(region, region.benchmark, by_name, 'one of the benchmarks')
    benchmark = by_name[region.benchmark]
    _check_name(region, region.image, benchmark.images, f'in {benchmark.folder}')
    if isinstance(region, Region):
        height, width = benchmark.read(region.image)[0].shape[:2]
        is_inside_x = 0 <= region.x < region.x + region.width <= width
        is_inside_y = 0 <= region.y < region.y + region.height <= height
        if not (is_inside_x and is_inside_y):
            reason = f'is not inside its image, which is {width} pixels wide and {height} high'
            raise InputError(f'--region {region} {reason}; give x,y,width,height within the image')
    return benchmark


def _check_name(region: BenchmarkImage, name: str, known: Collection[str], place: str) -> None:
    if name not in known:
        near, others = nearest(name, known), ', '.join(list(known)[:5]) + (', …' if len(known) > 5 else '')
        advice = f'did you mean {near}?' if near else f'use one of {others}'
        raise InputError(f'--region {region}: {name} is not {place}; {advice}')


def locate_region(region: BenchmarkImage, results: Sequence[Result], benchmarks: Sequence[Benchmark]) -> Region:
    """Check a region; return it with coordinates: its own, or those where the methods differ most."""
    benchmark = check_region(region, benchmarks)
    return region if isinstance(region, Region) else _find_region(region.image, benchmark, results)[1]


def find_regions(results: Sequence[Result], benchmarks: Sequence[Benchmark], count: int) -> list[Region]:
    """Find where the methods differ most: the windows with the largest variance, over the methods, of the MSE.

    Bicubic, which differs most from every network, does not count unless there is only one network. Returns at most
    ``count`` regions, one of each image, the largest variance first.
    """
    images = [(image, benchmark, results) for benchmark in benchmarks for image in benchmark.images]
    # disable=None: shown on a terminal only
    progress = tqdm(images, 'Finding regions', unit='image', leave=False, delay=2, disable=None)
    found = [_find_region(*arguments) for arguments in progress]
    return [region for _, region in sorted(found, key=lambda pair: -pair[0])[:count]]


def read_images(
    region: BenchmarkImage, results: Sequence[Result], benchmark: Benchmark
) -> list[tuple[Result | None, np.ndarray]]:
    """Read the complete image of a region: HR, with None as its result, then the output of each method that has it.

    (H, W, 3) uint8 RGB, all of one size. Raises InputError if an image is missing or damaged.
    """
    gt = cv2.cvtColor(benchmark.read(region.image)[0], cv2.COLOR_BGR2RGB)
    images: list[tuple[Result | None, np.ndarray]] = [(None, gt)]
    for result in results:
        scores = result.scores.get(benchmark.name)
        if scores and region.image in scores.psnr:
            images.append((result, read_image(os.path.join(scores.folder, f'{region.image}.png'))))
    return images


def _find_region(image: str, benchmark: Benchmark, results: Sequence[Result]) -> tuple[float, Region]:
    """Return the largest variance of an image and its region."""
    networks = [result for result in results if result.params is not None]
    methods = networks if len(networks) > 1 else results
    (_, gt), *outputs = read_images(BenchmarkImage(benchmark.name, image), methods, benchmark)
    height, width = (min(SIDE, length) for length in gt.shape[:2])
    errors = [_window_errors(sr, gt, height, width) for _, sr in outputs]
    if len(errors) > 1:
        mean = sum(errors) / len(errors)
        errors = [(error - mean) ** 2 for error in errors]
    total = sum(errors, np.zeros((1, 1)))
    y, x = np.unravel_index(total.argmax(), total.shape)
    return total[y, x] / max(1, len(errors)), Region(benchmark.name, image, int(x), int(y), width, height)


def _window_errors(image: np.ndarray, gt: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the mean squared error of each window in the image: (H - height + 1, W - width + 1) float64."""
    difference = cv2.absdiff(image, gt)
    squared = cv2.transform(cv2.multiply(difference, difference, dtype=cv2.CV_32F), np.ones((1, 3), np.float32))
    table = cv2.integral(squared, sdepth=cv2.CV_64F)  # integers, without rounding: equal images differ by 0
    sums = table[height:, width:] - table[:-height, width:]
    sums -= table[height:, :-width]
    sums += table[:-height, :-width]
    return sums / (3 * height * width)
