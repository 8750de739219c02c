"""What ``study`` and ``compare`` leave behind: tables, plots, comparisons and the page, in one folder."""

import os
import re

from lkdn_basicsr.files import write_file
from lkdn_basicsr.report import page, plots, table
from lkdn_basicsr.report import regions as crops
from lkdn_basicsr.report import visual_comparison as comparison

REGIONS = 6


def write_report(out, title, results, sets, published=(), regions=None):
    """Write ``table.md``, ``table.csv``, ``complexity.png``, ``curves.png`` if there are learning curves,
    ``comparison-SET-PICTURE.png`` for each region, and ``index.html``; each whole or not at all.

    Args:
        out (str): Folder; made if it is missing.
        title (str): The page's heading.
        results (list[Result]): The methods, at one scale, in the order of the tables; bicubic among them.
        sets (list[Benchmark]): The test sets.
        published (list[Published]): Figures of others, shown apart; those of another scale are left out.
        regions (list[Region] | None): To compare; those without numbers are where methods differ most. Default: None,
            six of these, each of another picture.

    Returns:
        list[str]: The paths of the files.

    Raises:
        InputError: A region is not in the sets, a picture is missing, or a file cannot be written.
    """
    if regions is None:
        regions = crops.differing_regions(results, sets, REGIONS)
    regions = [crops.complete(region, results, sets) for region in regions]
    published = [entry for entry in published if entry.scale == results[0].scale]
    paths = []

    def path(name):
        paths.append(os.path.join(out, name))
        return paths[-1]

    write_file(path('table.md'), table.markdown(results, published).encode())
    write_file(path('table.csv'), table.csv_text(results).encode())
    names = [benchmark.name for benchmark in sets]
    others = [name for name in names if any(name in entry.sets for entry in published)]
    shown = 'Urban100' if 'Urban100' in names else (others or names)[-1]
    plots.plot_complexity(results, published, shown, path('complexity.png'))
    caption = f'PSNR on {shown} against Multi-Adds; the area of a bubble is proportional to the number of parameters.'
    if shown in others:
        caption += ' Filled: measured here. Hollow: as published.'
    figures = [(paths[-1], caption)]
    curves = None
    if any(any(result.curves.values()) for result in results):
        plots.plot_curves(results, path('curves.png'))
        curves = (paths[-1], 'Mean PSNR of each test set while training.')
    for name, region in zip(_names(regions), regions):
        comparison.draw(region, results, sets, path(name))
    page.write(path('index.html'), title, results, published, sets, regions, figures, curves)
    return paths


def _names(regions):
    """A file name for each region; numbered where several are of one picture."""
    names = []
    for region in regions:
        stem = re.sub(r'[^\w.-]+', '_', f'comparison-{region.set_name}-{region.picture}')
        same = sum(re.fullmatch(re.escape(stem) + r'(-\d+)?\.png', name) is not None for name in names)
        names.append(f'{stem}-{same + 1}.png' if same else f'{stem}.png')
    return names
