"""The page of a study or a comparison: one HTML file that contains everything and loads nothing."""

import base64
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import jinja2
import numpy as np

from lkdn_basicsr.evaluate.benchmarks import Benchmark
from lkdn_basicsr.evaluate.latency import device_name
from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.evaluate.results import Result
from lkdn_basicsr.files import write_file
from lkdn_basicsr.report import table
from lkdn_basicsr.report.regions import Region, check_region, read_images

WINDOW = 480  # HR pixels: width and height of the part of an image that is embedded around a region
BUDGET = 12_000_000  # bytes of all embedded windows together


def write_page(
    path: str,
    title: str,
    results: Sequence[Result],
    published: Sequence[Published],
    benchmarks: Sequence[Benchmark],
    regions: Sequence[Region],
    figures: Mapping[str, tuple[str, str]],
) -> None:
    """Write the page.

    Args:
        title: Its heading, as plain text; so are all names.
        results: At one scale.
        published: Of this scale.
        regions: Of the visual comparison, with their coordinates. Of each image a window of 480×480 pixels around the
            region is embedded without loss. The windows are smaller where all together would exceed 12 MB.
        figures: By heading, a PNG file and its caption.

    Raises:
        InputError: An image is missing.
        OSError: The page cannot be written.
    """
    names = [benchmark.name for benchmark in benchmarks]
    costs, note = table.cost_columns(results), table.protocol(results)
    sources = dict.fromkeys(entry.source for entry in published)
    if table.LATENCY in costs:
        note += f' Latencies are those of {device_name()}.'
    loader, undefined = jinja2.FileSystemLoader(os.path.dirname(__file__)), jinja2.StrictUndefined
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=undefined, trim_blocks=True)
    page = environment.get_template('page.html').render(
        title=title,
        scale=results[0].scale,
        networks=sum(result.params is not None for result in results),
        benchmarks=names,
        measured=_table(costs, names, results),
        note=note,
        published=_table([], table.published_on(published, names), published),
        published_heading=table.PUBLISHED_HEADING,
        sources={source: [p.method for p in published if p.source == source] for source in sources},
        figures={heading: _figure(*figure) for heading, figure in figures.items()},
        data=_data(results, benchmarks, regions),
    )
    write_file(path, page)


def _table(
    costs: Sequence[table.Column], names: Sequence[str], entries: Sequence[Result] | Sequence[Published]
) -> dict[str, Any]:
    columns = [table.METHOD, table.PARAMS, table.MULTI_ADDS, *costs, *table.score_columns(names)]
    rows = zip(*(table.column_cells(column, entries) for column in columns))
    return {'columns': columns, 'benchmarks': names, 'rows': list(rows)}


def _figure(path: str, caption: str) -> dict[str, Any]:
    with open(path, 'rb') as file:
        data = file.read()
    width, height = (int.from_bytes(data[k : k + 4], 'big') for k in (16, 20))  # of a PNG's first chunk
    return {'source': _data_uri('png', data), 'width': width, 'height': height, 'caption': caption}


def _data(results: Sequence[Result], benchmarks: Sequence[Benchmark], regions: Sequence[Region]) -> dict[str, Any]:
    """Return the data of the page's script: the names of the methods; the windows and scores of each region."""
    largest = max((max(region.width, region.height) for region in regions), default=WINDOW)
    side = WINDOW
    while True:
        embedded = [_region(region, results, benchmarks, side) for region in regions]
        size = sum(len(image) for region in embedded for image in region['images'].values())
        if size <= BUDGET or side <= largest:
            return {'methods': ['HR', *(result.method for result in results)], 'regions': embedded}
        side = max(largest, int(side * min(0.9, math.sqrt(BUDGET / size))))


def _region(region: Region, results: Sequence[Result], benchmarks: Sequence[Benchmark], side: int) -> dict[str, Any]:
    images = read_images(region, results, check_region(region, benchmarks))
    height, width = images[0][1].shape[:2]
    left, width = _window(region.x, region.width, width, side)
    top, height = _window(region.y, region.height, height, side)
    windows, scores = {}, {}
    for result, image in images:
        number = 0 if result is None else 1 + results.index(result)  # in the script's list of methods
        windows[number] = _lossless(image[top : top + height, left : left + width])
        if result is not None:
            benchmark_scores = result.scores[region.benchmark]
            scores[number] = [benchmark_scores.psnr[region.image], benchmark_scores.ssim[region.image]]
    place = {'at': f'{region.x}, {region.y}', 'window': [width, height], 'x': region.x - left, 'y': region.y - top}
    return dataclasses.asdict(region) | place | {'images': windows, 'scores': scores}


def _window(start: int, length: int, limit: int, side: int) -> tuple[int, int]:
    """Return start and length of an interval of ``side`` around another one, within 0 and ``limit``."""
    size = min(max(side, length), limit)
    return min(max(0, start + length // 2 - size // 2), limit - size), size


def _lossless(image: np.ndarray) -> str:
    """Return a data URI of an (H, W, 3) uint8 RGB image as lossless WebP, which is a quarter smaller than PNG."""
    _, data = cv2.imencode('.webp', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 101])
    return _data_uri('webp', data.tobytes())


def _data_uri(kind: str, data: bytes) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
