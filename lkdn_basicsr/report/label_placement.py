"""Place labels next to the bubbles of a plot.

Each label has 80 candidate positions: 16 directions around its bubble at 5 distances. A position costs more the more
it covers of bubbles, other labels and anything outside the axes, and the easier its label is attributed to another
bubble. Label by label, each moves to its cheapest position given those of the others, for a few rounds and from
several random orders, and the cheapest arrangement is drawn.

adjustText 1.4 was tried instead: with a dozen bubbles of these sizes it draws labels over them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox, IdentityTransform

DIRECTIONS = [(math.cos(angle), math.sin(angle)) for angle in np.arange(16) * math.pi / 8]
DISTANCES = (3, 12, 24, 38, 54)  # points between a bubble and its label; from the second on a line connects them
STARTS, ROUNDS = 8, 6
AMBIGUOUS, CROSSED, SIDE = 240, 60, 6  # cost of these, where a square point costs 4 or 6

_DISTANCE, _DIRECTION = np.repeat(DISTANCES, len(DIRECTIONS)), np.tile(DIRECTIONS, (len(DISTANCES), 1))  # of candidates
_HAS_LINE = _DISTANCE > DISTANCES[0]
_OFF_RIGHT = 1 - _DIRECTION[:, 0]  # labels are read first on the right


@dataclasses.dataclass
class Bubble:
    """A bubble and its label; x and y are data coordinates."""

    name: str
    x: float
    y: float
    radius: float  # in points
    color: str
    filled: bool = True  # with the color of its edge; the label is then black and larger


def place_labels(axes: Axes, bubbles: Sequence[Bubble], occupied: Sequence[Bbox] = ()) -> None:
    """Draw the label of each bubble.

    Args:
        axes: With its final limits and layout.
        occupied: What else the labels must not cover, in pixels.
    """
    if not bubbles:
        return
    point = axes.figure.dpi / 72
    texts = [_add_text(axes, bubble) for bubble in bubbles]
    halves = np.array([text.get_window_extent().size for text in texts]) / 2 + point
    centers = axes.transData.transform([(bubble.x, bubble.y) for bubble in bubbles])
    radii = np.array([bubble.radius * point for bubble in bubbles])
    # A box touches the circle of this radius in its direction, with a side where the direction is straight.
    circles = (radii[:, None] + _DISTANCE * point)[..., None]
    middles = centers[:, None] + circles * _DIRECTION + halves[:, None] * np.clip(_DIRECTION * 1.6, -1, 1)
    boxes = _boxes(middles, halves[:, None])
    lines = [_lines(*bubble) for bubble in zip(centers, radii, boxes)]
    discs = _boxes(centers, radii[:, None])
    frame = np.array([axes.bbox.extents])
    covering = np.concatenate([discs, np.array([box.extents for box in occupied]).reshape(-1, 4)])
    fixed_costs = []  # of each candidate, which do not depend on the other labels
    for i in range(len(bubbles)):
        others = np.arange(len(bubbles)) != i
        outside = np.prod(2 * halves[i]) - _overlaps(boxes[i], frame)[:, 0]
        distances = _distances(boxes[i], centers, radii)
        is_near = distances[:, others] < 1.5 * distances[:, [i]] + 3 * point
        ambiguous = np.where(_HAS_LINE, 0.2, 1) * is_near.sum(axis=1)
        crossed = np.where(_HAS_LINE, _points_inside(lines[i], discs[others]), 0)
        covered = _overlaps(boxes[i], covering).sum(axis=1)
        cost = 2 * _DISTANCE + SIDE * _OFF_RIGHT + AMBIGUOUS * ambiguous + CROSSED * crossed
        fixed_costs.append(4 * covered + 6 * outside + cost * point**2)

    def costs(i: int, chosen: list[int]) -> np.ndarray:
        """Return the cost of each candidate of a label, given the positions of the others: (80,)."""
        others = [(boxes[j][k], lines[j][k], _HAS_LINE[k]) for j, k in enumerate(chosen) if j != i]
        labels = np.array([box for box, _, _ in others]).reshape(-1, 4)
        crossed = np.where(_HAS_LINE, _points_inside(lines[i], labels), 0)
        for _, line, is_drawn in others:
            if is_drawn:
                crossed = crossed + _points_inside(line[None], boxes[i][:, None])
        return fixed_costs[i] + 6 * _overlaps(boxes[i], labels).sum(axis=1) + CROSSED * crossed * point**2

    arrangements = [_settle(costs, [int(cost.argmin()) for cost in fixed_costs], seed) for seed in range(STARTS)]
    best = min(arrangements, key=lambda chosen: sum(costs(i, chosen)[k] for i, k in enumerate(chosen)))
    for text, k, candidates, candidate_lines in zip(texts, best, boxes, lines):
        text.set_position((candidates[k, :2] + candidates[k, 2:]) / 2)
        if _HAS_LINE[k]:
            arrow = {'arrowstyle': '-', 'color': text.get_color(), 'linewidth': 0.8, 'shrinkA': 0, 'shrinkB': 0}
            start, *_, end = candidate_lines[k]
            axes.annotate('', start, end, 'figure pixels', 'figure pixels', arrow)


def _add_text(axes: Axes, bubble: Bubble) -> Text:
    size, color = (10.5, 'black') if bubble.filled else (9.5, bubble.color)
    style: dict[str, Any] = {'transform': IdentityTransform(), 'ha': 'center', 'va': 'center', 'parse_math': False}
    return axes.text(0, 0, bubble.name, fontsize=size, color=color, zorder=5, **style)


def _settle(costs: Callable[[int, list[int]], np.ndarray], chosen: list[int], seed: int) -> list[int]:
    """Move the labels in turn, in a random order, until none moves."""
    order = np.random.default_rng(seed).permutation(len(chosen))
    for _ in range(ROUNDS):
        before = list(chosen)
        for i in order:
            chosen[i] = int(costs(i, chosen).argmin())
        if chosen == before:
            break
    return chosen


def _boxes(middles: np.ndarray, halves: np.ndarray) -> np.ndarray:
    return np.concatenate([middles - halves, middles + halves], axis=-1)


def _lines(center: np.ndarray, radius: float, boxes: np.ndarray) -> np.ndarray:
    """Return 24 points from the edge of a bubble to the nearest point of each box: (n, 24, 2)."""
    ends = np.clip(center, boxes[:, :2], boxes[:, 2:])
    offsets = ends - center
    starts = center + offsets * (radius / np.maximum(np.hypot(*offsets.T), 1e-9))[:, None]
    return starts[:, None] + np.linspace(0, 1, 24)[:, None] * (ends - starts)[:, None]


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the areas (n, m) that boxes (n, 4) and boxes (m, 4) have in common."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    return np.prod(sides.clip(0), axis=2)


def _distances(boxes: np.ndarray, centers: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the distances (n, m) between boxes (n, 4) and discs (m), negative where they overlap."""
    nearest = np.clip(centers, boxes[:, None, :2], boxes[:, None, 2:])
    return np.hypot(*np.moveaxis(nearest - centers, 2, 0)) - radii


def _points_inside(lines: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return how many points of each line (n, 24, 2) are in the boxes (m, 4), or in its own boxes (n, m, 4): (n,)."""
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    points = lines[:, None]
    return ((points > low) & (points < high)).all(axis=-1).sum(axis=(1, 2))
