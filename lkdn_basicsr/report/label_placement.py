"""Names beside bubbles, where they hide neither bubbles nor each other.

adjustText 1.4 was tried in its place: among a dozen bubbles of these sizes it writes over them.
"""

import math

import numpy as np
from matplotlib.transforms import IdentityTransform

DIRECTIONS = [(math.cos(angle), math.sin(angle)) for angle in np.arange(16) * math.pi / 8]
GAPS = (3, 12, 24, 38, 54)  # points between a bubble and its label; all but the nearest get a line to their bubble
STARTS, ROUNDS = 8, 6
MISTAKABLE, CROSSED, AWAY = 240, 60, 6  # cost of these, where a covered square point is 4 or 6


def place(axes, bubbles, taken=()):
    """Write a label beside each bubble.

    Each label takes the cheapest of 80 places around its bubble, by the area that it would cover of bubbles, other
    labels and what lies outside the axes, and by how well it is told whose it is; then again, a few rounds, in view of
    where the others went. Of several such starts, in different orders, the best is drawn.

    Args:
        axes (Axes): With its final limits and layout.
        bubbles (list[tuple[str, float, float, float, dict]]): Name, x and y in data, radius in points, properties of
            the text.
        taken (list[Bbox]): What else is not to be covered, in pixels.
    """
    if not bubbles:
        return
    renderer, point = axes.figure.canvas.get_renderer(), axes.figure.dpi / 72
    texts = [
        axes.text(
            0, 0, name, ha='center', va='center', parse_math=False, zorder=5, transform=IdentityTransform(), **look
        )
        for name, *_, look in bubbles
    ]
    sizes = [text.get_window_extent(renderer) for text in texts]
    halves = np.array([(size.width / 2 + point, size.height / 2 + point) for size in sizes])
    centres = axes.transData.transform([(x, y) for _, x, y, _, _ in bubbles])
    radii = np.array([radius * point for *_, radius, _ in bubbles])
    discs = _boxes(centres, radii[:, None])
    places = [_places(centre, radius, half, point) for centre, radius, half in zip(centres, radii, halves)]
    gaps = np.repeat(GAPS, len(DIRECTIONS))
    away = np.tile([1 - across for across, _ in DIRECTIONS], len(GAPS))  # from the right, where one looks first
    lines = [_lines(centre, radius, boxes) for centre, radius, boxes in zip(centres, radii, places)]
    frame, taken = axes.bbox.extents, np.array([box.extents for box in taken]).reshape(-1, 4)
    alone = []  # the cost of each place, whatever the other labels do
    for i, (boxes, spots) in enumerate(zip(places, lines)):
        others = np.delete(np.arange(len(bubbles)), i)
        outside = np.prod(2 * halves[i]) - _overlaps(boxes, frame[None])[:, 0]
        own = _distances(boxes, centres[[i]], radii[[i]])
        mistakable = (_distances(boxes, centres[others], radii[others]) < 1.5 * own + 3 * point).sum(axis=1)
        mistakable = np.where(gaps > GAPS[0], 0.2, 1) * mistakable  # its line says whose label it is
        crossed = np.where(gaps > GAPS[0], _inside(spots, discs[others]), 0)
        covered = _overlaps(boxes, np.concatenate([discs, taken])).sum(axis=1)
        worth = 2 * gaps + AWAY * away + MISTAKABLE * mistakable + CROSSED * crossed
        alone.append(4 * covered + 6 * outside + worth * point**2)

    def costs(i, chosen):
        """Of all places of a label, with the others where they are."""
        labels = np.array([places[j][k] for j, k in enumerate(chosen) if j != i]).reshape(-1, 4)
        theirs = np.concatenate(
            [lines[j][[k]] for j, k in enumerate(chosen) if j != i and gaps[k] > GAPS[0]] or [np.empty((0, 1, 2))]
        )
        crossed = np.where(gaps > GAPS[0], _inside(lines[i], labels), 0) + sum(
            _inside(line[None], places[i][:, None]) for line in theirs
        )
        return alone[i] + 6 * _overlaps(places[i], labels).sum(axis=1) + CROSSED * crossed * point**2

    best = min(
        (_settle(costs, [cost.argmin() for cost in alone], seed) for seed in range(STARTS)),
        key=lambda chosen: sum(costs(i, chosen)[k] for i, k in enumerate(chosen)),
    )
    for i, (text, k) in enumerate(zip(texts, best)):
        box = places[i][k]
        text.set_position((box[:2] + box[2:]) / 2)
        if gaps[k] > GAPS[0]:
            axes.annotate(
                '',
                lines[i][k, 0],
                lines[i][k, -1],
                xycoords='figure pixels',
                textcoords='figure pixels',
                arrowprops={'arrowstyle': '-', 'color': text.get_color(), 'linewidth': 0.8, 'shrinkA': 0, 'shrinkB': 0},
            )


def _settle(costs, chosen, seed):
    order = np.random.default_rng(seed).permutation(len(chosen))
    for _ in range(ROUNDS):
        before = list(chosen)
        for i in order:
            chosen[i] = costs(i, chosen).argmin()
        if chosen == before:
            break
    return chosen


def _places(centre, radius, half, point):
    """Boxes (80, 4) around a bubble: the label's nearest point is a gap away from it."""
    middles = []
    for gap in GAPS:
        for direction in np.array(DIRECTIONS):
            reach = radius + gap * point
            # The box touches the circle of that radius in this direction, with its side where that points straight.
            middles.append(centre + reach * direction + half * np.clip(direction * 1.6, -1, 1))
    return _boxes(np.array(middles), half)


def _boxes(middles, halves):
    return np.concatenate([middles - halves, middles + halves], axis=1)


def _lines(centre, radius, boxes):
    """From the edge of a bubble to the nearest point of each box: (80, 24, 2) points."""
    ends = np.clip(centre, boxes[:, :2], boxes[:, 2:])
    away = ends - centre
    starts = centre + away * (radius / np.maximum(np.hypot(*away.T), 1e-9))[:, None]
    return starts[:, None] + np.linspace(0, 1, 24)[:, None] * (ends - starts)[:, None]


def _overlaps(a, b):
    """Areas that the boxes (n, 4) and (m, 4) have in common: (n, m)."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    return np.prod(sides.clip(0), axis=2)


def _distances(boxes, centres, radii):
    """Between boxes (n, 4) and discs (m): (n, m); negative where they overlap."""
    nearest = np.clip(centres, boxes[:, None, :2], boxes[:, None, 2:])
    return np.hypot(*np.moveaxis(nearest - centres, 2, 0)) - radii


def _inside(lines, boxes):
    """How many points of each line (n, 24, 2) lie in boxes (m, 4), or in those of its own (n, m, 4): (n,)."""
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    spots = lines[:, None]
    return ((spots > low) & (spots < high)).all(axis=-1).sum(axis=(1, 2))
