"""How the plots look, whatever the user's own settings of matplotlib."""

import contextlib
import io
import warnings

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lkdn_basicsr.files import write_file

# Okabe and Ito's colours, which the colour-blind tell apart, without the yellow that is lost on white.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
GREY = '#6b6b6b'
DPI = 200
STYLE = {
    'font.family': 'DejaVu Sans',
    'font.size': 12,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': '#444444',
    'axes.grid': True,
    'grid.color': '#e4e4e4',
    'axes.axisbelow': True,
    'lines.linewidth': 2,
}


@contextlib.contextmanager
def own_style():
    """matplotlib's defaults and ours, whatever the user has set, which is back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Glyph')  # a name's letters that the font lacks are drawn as boxes
            yield


def new_figure(width, height):
    """A figure of its own, in inches; pyplot would choose a backend for the whole process."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def save(figure, path):
    """Write a figure as PNG, whole or not at all."""
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=DPI)
    write_file(path, file.getvalue())


def short(name, most=30):
    """A name in one line; what is too long loses its middle, as names tend to begin and end differently."""
    name = ' '.join(name.split())
    return name if len(name) <= most else f'{name[: most // 2]}…{name[1 - most // 2 :]}'
