import cv2
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.evaluate.results import BenchmarkScores, Result
from lkdn_basicsr.report import plots

pytestmark = pytest.mark.slow  # many rendered figures


def make_method(name, psnr, params=100_000, multi_adds=5_000_000_000, **curves):
    scores = {'Set5': BenchmarkScores({'a': psnr}, {'a': 0.9}, '')}
    return Result(name, 4, scores, params, multi_adds, **curves)


BICUBIC = make_method('Bicubic', 28, None, None)


def find_pixels(path, color, opacity=1.0):
    """Return rows and columns of the pixels that have a color on white."""
    image = cv2.imread(str(path))[..., ::-1].astype(float)
    expected = 255 * (opacity * np.array(to_rgb(color)) + 1 - opacity)
    return np.nonzero((np.abs(image - expected) < 3).all(axis=2))


def test_area_of_a_bubble_is_proportional_to_the_parameters(tmp_path):
    methods = [BICUBIC, make_method('small', 31), make_method('large', 32, 400_000, 9_000_000_000)]
    plots.plot_complexity(methods, (), 'Set5', str(tmp_path / 'plot.png'))
    widths = [np.ptp(find_pixels(tmp_path / 'plot.png', color, 0.75)[1]) for color in plots.COLORS[:2]]
    # The inner halves of the edges, 1.2 points or 3 pixels wide, are not counted; tolerance: integer pixels.
    assert ((widths[1] + 3) / (widths[0] + 3)) ** 2 == pytest.approx(4, rel=0.1)


def test_bicubic_is_a_dashed_line_also_far_below(tmp_path):
    networks = [make_method('a', 32.0), make_method('b', 32.1, 200_000, 7_000_000_000)]
    plots.plot_complexity(networks, (), 'Set5', str(tmp_path / 'without.png'))
    plots.plot_complexity([make_method('Bicubic', 25, None, None), *networks], (), 'Set5', str(tmp_path / 'with.png'))
    gray = [len(find_pixels(tmp_path / name, plots.GRAY)[0]) for name in ('without.png', 'with.png')]
    assert gray[1] > gray[0] + 1000
    # The bubbles keep their distance, which would be small on one axis from 25 dB on.
    heights = [find_pixels(tmp_path / 'with.png', color, 0.75)[0].mean() for color in plots.COLORS[:2]]
    assert heights[0] - heights[1] > 200


ONLY = make_method('only', 32)


EXACT = make_method('exact', float('inf'))


@pytest.mark.parametrize(
    'methods',
    [[ONLY], [BICUBIC], [BICUBIC, ONLY], [make_method(f'{k}', 32) for k in range(12)], [ONLY, EXACT], [EXACT]],
)
def test_few_methods_and_equal_methods_are_plotted(tmp_path, methods):
    plots.plot_complexity(methods, (), 'Set5', str(tmp_path / 'plot.png'))
    assert cv2.imread(str(tmp_path / 'plot.png')).shape == (1040, 1280, 3)


def test_published_methods_of_this_benchmark_are_added(tmp_path):
    measured, path = [make_method('measured', 32)], tmp_path / 'plot.png'

    def plot(published):
        plots.plot_complexity(measured, published, 'Set5', str(path))
        return path.read_bytes()

    of_other, of_this = (
        [Published('x', 4, 300_000, 6_000_000_000, {benchmark: (32.2, 0.89)}, 's')] for benchmark in ('B100', 'Set5')
    )
    assert plot(of_other) == (only_measured := plot([]))
    assert plot(of_this) != only_measured
    assert len(find_pixels(path, plots.GRAY)[0]) > 300


def test_names_are_not_formulas(tmp_path):
    names = [r'$\frac{', '_hidden', 'a_b$c_d$', 'ü ×4 核', 'two\nlines']
    curves = {'Set5 $\\x{': [(1, 30.0), (2, 31.0)]}
    methods = [make_method(name, 32 + k / 10, curves=curves) for k, name in enumerate(names)]
    plots.plot_complexity(methods, (), 'Set5', str(tmp_path / 'plot.png'))  # an invalid formula would raise
    plots.plot_curves(methods, str(tmp_path / 'curves.png'))


def test_user_settings_are_neither_used_nor_changed(tmp_path):
    methods = [make_method('a', 32, curves={'Set5': [(1, 30.0), (2, 31.0)]})]

    def plot():
        plots.plot_complexity(methods, (), 'Set5', str(tmp_path / 'plot.png'))
        plots.plot_curves(methods, str(tmp_path / 'curves.png'))
        return [(tmp_path / name).read_bytes() for name in ('plot.png', 'curves.png')]

    expected = plot()
    with matplotlib.rc_context({'font.size': 30, 'figure.facecolor': 'red', 'axes.grid': False}):
        assert plot() == expected
        assert matplotlib.rcParams['font.size'] == 30
        assert matplotlib.rcParams['figure.facecolor'] == 'red'


def test_curves_have_a_panel_for_each_benchmark_and_a_line_for_each_method(tmp_path):
    curve = [(k, 31 - 1 / k) for k in range(1, 31)]
    curves = {'Adan': curve, 'Adam': [(k, psnr - 0.5) for k, psnr in curve]}
    methods = [BICUBIC, *(make_method(name, 31, curves={'Set5': curve}) for name, curve in curves.items())]
    plots.plot_curves(methods, str(tmp_path / 'one.png'))
    methods = [make_method('Adan', 31, curves={name: curve for name in ('Set5', 'Set14', 'B100')})]
    plots.plot_curves(methods, str(tmp_path / 'three.png'))
    one, three = (cv2.imread(str(tmp_path / name)).shape for name in ('one.png', 'three.png'))
    assert one[1] == 1280 and three[1] == 1920 and three[0] > 1.8 * one[0]
    counts = [len(find_pixels(tmp_path / 'one.png', color)[0]) for color in plots.COLORS[:3]]
    assert counts[0] > 1000 and counts[1] > 1000 and counts[2] == 0


def test_low_first_value_does_not_flatten_a_curve(tmp_path):
    curve = [(1, 5.0), *((k, 31 + k / 60) for k in range(2, 61))]
    plots.plot_curves([make_method('a', 31, curves={'Set5': curve})], str(tmp_path / 'curves.png'))
    rows = find_pixels(tmp_path / 'curves.png', plots.COLORS[0])[0]
    rows = rows[rows < 600]  # without the legend
    assert np.median(rows) > 200  # with an axis from 5 dB on, nearly all pixels would be at the top
