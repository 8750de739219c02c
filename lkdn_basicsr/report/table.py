"""The columns of the tables of results, and the tables as Markdown (as in the paper's Table 5) and as CSV."""

import csv
import dataclasses
import functools
import io
import itertools
import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from lkdn_basicsr.errors import printable
from lkdn_basicsr.evaluate.latency import device_name
from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.evaluate.results import Result

PUBLISHED_HEADING = 'As published, not measured here'
_MARKDOWN = {'best': '**{}**', 'second': '<u>{}</u>', '': '{}'}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the tables; Markdown joins the columns of a benchmark."""

    heading: str  # in Markdown and on the page
    csv_name: str
    value: Callable[[Any], Any]  # of a Result or Published; returns None where there is none
    text: Callable[[Any], str] = str  # formats a value for Markdown and the page
    csv_text: Callable[[Any], str] = str
    benchmark: str = ''  # that it is a score on


@dataclasses.dataclass(frozen=True)
class Cell:
    """The text of a cell, '' where there is no value, and its mark: 'best', 'second' or ''."""

    text: str
    mark: str = ''


def _in_units(per_unit: float, digits: int, least: float) -> Callable[[float], str]:
    """Return a function that formats a value in another unit; a value below ``least`` gets one more digit."""
    return lambda value: f'{value * per_unit:,.{digits + (value < least)}f}'


METHOD = Column('Method', 'method', attrgetter('method'))
SCALE = Column('Scale', 'scale', attrgetter('scale'), '×{}'.format)
PARAMS = Column('Params [K]', 'params', attrgetter('params'), _in_units(1e-3, 0, 1e4))
MULTI_ADDS = Column('Multi-Adds [G]', 'multi_adds', attrgetter('multi_adds'), _in_units(1e-9, 1, 1e9))
_ms = attrgetter('latency')
LATENCY = Column('Latency [ms]', 'latency', _ms, _in_units(1e3, 0, 0.1), lambda value: f'{value * 1000:.3f}')
TRAINING = Column('Training [s]', 'seconds', attrgetter('seconds'), '{:,.0f}'.format, '{:.1f}'.format)
SOURCE = Column('Source', 'source', attrgetter('source'))


def _score(benchmark: str, metric: int, entry: Result | Published) -> float | None:
    if isinstance(entry, Published):
        return entry.sets[benchmark][metric] if benchmark in entry.sets else None
    scores = entry.scores.get(benchmark)
    return None if scores is None else (scores.mean_psnr, scores.mean_ssim)[metric]


def score_columns(benchmarks: Sequence[str]) -> list[Column]:
    """Return the columns PSNR and SSIM of each benchmark."""
    return [
        Column(heading, f'{name}_{heading.lower()}', functools.partial(_score, name, i), text, '{:.6f}'.format, name)
        for name in benchmarks
        for i, (heading, text) in enumerate((('PSNR', '{:.2f}'.format), ('SSIM', '{:.4f}'.format)))
    ]


def cost_columns(results: Sequence[Result]) -> list[Column]:
    """Return the columns of latency and of training time, without those that no result has a value for."""
    return [c for c in (LATENCY, TRAINING) if any(c.value(result) is not None for result in results)]


def published_on(published: Sequence[Published], benchmarks: Sequence[str]) -> list[str]:
    """Return the benchmarks that there are published scores on."""
    return [name for name in benchmarks if any(name in entry.sets for entry in published)]


def column_cells(column: Column, entries: Sequence[Result] | Sequence[Published]) -> list[Cell]:
    """Return the cells of a column.

    Of the measured networks (not bicubic) the best score and the second best are marked, as they are printed.
    """
    texts = ['' if (value := column.value(entry)) is None else column.text(value) for entry in entries]
    ranked = [bool(column.benchmark) and isinstance(entry, Result) and entry.params is not None for entry in entries]
    scores = [text for text, is_ranked in zip(texts, ranked) if text and is_ranked]
    best_first = sorted(set(scores), key=float, reverse=True) if len(scores) > 1 else []
    marks = dict(zip(best_first, ('best', 'second')))
    return [Cell(text, marks.get(text, '') if is_ranked else '') for text, is_ranked in zip(texts, ranked)]


def markdown(results: Sequence[Result], published: Sequence[Published] = ()) -> str:
    """Return the table of results at one scale, how they were measured, and a table of published scores."""
    benchmarks = _benchmarks(results)
    costs = cost_columns(results)
    if LATENCY in costs:
        costs[0] = dataclasses.replace(LATENCY, heading=f'{LATENCY.heading} on {device_name()}')
    fixed = [METHOD, SCALE, PARAMS, MULTI_ADDS]
    text = f'{_markdown_table([*fixed, *score_columns(benchmarks), *costs], results)}\n{protocol(results)}\n'
    if published:
        columns = [*fixed, *score_columns(published_on(published, benchmarks)), SOURCE]
        text += f'\n## {PUBLISHED_HEADING}\n\n{_markdown_table(columns, published)}'
    return text


def _markdown_table(columns: Sequence[Column], entries: Sequence[Result] | Sequence[Published]) -> str:
    headings, contents = [], []
    for (benchmark, _), group in itertools.groupby(columns, lambda c: (c.benchmark, c.benchmark or c.heading)):
        joined = list(group)
        headings.append(_escape(f'{benchmark} {" / ".join(column.heading for column in joined)}'.strip()))
        texts = [[_MARKDOWN[cell.mark].format(_escape(cell.text)) for cell in column_cells(c, entries)] for c in joined]
        contents.append([' / '.join(filter(None, scores)) for scores in zip(*texts)])
    rows = [' | '.join(row) for row in (headings, *zip(*contents))]
    rows.insert(1, ' | '.join([':--', *['--:'] * (len(headings) - 1)]))  # to the left, then to the right
    return ''.join(f'| {row} |\n' for row in rows)


def _escape(text: str) -> str:
    """Return a text so that Markdown shows it as it is. Brackets in headings are units, not links."""
    return re.sub(r'[\\`*<|]', r'\\\g<0>', printable(text))


def protocol(results: Sequence[Result]) -> str:
    """Return how the results were measured: one paragraph, to be printed below their table."""
    latency = ' Latency is for the same output, float32, one image at a time: the median after a warm-up.'
    return (
        'PSNR [dB] / SSIM on Y of YCbCr, outputs rounded to 8 bits, without a border of '
        f"{results[0].scale} pixels; LR images and the method Bicubic by MATLAB's bicubic resize. Best in bold, second "
        'best underlined. Re-parameterized networks are fused. Multi-Adds are for an output of 1280×720: '
        'multiplications of convolutions, linear layers, matrix products and attention, and two per value of a '
        'normalization layer; not those of activations, elementwise products, pooling and interpolation.'
    ) + (latency if LATENCY in cost_columns(results) else '')


def csv_text(results: Sequence[Result]) -> str:
    """Return the results as CSV.

    The columns are ``method, scale, params, multi_adds``, ``BENCHMARK_psnr`` [dB] and ``BENCHMARK_ssim`` of each
    benchmark, ``latency`` [ms], and ``seconds`` of training where any result has them.
    """
    costs = dict.fromkeys([LATENCY, *cost_columns(results)])  # LATENCY in any case
    columns = [METHOD, SCALE, PARAMS, MULTI_ADDS, *score_columns(_benchmarks(results)), *costs]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow([column.csv_name for column in columns])
    for result in results:
        values = [column.value(result) for column in columns]
        writer.writerow(['' if value is None else column.csv_text(value) for column, value in zip(columns, values)])
    return stream.getvalue()


def _benchmarks(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.scores))
