"""The slide's plots: PSNR against Multi-Adds with bubbles for parameters, and learning curves."""

import math

import matplotlib
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from lkdn_basicsr.report.label_placement import place
from lkdn_basicsr.report.style import COLOURS, DPI, GREY, new_figure, own_style, save, short

DASHES = ('-', '--', '-.', ':')  # with more methods than colours, the colours come again with other dashes
LARGEST = 1300  # square points, of the largest bubble


def plot_complexity(results, published, set_name, path):
    """Mean PSNR against Multi-Adds; the area of a bubble is proportional to the number of parameters.

    Methods without Multi-Adds, as bicubic, are dashed lines; in a part of their own where they lie far below. What is
    measured here is filled, what others published hollow and grey.

    Args:
        results (list[Result]): Those without this test set are left out.
        published (list[Published]): Those of another scale, or without figures for this set, are left out.
        set_name (str): The test set.
        path (str): of the PNG, 6.4 inches wide.
    """
    results = [result for result in results if set_name in result.scores]
    lines = [(short(r.method), r.scores[set_name].mean_psnr) for r in results if not (r.multi_adds and r.params)]
    bubbles = [
        _Bubble(short(r.method), r.multi_adds / 1e9, r.scores[set_name].mean_psnr, r.params, colour)
        for r, colour in zip(_networks(results), _colours(len(results)))
        if r.multi_adds and r.params
    ]
    bubbles += [
        _Bubble(short(p.method), p.multi_adds / 1e9, p.sets[set_name][0], p.params, None)
        for p in published
        if set_name in p.sets and p.multi_adds and p.params and p.scale in {r.scale for r in results}
    ]
    with own_style():
        figure = new_figure(6.4, 5.2)
        main, low = _axes(figure, [bubble.psnr for bubble in bubbles], [psnr for _, psnr in lines])
        _limits(main, bubbles, lines if low is None else [])
        # The large ones first, so that they do not hide the small ones.
        for bubble in sorted(bubbles, key=lambda bubble: -bubble.params):
            main.scatter(
                bubble.multi_adds,
                bubble.psnr,
                s=_area(bubble.params, bubbles),
                color=bubble.face,
                edgecolors=bubble.edge,
                linewidths=1.2,
                clip_on=False,
                zorder=3,
            )
        notes = []
        for name, psnr in lines:
            axes = main if low is None or psnr >= main.get_ylim()[0] else low
            axes.axhline(psnr, color=GREY, linestyle='--', linewidth=1.3, zorder=1)
            notes.append(
                axes.annotate(
                    f'{name}, {psnr:.2f} dB',
                    (0.995, psnr),
                    xycoords=('axes fraction', 'data'),
                    xytext=(0, 3),
                    textcoords='offset points',
                    ha='right',
                    color=GREY,
                    fontsize=10.5,
                    parse_math=False,
                )
            )
        bottom = main if low is None else low
        bottom.set_xlabel('Multi-Adds of a 1280×720 output (G)')
        main.set_ylabel(f'PSNR on {set_name} (dB)', parse_math=False)
        _legend(main, bubbles)
        figure.canvas.draw()  # settles the layout, in which the labels find their places
        figure.set_layout_engine('none')
        radii = [math.sqrt(_area(bubble.params, bubbles) / math.pi) for bubble in bubbles]
        spots = main.transData.transform([(bubble.multi_adds, bubble.psnr) for bubble in bubbles] or [(0, 0)])
        discs = [Bbox([spot - radius * DPI / 72, spot + radius * DPI / 72]) for spot, radius in zip(spots, radii)]
        place(
            main,
            [
                (bubble.name, bubble.multi_adds, bubble.psnr, radius, bubble.look)
                for bubble, radius in zip(bubbles, radii)
            ],
            _place_notes(notes, discs),
        )
        save(figure, path)


def plot_curves(results, path):
    """Mean PSNR while training: a line for each method, a panel for each test set.

    Args:
        results (list[Result]): Those without curves are left out.
        path (str): of the PNG, 6.4 inches wide with one panel and 9.6 with more.
    """
    results = [result for result in results if any(result.curves.values())]
    names = list(dict.fromkeys(name for result in results for name, curve in result.curves.items() if curve))
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    with own_style():
        width = 6.4 if columns == 1 else 9.6
        labels = [short(result.method, 44) for result in results]
        across = max(1, min(len(labels), int(8 * width / (6 + max(map(len, labels))))))  # columns of the legend
        figure = new_figure(width, 3.9 * rows + 0.28 * math.ceil(len(labels) / across) + 0.1)
        panels = figure.subplots(rows, columns, squeeze=False)
        looks = [(colour, DASHES[i // len(COLOURS) % len(DASHES)]) for i, colour in enumerate(_colours(len(results)))]
        for i, axes in enumerate(panels.flat):
            if i >= len(names):
                axes.remove()
                continue
            curves = [result.curves.get(names[i], []) for result in results]
            for curve, (colour, dashes) in zip(curves, looks):
                steps, psnr = np.array(sorted(curve), dtype=float).reshape(-1, 2).T
                axes.plot(
                    steps, psnr, color=colour, linestyle=dashes, marker='o' if len(curve) < 12 else None, markersize=4.5
                )
            _fence(axes, [psnr for curve in curves for _, psnr in curve if math.isfinite(psnr)])
            axes.set_title(names[i], fontsize=12, parse_math=False)
            axes.set_xlabel('Iteration')
            axes.set_ylabel('PSNR (dB)')
            axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_xlim(left=0)
        handles = [Line2D([], [], color=colour, linestyle=dashes) for colour, dashes in looks]
        legend = figure.legend(handles, [''] * len(handles), loc='outside lower center', frameon=False, ncols=across)
        _plain(legend, labels)
        save(figure, path)


class _Bubble:
    """A method with a place in the plot; without a colour, a published one."""

    def __init__(self, name, multi_adds, psnr, params, colour):
        self.name, self.multi_adds, self.psnr, self.params = name, multi_adds, psnr, params
        self.face = 'none' if colour is None else (*matplotlib.colors.to_rgb(colour), 0.75)
        self.edge = GREY if colour is None else colour
        self.look = {'color': GREY, 'fontsize': 9.5} if colour is None else {'color': 'black', 'fontsize': 10.5}


def _place_notes(notes, discs):
    """Write the names of dashed lines where no bubble is, at the right if possible; returns what the lines and names
    take of the axes, in pixels."""
    boxes = []
    for note in notes:
        ways = [(end, va) for end in ('right', 'left', 'center') for va in ('bottom', 'top')]
        _way(note, *min(ways, key=lambda way: _covered(_way(note, *way), discs + boxes)))
        frame, level = note.axes.bbox, note.axes.transData.transform((0, note.xy[1]))[1]
        boxes += [note.get_window_extent(), Bbox([[frame.x0, level - 4], [frame.x1, level + 4]])]
    return boxes


def _way(note, end, va):
    x = {'right': 0.995, 'left': 0.005, 'center': 0.5}[end]
    note.xy, note.xyann = (x, note.xy[1]), (0, 3 if va == 'bottom' else -4)
    note.set(ha=end, va=va)
    return note.get_window_extent()


def _covered(box, discs):
    return sum(disc.overlaps(box) for disc in discs)


def _networks(results):
    return [result for result in results if result.multi_adds and result.params]


def _colours(count):
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _area(params, bubbles):
    return LARGEST * params / max(bubble.params for bubble in bubbles)


def _axes(figure, points, lines):
    """The axes, and those below a break of the PSNR axis, or None.

    Bicubic, often 4 dB below, would press the rest flat.
    """
    below = [psnr for psnr in lines if points and psnr < min(points)]
    spread = max(max(points, default=0) - min(points, default=0), 0.1)
    if not below or len(points) < 2 or min(points) - min(below) <= 0.5 * spread:
        return figure.add_subplot(), None
    main, low = figure.subplots(2, sharex=True, height_ratios=(8, 1))
    main.spines.bottom.set_visible(False)
    main.tick_params(bottom=False, which='both')
    low.set_ylim(min(below) - 0.15, max(below) + 0.45)
    low.set_yticks([])  # the line's label says its PSNR
    stroke = {
        'marker': [(-1, -0.6), (1, 0.6)],
        'markersize': 11,
        'linestyle': 'none',
        'color': '#444444',
        'clip_on': False,
    }
    main.plot(0, 0, transform=main.transAxes, **stroke)
    low.plot(0, 1, transform=low.transAxes, **stroke)
    return main, low


def _limits(axes, bubbles, lines):
    """Room for whole bubbles and their labels, and a logarithmic axis where Multi-Adds differ by more than 8 times."""
    psnr = [bubble.psnr for bubble in bubbles] + [value for _, value in lines]
    margin = max(0.22 * (max(psnr) - min(psnr)), 0.1)
    axes.set_ylim(min(psnr) - margin, max(psnr) + margin)
    if not bubbles:
        axes.set_xticks([])
        return
    least, most = (f(bubble.multi_adds for bubble in bubbles) for f in (min, max))
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


def _legend(axes, bubbles):
    """Sizes of bubbles, and what hollow ones are, above the axes, where no bubble is."""
    if not bubbles:
        return
    most = max(bubble.params for bubble in bubbles)
    sizes = sorted({_round(most * part) for part in (1, 0.4, 0.1)})
    handles = [axes.scatter([], [], s=_area(size, bubbles), color='#d0d0d0', edgecolors='#888888') for size in sizes]
    names = [_count(size) for size in sizes]
    if any(bubble.face == 'none' for bubble in bubbles):
        handles.append(axes.scatter([], [], s=120, color='none', edgecolors=GREY, linewidths=1.2))
        names.append('as published')
    legend = axes.legend(
        handles,
        names,
        loc='lower left',
        bbox_to_anchor=(-0.02, 1.0),
        ncols=len(names),
        frameon=False,
        title='Parameters',
        title_fontsize=10.5,
        fontsize=10.5,
        alignment='left',
        columnspacing=1.6,
        borderpad=0.8,
        handlelength=2.6,
        handletextpad=0.7,
    )
    legend.get_title().set_color('#444444')


def _round(value):
    """Down to 1, 2, 3 or 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(value))
    return int(max(digit * power for digit in (1, 2, 3, 5) if digit * power <= value))


def _count(value):
    return f'{value / 1e6:g} M' if value >= 1e6 else f'{value / 1e3:g} K' if value >= 1e3 else f'{value}'


def _fence(axes, psnr):
    """Keep the first validations, often 10 dB below, from pressing the rest flat: Tukey's lower fence, and the best."""
    if psnr:
        quarter, three_quarters, best = np.quantile(psnr, (0.25, 0.75, 1))
        lowest = max(min(psnr), quarter - 1.5 * (three_quarters - quarter))
        margin = max(0.06 * (best - lowest), 0.05)
        axes.set_ylim(lowest - margin, best + margin)


def _thousands(value, _):
    return f'{value / 1e6:g}M' if value >= 1e6 else f'{value / 1e3:g}K' if value >= 1e3 else f'{value:g}'


def _plain(legend, names):
    """The texts of a legend, as they are: given as labels, those with $ would be formulae, and _… be left out."""
    for text, name in zip(legend.get_texts(), names):
        text.set_parse_math(False)
        text.set_text(name)
