import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.evaluate.results import BenchmarkScores, Result
from lkdn_basicsr.report import label_placement as labels
from lkdn_basicsr.report import plots


def method(name, psnr, params=None, multi_adds=None, curves=None):
    scores = {'Set5': BenchmarkScores({'a': psnr}, {'a': 0.9}, '')}
    return Result(name, 4, scores, params, multi_adds, curves=curves or {})


def pixels(path, colour, opacity=1.0):
    """Rows and columns of the pixels of a picture that have a colour on white."""
    image = cv2.imread(str(path))[..., ::-1].astype(float)
    wanted = 255 * (opacity * np.array(to_rgb(colour)) + 1 - opacity)
    return np.nonzero((np.abs(image - wanted) < 3).all(axis=2))


def test_the_area_of_a_bubble_is_proportional_to_the_parameters(tmp_path):
    small = method('small', 31, 100_000, 5_000_000_000)
    large = method('large', 32, 400_000, 9_000_000_000)
    plots.plot_complexity([method('Bicubic', 28), small, large], (), 'Set5', str(tmp_path / 'plot.png'))
    widths = [np.ptp(pixels(tmp_path / 'plot.png', colour, 0.75)[1]) for colour in plots.COLOURS[:2]]
    # Of the edges, 1.2 points or 3 pixels wide, the inner halves are missing; pixels are whole.
    assert ((widths[1] + 3) / (widths[0] + 3)) ** 2 == pytest.approx(4, rel=0.1)


def test_bicubic_is_a_dashed_line_also_far_below(tmp_path):
    networks = [method('a', 32.0, 100_000, 5_000_000_000), method('b', 32.1, 200_000, 7_000_000_000)]
    plots.plot_complexity(networks, (), 'Set5', str(tmp_path / 'without.png'))
    plots.plot_complexity([method('Bicubic', 25.0), *networks], (), 'Set5', str(tmp_path / 'with.png'))
    grey = [len(pixels(tmp_path / name, plots.GREY)[0]) for name in ('without.png', 'with.png')]
    assert grey[1] > grey[0] + 1000
    # And the bubbles keep their distance, which an axis from 25 dB on would take.
    heights = [pixels(tmp_path / 'with.png', colour, 0.75)[0].mean() for colour in plots.COLOURS[:2]]
    assert heights[0] - heights[1] > 200


@pytest.mark.parametrize(
    'methods',
    [
        [method('alone', 32, 100_000, 5_000_000_000)],
        [method('Bicubic', 28)],
        [method('Bicubic', 28), method('alone', 32, 100_000, 5_000_000_000)],
        [method(str(k), 32, 100_000, 5_000_000_000) for k in range(12)],
    ],
)
def test_few_methods_and_equal_ones_are_plotted(tmp_path, methods):
    plots.plot_complexity(methods, (), 'Set5', str(tmp_path / 'plot.png'))
    assert cv2.imread(str(tmp_path / 'plot.png')).shape == (1040, 1280, 3)


def test_published_methods_of_this_set_and_scale_are_added(tmp_path):
    ours = [method('ours', 32, 100_000, 5_000_000_000)]

    def plot(name, *published):
        plots.plot_complexity(ours, published, 'Set5', str(tmp_path / name))
        return (tmp_path / name).read_bytes()

    alone = plot('alone.png')
    assert (
        plot(
            'other.png',
            Published('x', 2, 300_000, 6_000_000_000, {'Set5': (38.0, 0.96)}, 's'),
            Published('y', 4, 300_000, 6_000_000_000, {'B100': (27.0, 0.7)}, 's'),
        )
        == alone
    )
    assert plot('more.png', Published('z', 4, 300_000, 6_000_000_000, {'Set5': (32.2, 0.89)}, 's')) != alone
    assert len(pixels(tmp_path / 'more.png', plots.GREY)[0]) > 300


def test_names_are_no_formulae(tmp_path):
    names = [r'$\frac{', '_hidden', 'a_b$c_d$', 'ü ×4 核', 'two\nlines']
    methods = [
        method(name, 32 + k / 10, 100_000, 5_000_000_000, {'Set5 $\\x{': [(1, 30.0), (2, 31.0 + k)]})
        for k, name in enumerate(names)
    ]
    plots.plot_complexity(methods, (), 'Set5', str(tmp_path / 'plot.png'))  # an unfinished formula would raise
    plots.plot_curves(methods, str(tmp_path / 'curves.png'))


def test_the_users_style_is_neither_used_nor_changed(tmp_path):
    methods = [method('a', 32, 100_000, 5_000_000_000, {'Set5': [(1, 30.0), (2, 31.0)]})]

    def pictures():
        plots.plot_complexity(methods, (), 'Set5', str(tmp_path / 'plot.png'))
        plots.plot_curves(methods, str(tmp_path / 'curves.png'))
        return [(tmp_path / name).read_bytes() for name in ('plot.png', 'curves.png')]

    expected = pictures()
    with matplotlib.rc_context({'font.size': 30, 'figure.facecolor': 'red', 'axes.grid': False}):
        assert pictures() == expected
        assert matplotlib.rcParams['font.size'] == 30
        assert matplotlib.rcParams['figure.facecolor'] == 'red'


def test_labels_cover_neither_bubbles_nor_each_other():
    figure = Figure(figsize=(6, 5), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlim=(0, 10), ylim=(0, 10))
    spots = [(5, 5), (5, 5), (4.7, 5.1), (5.6, 4.8), (9.7, 9.7), (0.2, 5)]  # two at one place, two beside it
    bubbles = [(f'a method, {k}', x, y, 10, {'fontsize': 10}) for k, (x, y) in enumerate(spots)]
    canvas.draw()
    labels.place(axes, bubbles)
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == len(spots)
    radius = 10 * 100 / 72
    for i, box in enumerate(boxes):
        for x, y in axes.transData.transform(spots):
            assert np.hypot(x - np.clip(x, box.x0, box.x1), y - np.clip(y, box.y0, box.y1)) > radius
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1


def test_learning_curves_have_a_panel_for_each_set_and_a_line_for_each_method(tmp_path):
    curve = [(k, 31 - 1 / k) for k in range(1, 31)]
    lower = [(k, psnr - 0.5) for k, psnr in curve]
    plots.plot_curves(
        [method('Bicubic', 28), method('Adan', 31, curves={'Set5': curve}), method('Adam', 31, curves={'Set5': lower})],
        str(tmp_path / 'one.png'),
    )
    plots.plot_curves(
        [method('Adan', 31, curves={name: curve for name in ('Set5', 'Set14', 'B100')})], str(tmp_path / 'three.png')
    )
    one, three = (cv2.imread(str(tmp_path / name)).shape for name in ('one.png', 'three.png'))
    assert one[1] == 1280 and three[1] == 1920 and three[0] > 1.8 * one[0]
    found = [len(pixels(tmp_path / 'one.png', colour)[0]) for colour in plots.COLOURS[:3]]
    assert found[0] > 1000 and found[1] > 1000 and found[2] == 0


def test_a_bad_beginning_does_not_press_a_learning_curve_flat(tmp_path):
    curve = [(k, 31 + k / 60) for k in range(2, 61)]
    plots.plot_curves([method('a', 31, curves={'Set5': [(1, 5.0), *curve]})], str(tmp_path / 'curves.png'))
    rows = pixels(tmp_path / 'curves.png', plots.COLOURS[0])[0]
    rows = rows[rows < 600]  # without the legend
    assert np.median(rows) > 200  # from 5 dB on, nearly all of it would be at the top
