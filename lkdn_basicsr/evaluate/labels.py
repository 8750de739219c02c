"""Names beside bubbles, where they hide neither bubbles nor each other."""
import itertools

import numpy as np
from matplotlib.transforms import Bbox, IdentityTransform

DIRECTIONS = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
GAPS = (3, 12, 26, 44)  # points between a bubble and its label; the far ones get a line to their bubble
ROUNDS = 4


def place(axes, bubbles, taken=(), fontsize=10.5):
    """Write a label beside each bubble.

    Each label takes the cheapest of 32 places around its bubble, by the area that it would cover of bubbles, other
    labels and what lies outside the axes; then again, a few rounds, in view of where the others went.

    Args:
        axes (Axes): With its final limits and layout.
        bubbles (list[tuple[str, float, float, float, str]]): Name, x and y in data, radius in points, colour of the
            text.
        taken (list[Bbox]): What else is not to be covered, in pixels.
    """
    figure = axes.figure
    renderer = figure.canvas.get_renderer()
    point = figure.dpi / 72
    centres = axes.transData.transform([(x, y) for _, x, y, _, _ in bubbles]) if bubbles else np.empty((0, 2))
    radii = [radius * point for *_, radius, _ in bubbles]
    obstacles = [_box(x, y, radius, radius) for (x, y), radius in zip(centres, radii)]
    texts, places = [], []
    for (name, *_, colour), centre, radius in zip(bubbles, centres, radii):
        text = axes.text(0, 0, name, color=colour, fontsize=fontsize, ha='center', va='center', parse_math=False,
                         zorder=5, transform=IdentityTransform())
        extent = text.get_window_extent(renderer)
        texts.append(text)
        places.append(list(_places(centre, radius, extent.width / 2 + point, extent.height / 2 + point, point)))
    chosen = [options[0] for options in places]
    for _, i in itertools.product(range(ROUNDS), range(len(places))):
        others = [box for j, (box, _) in enumerate(chosen) if j != i]
        chosen[i] = min(places[i], key=lambda place: _cost(place, i, obstacles, [*others, *taken], axes.bbox, point))
    for text, (box, gap), obstacle in zip(texts, chosen, obstacles):
        text.set_position(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))
        if gap > GAPS[1]:
            axes.annotate('', *_line(obstacle, box), xycoords='figure pixels', textcoords='figure pixels',
                          arrowprops={'arrowstyle': '-', 'color': text.get_color(), 'linewidth': 0.8})


def _places(centre, radius, half_width, half_height, point):
    for gap in GAPS:
        for across, up in DIRECTIONS:
            slant = 0.72 if across and up else 1
            x = centre[0] + across * ((radius + gap * point) * slant + half_width)
            y = centre[1] + up * ((radius + gap * point) * slant + half_height)
            yield _box(x, y, half_width, half_height), gap


def _cost(place, own, obstacles, others, frame, point):
    """Square pixels covered, with what else is bad in the same unit."""
    box, gap = place
    covered = sum(_overlap(box, obstacle) for obstacle in obstacles) + 2 * sum(_overlap(box, other) for other in others)
    outside = box.width * box.height - _overlap(box, frame)
    # A label nearer to another bubble than to its own would be taken for the other's.
    distances = [_distance(box, obstacle) for obstacle in obstacles]
    mistakable = sum(distance < distances[own] + 2 * point for distance in distances) - 1
    crossed = 0
    if gap > GAPS[1]:
        start, end = _line(obstacles[own], box)
        points = start + np.linspace(0, 1, 24)[:, None] * (end - start)
        crossed = sum(other.contains(*spot) for other in (*others, *obstacles[:own], *obstacles[own + 1:])
                      for spot in points)  # yapf: disable
    return covered + 2 * outside + (2 * gap + 60 * mistakable + 12 * crossed) * point**2


def _distance(a, b):
    return np.hypot(max(0, a.x0 - b.x1, b.x0 - a.x1), max(0, a.y0 - b.y1, b.y0 - a.y1))


def _overlap(a, b):
    return max(0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0, min(a.y1, b.y1) - max(a.y0, b.y0))


def _box(x, y, half_width, half_height):
    return Bbox([[x - half_width, y - half_height], [x + half_width, y + half_height]])


def _line(bubble, box):
    """From the edge of a bubble to the nearest point of its label: two points."""
    centre, radius = (bubble.min + bubble.max) / 2, bubble.width / 2
    end = np.clip(centre, box.min, box.max)
    return centre + (end - centre) * radius / max(np.hypot(*(end - centre)), 1e-9), end
