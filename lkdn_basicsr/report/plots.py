"""The plots of a report: PSNR against Multi-Adds with bubbles for the parameters, and learning curves."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.evaluate.results import Result
from lkdn_basicsr.report.label_placement import Bubble, place_labels
from lkdn_basicsr.report.style import COLORS, DPI, GRAY, new_figure, shorten

DASHES = ('-', '--', '-.', ':')  # with more methods than colors, the colors repeat with the next dashes
LARGEST = 1300  # square points: area of the largest bubble


def plot_complexity(results: Sequence[Result], published: Sequence[Published], benchmark: str, path: str) -> None:
    """Plot the mean PSNR against Multi-Adds; the area of a bubble is proportional to the number of parameters.

    Methods without Multi-Adds, such as bicubic, are dashed lines, in separate axes where they are far below. Measured
    methods are filled, published ones are hollow and gray. Methods without scores on this benchmark are left out, and
    those whose PSNR is infinite, because an image is exact.

    Args:
        published: At the scale of the results.
        path: Of the PNG, 6.4 inches wide.
    """
    entries: list[tuple[Result | Published, float]] = [
        *((result, result.scores[benchmark].mean_psnr) for result in results if benchmark in result.scores),
        *((entry, entry.sets[benchmark][0]) for entry in published if benchmark in entry.sets),
    ]
    entries = [(entry, psnr) for entry, psnr in entries if math.isfinite(psnr)]
    most = max((entry.params for entry, _ in entries if entry.params), default=0)
    bubbles: list[Bubble] = []
    lines: list[tuple[str, float]] = []
    for entry, psnr in entries:
        name, is_measured = shorten(entry.method), isinstance(entry, Result)
        if entry.multi_adds and entry.params:
            color = COLORS[len(bubbles) % len(COLORS)] if is_measured else GRAY
            radius = _radius(entry.params, most)
            bubbles.append(Bubble(name, entry.multi_adds / 1e9, psnr, radius, color, is_measured))
        else:
            lines.append((name, psnr))
    with new_figure(path, 6.4, 5.2) as figure:
        main, low = _add_axes(figure, [bubble.y for bubble in bubbles], [psnr for _, psnr in lines])
        _set_limits(main, bubbles, [psnr for _, psnr in lines] if low is None else [])
        for bubble in sorted(bubbles, key=lambda bubble: -bubble.radius):  # the small ones on top
            area, face = math.pi * bubble.radius**2, (bubble.color, 0.75) if bubble.filled else 'none'
            edge: dict[str, Any] = {'edgecolors': bubble.color, 'linewidths': 1.2, 'clip_on': False}
            main.scatter(bubble.x, bubble.y, s=area, color=face, zorder=3, **edge)
        line_axes = [low if low is not None and psnr < main.get_ylim()[0] else main for _, psnr in lines]
        notes = [_add_line(axes, *line) for axes, line in zip(line_axes, lines)]
        (main if low is None else low).set_xlabel('Multi-Adds of a 1280×720 output (G)')
        main.set_ylabel(f'PSNR on {shorten(benchmark)} (dB)', parse_math=False)
        _add_legend(main, bubbles, most)
        figure.canvas.draw()  # computes the layout, which must not change once labels are placed
        figure.set_layout_engine('none')
        place_labels(main, bubbles, _place_notes(line_axes, notes, [_disc(main, bubble) for bubble in bubbles]))


def plot_curves(results: Sequence[Result], path: str) -> None:
    """Plot the mean PSNR during training: a line for each method with curves, a panel for each benchmark.

    Args:
        path: Of the PNG, 6.4 inches wide with one panel and 9.6 with more.
    """
    results = [result for result in results if any(result.curves.values())]
    names = list(dict.fromkeys(name for result in results for name, curve in result.curves.items() if curve))
    columns = min(2, len(names))
    rows, width = math.ceil(len(names) / columns), 6.4 if columns == 1 else 9.6
    labels = [shorten(result.method, 44) for result in results]
    legend_columns = max(1, min(len(labels), int(8 * width / (6 + max(map(len, labels))))))
    dashes_and_colors = itertools.islice(itertools.cycle(itertools.product(DASHES, COLORS)), len(results))
    styles: list[dict[str, Any]] = [{'linestyle': dashes, 'color': color} for dashes, color in dashes_and_colors]
    height = 3.9 * rows + 0.28 * math.ceil(len(labels) / legend_columns) + 0.1
    with new_figure(path, width, height) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for axes in panels[len(names) :]:
            axes.remove()
        for name, axes in zip(names, panels):
            curves = [result.curves.get(name, []) for result in results]
            for curve, style in zip(curves, styles):
                steps, psnr = np.array(sorted(curve), dtype=float).reshape(-1, 2).T
                axes.plot(steps, psnr, marker='o' if len(curve) < 12 else None, markersize=4.5, **style)
            _limit_psnr(axes, [psnr for curve in curves for _, psnr in curve if math.isfinite(psnr)])
            axes.set_title(shorten(name), fontsize=12, parse_math=False)
            axes.set(xlabel='Iteration', ylabel='PSNR (dB)')
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _abbreviate(value)))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_xlim(left=0)
        handles = [Line2D([], [], **style) for style in styles]
        blank = [''] * len(handles)
        legend = figure.legend(handles, blank, loc='outside lower center', frameon=False, ncols=legend_columns)
        for text, label in zip(legend.get_texts(), labels):
            text.set_parse_math(False)  # as arguments of legend(), labels with $ would be formulas, and _… left out
            text.set_text(label)


def _radius(params: int, most: int) -> float:
    """Return the radius of a bubble in points; that of ``most`` parameters has the largest area."""
    return math.sqrt(LARGEST * params / most / math.pi)


def _disc(axes: Axes, bubble: Bubble) -> Bbox:
    """Return the bounding box of a bubble, in pixels."""
    center, radius = axes.transData.transform((bubble.x, bubble.y)), bubble.radius * DPI / 72
    return Bbox([center - radius, center + radius])


def _add_line(axes: Axes, name: str, psnr: float) -> Annotation:
    """Draw a dashed line and return its note, which :func:`_place_notes` moves."""
    axes.axhline(psnr, color=GRAY, linestyle='--', linewidth=1.3, zorder=1)
    place: dict[str, Any] = {'xycoords': ('axes fraction', 'data'), 'xytext': (0, 3), 'textcoords': 'offset points'}
    style: dict[str, Any] = {'ha': 'right', 'color': GRAY, 'fontsize': 10.5, 'parse_math': False}
    return axes.annotate(f'{name}, {psnr:.2f} dB', (0.995, psnr), **place, **style)


def _place_notes(axes: Sequence[Axes], notes: Sequence[Annotation], discs: Sequence[Bbox]) -> list[Bbox]:
    """Move each note where it covers no bubble, on the right if possible; return the boxes of the lines and notes."""
    boxes: list[Bbox] = []
    places = [(ha, va) for ha in ('right', 'left', 'center') for va in ('bottom', 'top')]
    for one, note in zip(axes, notes):
        covered = [_move_note(note, *place).count_overlaps([*discs, *boxes]) for place in places]
        box = _move_note(note, *places[covered.index(min(covered))])
        level = one.transData.transform((0, note.xy[1]))[1]
        boxes += [box, Bbox([(one.bbox.x0, level - 4), (one.bbox.x1, level + 4)])]
    return boxes


def _move_note(note: Annotation, ha: str, va: str) -> Bbox:
    x = {'right': 0.995, 'left': 0.005, 'center': 0.5}[ha]
    note.xy, note.xyann = (x, note.xy[1]), (0, 3 if va == 'bottom' else -4)
    note.set(ha=ha, va=va)
    return note.get_window_extent()


def _add_axes(figure: Figure, points: Sequence[float], lines: Sequence[float]) -> tuple[Axes, Axes | None]:
    """Add the axes, and axes below a break of the PSNR axis where a line is far below the points.

    One axis down to bicubic, often 4 dB below, would leave little height for the points.
    """
    below = [psnr for psnr in lines if points and psnr < min(points)]
    spread = max(max(points, default=0) - min(points, default=0), 0.1)
    if not below or len(points) < 2 or min(points) - min(below) <= 0.5 * spread:
        return figure.add_subplot(), None
    main, low = figure.subplots(2, sharex=True, height_ratios=(8, 1))
    main.spines.bottom.set_visible(False)
    main.tick_params(bottom=False, which='both')
    low.set_ylim(min(below) - 0.15, max(below) + 0.45)
    low.set_yticks([])  # the line's note has its PSNR
    for axes, y in ((main, 0), (low, 1)):  # the strokes that mark the break
        stroke = Line2D([0], [y], marker=[(-5, -3), (5, 3)], markersize=11, linestyle='none', color='#444444')
        stroke.set(transform=axes.transAxes, clip_on=False)
        axes.add_line(stroke)
    return main, low


def _set_limits(axes: Axes, bubbles: Sequence[Bubble], lines: Sequence[float]) -> None:
    """Leave space for bubbles and labels; use a logarithmic axis where Multi-Adds differ by more than 8 times."""
    psnr = [bubble.y for bubble in bubbles] + list(lines) or [0.0]  # where all methods are left out
    margin = max(0.22 * (max(psnr) - min(psnr)), 0.1)
    axes.set_ylim(min(psnr) - margin, max(psnr) + margin)
    if not bubbles:
        axes.set_xticks([])
        return
    least, most = (select(bubble.x for bubble in bubbles) for select in (min, max))
    if most > 8 * least:
        axes.set_xscale('log')
        edge = (most / least) ** 0.15
        axes.set_xlim(least / edge, most * edge)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        edge = max(0.25 * (most - least), 0.2 * most)
        axes.set_xlim(max(0, least - edge), most + edge)


def _add_legend(axes: Axes, bubbles: Sequence[Bubble], most: int) -> None:
    """Explain sizes and hollow bubbles above the axes, where no bubble is."""
    if not bubbles:
        return
    sizes = sorted({_round_down(most * part) for part in (1, 0.4, 0.1)})
    gray: dict[str, Any] = {'color': '#d0d0d0', 'edgecolors': '#888888'}
    handles = [axes.scatter([], [], s=math.pi * _radius(size, most) ** 2, **gray) for size in sizes]
    names = [_abbreviate(size, ' ') for size in sizes]
    if not all(bubble.filled for bubble in bubbles):
        handles.append(axes.scatter([], [], s=120, color='none', edgecolors=GRAY, linewidths=1.2))
        names.append('as published')
    place: dict[str, Any] = {'loc': 'lower left', 'bbox_to_anchor': (-0.02, 1.0), 'alignment': 'left', 'frameon': False}
    spacing: dict[str, Any] = {'columnspacing': 1.6, 'borderpad': 0.8, 'handlelength': 2.6, 'handletextpad': 0.7}
    title: dict[str, Any] = {'title': 'Parameters', 'title_fontsize': 10.5}
    legend = axes.legend(handles, names, ncols=len(names), fontsize=10.5, **title, **place, **spacing)
    legend.get_title().set_color('#444444')


def _round_down(value: float) -> int:
    """Return the next lower 1, 2, 3 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(value))
    return int(max(digit * power for digit in (1, 2, 3, 5) if digit * power <= value))


def _abbreviate(value: float, separator: str = '') -> str:
    unit, symbol = (1e6, f'{separator}M') if value >= 1e6 else (1e3, f'{separator}K') if value >= 1e3 else (1, '')
    return f'{value / unit:g}{symbol}'


def _limit_psnr(axes: Axes, psnr: Sequence[float]) -> None:
    """Limit the axis to Tukey's lower fence and the best: the first validations are often 10 dB below the others."""
    if psnr:
        quarter, three_quarters, best = np.quantile(psnr, (0.25, 0.75, 1))
        lowest = max(min(psnr), quarter - 1.5 * (three_quarters - quarter))
        margin = max(0.06 * (best - lowest), 0.05)
        axes.set_ylim(lowest - margin, best + margin)
