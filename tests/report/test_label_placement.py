import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lkdn_basicsr.report.label_placement import Bubble, place_labels


def test_labels_cover_neither_bubbles_nor_each_other():
    figure = Figure(figsize=(6, 5), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlim=(0, 10), ylim=(0, 10))
    # Two bubbles at one point, two next to it, two at the edges.
    points = [(5, 5), (5, 5), (4.7, 5.1), (5.6, 4.8), (9.7, 9.7), (0.2, 5)]
    bubbles = [Bubble(f'a method, {k}', x, y, 10, 'red') for k, (x, y) in enumerate(points)]
    canvas.draw()
    place_labels(axes, bubbles)
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == len(points)
    radius = 10 * 100 / 72
    for i, box in enumerate(boxes):
        for x, y in axes.transData.transform(points):
            assert np.hypot(x - np.clip(x, box.x0, box.x1), y - np.clip(y, box.y0, box.y1)) > radius
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
