"""The visual comparison of the papers: an image with a marked region, and the enlarged region by each method."""

import functools
import io
import math
import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lkdn_basicsr.errors import printable
from lkdn_basicsr.evaluate.benchmarks import Benchmark
from lkdn_basicsr.evaluate.results import Result
from lkdn_basicsr.files import write_file
from lkdn_basicsr.report.regions import Region, check_region, read_images

TILE = 300  # pixels of a tile's longer side, approximately: the zoom is an integer
GAP, MARGIN = 14, 20  # pixels
TEXT = 25  # pixels of height
FRAME = (232, 48, 48)
INK, FAINT = (20, 20, 20), (105, 105, 105)

Font = ImageFont.FreeTypeFont


def draw_comparison(region: Region, results: Sequence[Result], benchmarks: Sequence[Benchmark], path: str) -> None:
    """Draw the complete HR image with the region marked on the left, and the region in HR and by each method.

    The crops are enlarged by an integer factor without interpolation. Below each are the method and the PSNR and SSIM
    of the complete image, the best in bold. Methods without this image are left out. Raises InputError if the region is
    not in the benchmarks, or an image is missing.
    """
    images = read_images(region, results, check_region(region, benchmarks))
    zoom = max(1, round(TILE / max(region.width, region.height)))
    tiles = [region.crop(image).repeat(zoom, axis=0).repeat(zoom, axis=1) for _, image in images]
    tile_height, tile_width = tiles[0].shape[:2]
    text_height = 2 * TEXT + 3 * GAP
    row_height, cell = tile_height + text_height, max(tile_width, 9 * TEXT)
    rows = _row_count(len(tiles), cell + GAP, row_height)
    columns = math.ceil(len(tiles) / rows)
    tiles_height = rows * row_height - text_height
    overview = _draw_overview(images[0][1], region, tiles_height)
    left = 2 * MARGIN + overview.width
    height = 2 * MARGIN + rows * row_height + TEXT
    canvas = Image.new('RGB', (left + columns * (cell + GAP) - GAP + MARGIN, height), 'white')
    pen = ImageDraw.Draw(canvas)
    canvas.paste(overview, (MARGIN, MARGIN + (tiles_height - overview.height) // 2))
    below = MARGIN + (tiles_height + overview.height) // 2 + GAP // 2
    title = f'{region.image} ({region.benchmark}, ×{results[0].scale})'
    _draw_text(pen, (MARGIN + overview.width // 2, below), title, overview.width, _font())
    best = max((result.scores[region.benchmark].psnr[region.image] for result, _ in images if result), default=0)
    for i, ((result, _), tile) in enumerate(zip(images, tiles)):
        x, y = left + i % columns * (cell + GAP), MARGIN + i // columns * row_height
        canvas.paste(Image.fromarray(tile), (x + (cell - tile_width) // 2, y))
        middle, below = x + cell // 2, y + tile_height + GAP // 2
        name, values, color, is_best = 'HR', 'PSNR / SSIM', FAINT, False
        if result is not None:
            scores = result.scores[region.benchmark]
            psnr, ssim = scores.psnr[region.image], scores.ssim[region.image]
            name, values, color = result.method, f'{psnr:.2f} / {ssim:.4f}', INK
            is_best = psnr == best and len(images) > 2
        _draw_text(pen, (middle, below), name, cell, _font(is_best))
        _draw_text(pen, (middle, below + TEXT + GAP // 2), values, cell, _font(is_best), color)
    position = f'The region begins at {region.x}, {region.y} and has {region.width}×{region.height} pixels.'
    note = f'PSNR (dB) / SSIM of the complete image, on Y. {position}'
    bottom = (canvas.width // 2, height - MARGIN - TEXT)
    _draw_text(pen, bottom, note, canvas.width - 2 * MARGIN, _font(size=TEXT - 6), FAINT)
    file = io.BytesIO()
    canvas.save(file, 'PNG')
    write_file(path, file.getvalue())


def _row_count(count: int, width: int, height: int) -> int:
    """Return the number of rows that makes a block of tiles about 1.5 times as wide as high."""
    ratios = [math.ceil(count / rows) * width / (rows * height) for rows in range(1, count + 1)]
    return 1 + min(range(count), key=lambda i: abs(math.log(ratios[i] / 1.5)))


def _draw_overview(pixels: np.ndarray, region: Region, height: int) -> Image.Image:
    """Return the complete image with the region marked, as high as the tiles but at most 1.6 times as wide."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    factor = min(height / image.height, 1.6 * height / image.width)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    image = image.resize(size, Image.Resampling.LANCZOS)
    edges = (region.x, region.y, region.x + region.width, region.y + region.height)
    x0, y0, x1, y1 = (round(factor * edge) for edge in edges)
    pen = ImageDraw.Draw(image)
    thickness = max(5, height // 130)
    for i in range(thickness):
        inset = thickness - 1 - i  # keeps the complete frame inside the image
        right, bottom = min(image.width - 1 - inset, x1 + i), min(image.height - 1 - inset, y1 + i)
        outline = 'white' if i in (0, thickness - 1) else FRAME  # visible on any background
        pen.rectangle((max(inset, x0 - i), max(inset, y0 - i), right, bottom), outline=outline)
    return image


@functools.cache
def _font(bold: bool = False, size: int = TEXT) -> Font:
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', name), size)


def _draw_text(
    pen: ImageDraw.ImageDraw, top: tuple[int, int], text: str, width: int, font: Font, color: tuple[int, ...] = INK
) -> None:
    """Draw one centered line; a text that is too long loses its middle, as names often begin or end alike."""
    text = printable(' '.join(text.split()))
    kept, shortened = len(text), text
    while font.getlength(shortened) > width and kept > 2:
        kept -= 1
        shortened = f'{text[: math.ceil(kept / 2)].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}'
    pen.text(top, shortened, color, font, anchor='ma')
