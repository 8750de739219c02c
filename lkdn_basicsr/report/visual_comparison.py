"""The papers' visual comparison: a picture with a region framed, and that region by each method, enlarged."""

import functools
import io
import math
import os

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lkdn_basicsr.files import write_file
from lkdn_basicsr.report import regions as crops

TILE = 300  # pixels of a tile's longer side, about: the zoom is a whole number
GAP, MARGIN, SIZE = 14, 20, 25  # pixels; of the text, the height
FRAME = (232, 48, 48)
INK, FAINT = (20, 20, 20), (105, 105, 105)


def draw(region, results, sets, path):
    """At the left the whole HR picture with the region framed; at the right the region in HR, bicubic and each method.

    Crops are enlarged by repeating pixels, a whole number of times. Each has its method's name and the PSNR/SSIM of
    the whole picture below it, the best in bold.

    Args:
        region (Region): With its numbers.
        results (list[Result]): The methods, in this order; those without the picture are left out.
        sets (list[Benchmark]): The test sets.
        path (str): of the PNG.

    Raises:
        InputError: The region is not in the sets, or a picture is missing.
    """
    benchmark = crops.check_region(region, sets)
    found = crops.pictures(region, results, benchmark)
    zoom = max(1, round(TILE / max(region.width, region.height)))
    tiles = [enlarge(region.of(image), zoom) for _, image in found]
    tile_height, tile_width = tiles[0].shape[:2]
    row_height = tile_height + 2 * SIZE + 3 * GAP
    cell = max(tile_width, 9 * SIZE)
    rows = _rows(len(tiles), cell + GAP, row_height)
    columns = math.ceil(len(tiles) / rows)
    block_height = rows * row_height - 2 * SIZE - 3 * GAP
    whole = _framed(found[0][1], region, block_height)
    left = 2 * MARGIN + whole.width
    height = 2 * MARGIN + rows * row_height + SIZE
    canvas = Image.new('RGB', (left + columns * (cell + GAP) - GAP + MARGIN, height), 'white')
    pen = ImageDraw.Draw(canvas)
    canvas.paste(whole, (MARGIN, MARGIN + (block_height - whole.height) // 2))
    bottom = MARGIN + (block_height + whole.height) // 2 + GAP // 2
    scale = f', ×{results[0].scale}' if results else ''
    _write(pen, (MARGIN + whole.width // 2, bottom), f'{region.picture} ({region.set_name}{scale})', whole.width)
    psnr = {id(r): r.scores[region.set_name].psnr[region.picture] for r, _ in found if r}
    ssim = {id(r): r.scores[region.set_name].ssim[region.picture] for r, _ in found if r}
    for i, ((result, _), tile) in enumerate(zip(found, tiles)):
        x = left + i % columns * (cell + GAP)
        y = MARGIN + i // columns * row_height
        canvas.paste(Image.fromarray(tile), (x + (cell - tile_width) // 2, y))
        middle, below = x + cell // 2, y + tile_height + GAP // 2
        name = result.method if result else 'HR'
        best = result is not None and len(psnr) > 1 and psnr[id(result)] == max(psnr.values())
        figures = f'{psnr[id(result)]:.2f} / {ssim[id(result)]:.4f}' if result else 'PSNR / SSIM'
        _write(pen, (middle, below), name, cell, bold=best)
        _write(pen, (middle, below + SIZE + GAP // 2), figures, cell, INK if result else FAINT, bold=best)
    note = (
        'PSNR (dB) / SSIM of the whole picture, on Y. '
        f'The region begins at {region.x}, {region.y} and has {region.width}×{region.height} pixels.'
    )
    _write(pen, (canvas.width // 2, height - MARGIN - SIZE), note, canvas.width - 2 * MARGIN, FAINT, size=SIZE - 6)
    file = io.BytesIO()
    canvas.save(file, 'PNG')
    write_file(path, file.getvalue())


def enlarge(image, zoom):
    """Each pixel of an (H, W, ...) picture ``zoom`` times in both directions."""
    return np.ascontiguousarray(image.repeat(zoom, axis=0).repeat(zoom, axis=1))


def _rows(count, width, height):
    """How many rows of tiles make a block about half as wide again as high."""

    def wrong(rows):
        return abs(math.log(math.ceil(count / rows) * width / (rows * height) / 1.5))

    return min(range(1, count + 1), key=wrong)


def _framed(picture, region, height):
    """The whole picture, as high as the crops beside it but at most 1.6 times as wide, with the region's frame."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    factor = min(height / image.height, 1.6 * height / image.width)
    image = image.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor))), Image.Resampling.LANCZOS
    )
    edges = [factor * edge for edge in (region.x, region.y, region.x + region.width, region.y + region.height)]
    x0, y0, x1, y1 = map(round, edges)
    pen = ImageDraw.Draw(image)
    thick = max(5, height // 130)
    for out in range(thick):
        colour = 'white' if out in (0, thick - 1) else FRAME  # seen on any ground
        keep = thick - 1 - out  # at the edges of the picture, where the frame must not leave it
        pen.rectangle(
            (
                max(keep, x0 - out),
                max(keep, y0 - out),
                min(image.width - 1 - keep, x1 + out),
                min(image.height - 1 - keep, y1 + out),
            ),
            outline=colour,
        )
    return image


@functools.cache
def _font(bold, size):
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', name), size)


def _write(pen, top_centre, text, width, colour=INK, bold=False, size=SIZE):
    """One line, centred; what is too long loses its middle, as names tend to begin and end differently."""
    font = _font(bold, size)
    text = ' '.join(text.split())
    kept, shown = len(text), text
    while font.getlength(shown) > width and kept > 2:
        kept -= 1
        shown = f'{text[: math.ceil(kept / 2)].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}'
    pen.text(top_centre, shown, colour, font, anchor='ma')
