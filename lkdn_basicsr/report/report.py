"""The report of ``study`` and ``compare``: tables, plots, visual comparisons and the page, in one folder."""

import os
import re
from collections.abc import Sequence

from lkdn_basicsr.evaluate.benchmarks import Benchmark
from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.evaluate.results import Result
from lkdn_basicsr.files import write_file
from lkdn_basicsr.report import plots, table
from lkdn_basicsr.report.page import write_page
from lkdn_basicsr.report.regions import BenchmarkImage, find_regions, locate_region
from lkdn_basicsr.report.visual_comparison import draw_comparison

REGIONS = 6


def write_report(
    out: str,
    title: str,
    results: Sequence[Result],
    benchmarks: Sequence[Benchmark],
    published: Sequence[Published] = (),
    regions: Sequence[BenchmarkImage] | None = None,
) -> None:
    """Write a report.

    The files are ``table.md``, ``table.csv``, ``complexity.png``, ``curves.png`` if there are learning curves,
    ``comparison-BENCHMARK-IMAGE.png`` for each region, and ``index.html``. Each is written atomically.

    Args:
        results: At one scale, in the order of the tables, with bicubic.
        published: Those of another scale are left out.
        regions: For the visual comparison. If None, the six where the methods differ most, each of another image.

    Raises:
        InputError: A region is not in the benchmarks, or an image is missing.
        OSError: A file cannot be written.
    """
    located = [locate_region(region, results, benchmarks) for region in regions or ()]
    if regions is None:
        located = find_regions(results, benchmarks, REGIONS)
    published = [entry for entry in published if entry.scale == results[0].scale]
    write_file(os.path.join(out, 'table.md'), table.markdown(results, published))
    write_file(os.path.join(out, 'table.csv'), table.csv_text(results))

    names = [benchmark.name for benchmark in benchmarks]
    with_published = table.published_on(published, names)
    plotted = 'Urban100' if 'Urban100' in names else (with_published or names)[-1]
    path = os.path.join(out, 'complexity.png')
    plots.plot_complexity(results, published, plotted, path)
    caption = f'PSNR on {plotted} against Multi-Adds; the area of a bubble is proportional to the number of parameters.'
    if plotted in with_published:
        caption += ' Filled: measured here. Hollow: as published.'
    figures = {'Complexity': (path, caption)}
    if any(any(result.curves.values()) for result in results):
        path = os.path.join(out, 'curves.png')
        plots.plot_curves(results, path)
        figures['Learning curves'] = (path, 'Mean PSNR on each benchmark during training.')

    for name, region in zip(_file_names(located), located):
        draw_comparison(region, results, benchmarks, os.path.join(out, name))
    write_page(os.path.join(out, 'index.html'), title, results, published, benchmarks, located, figures)


def _file_names(regions: Sequence[BenchmarkImage]) -> list[str]:
    """Return a file name for each region, numbered where several are of one image."""
    names: list[str] = []
    for region in regions:
        stem = re.sub(r'[^\w.-]+', '_', f'comparison-{region.benchmark}-{region.image}')
        stem = stem.encode()[:200].decode(errors='ignore')  # of the 255 bytes that a name may have
        same = sum(re.fullmatch(re.escape(stem) + r'(-\d+)?\.png', name) is not None for name in names)
        names.append(f'{stem}-{same + 1}.png' if same else f'{stem}.png')
    return names
