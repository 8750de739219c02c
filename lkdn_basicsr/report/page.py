"""The page of a study or a comparison: one HTML file with everything in it, which asks the network for nothing."""

import base64
import html
import json
import math
import os
import re

import cv2

from lkdn_basicsr.files import write_file
from lkdn_basicsr.report import regions as crops
from lkdn_basicsr.report.page_table import measured_table, published_table
from lkdn_basicsr.report.table import PUBLISHED_HEADING

WINDOW = 480  # pixels of the side of what can be looked at around a region
BUDGET = 12_000_000  # bytes of all these windows, as written in the page; they get smaller where they would be more


def write(path, title, results, published, sets, regions, plots, curves=None):
    """Write the page.

    Args:
        path (str): of the HTML file.
        title (str): its heading, as plain text; so are all names.
        results (list[Result]): The methods, at one scale.
        published (list[Published]): Figures of others, of this scale, shown apart.
        sets (list[Benchmark]): The test sets.
        regions (list[Region]): For the slider, with their numbers. Of each picture a window of 480×480 around the
            region is embedded, without loss; smaller ones if all together would take more than 12 MB.
        plots (list[tuple[str, str]]): PNG files and their captions.
        curves (tuple[str, str] | None): That of the learning curves.

    Raises:
        InputError: A picture is missing, or the page cannot be written.
    """
    names = [benchmark.name for benchmark in sets]
    body = [f'<p class="note">{_summary(results, names)}</p>', '<h2>Results</h2>', measured_table(results, names)]
    if published:
        body += [f'<h2>{PUBLISHED_HEADING}</h2>', published_table(published, names)]
    if plots:
        body += ['<h2>Complexity</h2>', _figures(plots)]
    if curves:
        body += ['<h2>Learning curves</h2>', _figures([curves])]
    with open(os.path.join(os.path.dirname(__file__), 'page.html'), encoding='utf-8') as file:
        template = file.read()
    parts = {'title': html.escape(title), 'body': '\n'.join(body), 'data': _script(_data(results, sets, regions))}
    # In one pass: what is put in is not looked through again.
    page = re.sub(r'\{\{(\w+)\}\}', lambda match: parts[match[1]], template)
    write_file(path, page.encode())


def _summary(results, names):
    networks = sum(result.params is not None for result in results)
    methods = f'{networks} network{"" if networks == 1 else "s"}'
    return f'×{results[0].scale}, {methods} on {html.escape(", ".join(names))}.'


def _figures(plots):
    return '<div class="plots">' + '\n'.join(_figure(path, caption) for path, caption in plots) + '</div>'


def _figure(path, caption):
    with open(path, 'rb') as file:
        data = file.read()
    width, height = (int.from_bytes(data[k : k + 4], 'big') for k in (16, 20))  # of a PNG's first chunk
    wide = ' class="wide"' if width > 1.5 * height else ''
    caption = html.escape(caption)
    return (
        f'<figure{wide}><div class="paper"><img src="{_uri("png", data)}" width="{width}" height="{height}" '
        f'alt="{caption}"></div><figcaption>{caption}</figcaption></figure>'
    )


def _data(results, sets, regions):
    """What the script works on: names of methods, and for each region its windows and scores by the method's number."""
    side = WINDOW
    while True:
        shown = [_region(region, results, sets, side) for region in regions]
        size = sum(len(picture) for region in shown for picture in region['pictures'].values())
        least = max((max(region.width, region.height) for region in regions), default=side)
        if size <= BUDGET or side <= least:
            return {'methods': ['HR', *(result.method for result in results)], 'regions': shown}
        side = max(least, int(side * min(0.9, math.sqrt(BUDGET / size))))


def _region(region, results, sets, side):
    benchmark = crops.check_region(region, sets)
    found = crops.pictures(region, results, benchmark)
    left, width = _window(region.x, region.width, found[0][1].shape[1], side)
    top, height = _window(region.y, region.height, found[0][1].shape[0], side)
    numbers = {id(result): i for i, result in enumerate(results, 1)}
    pictures, scores = {}, {}
    for result, image in found:
        number = numbers.get(id(result), 0)
        pictures[number] = lossless(image[top : top + height, left : left + width])
        if result:
            scores[number] = [
                result.scores[region.set_name].psnr[region.picture],
                result.scores[region.set_name].ssim[region.picture],
            ]
    return {
        'set': region.set_name,
        'picture': region.picture,
        'at': f'{region.x}, {region.y}',
        'window': [width, height],
        'x': region.x - left,
        'y': region.y - top,
        'width': region.width,
        'height': region.height,
        'pictures': pictures,
        'scores': scores,
    }


def _window(start, length, whole, side):
    """Start and length of a stretch of ``side`` around another, within ``whole``."""
    size = min(max(side, length), whole)
    return min(max(0, start + length // 2 - size // 2), whole - size), size


def lossless(image):
    """A data URI of an (H, W, 3) uint8 RGB picture, as lossless WebP: a quarter smaller than PNG."""
    _, data = cv2.imencode('.webp', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 101])
    return _uri('webp', data.tobytes())


def _uri(kind, data):
    return f'data:image/{kind};base64,{base64.b64encode(data).decode()}'


def _script(data):
    """JSON that no name in it can end: ``</script>`` and ``<!--`` begin with what is escaped here."""
    return json.dumps(data, ensure_ascii=True).replace('<', '\\u003c')
