"""The style of the plots, independent of the user's matplotlib settings."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lkdn_basicsr.errors import printable
from lkdn_basicsr.files import write_file

# Okabe and Ito's palette for color-blind readers, without the yellow, which is faint on white.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
GRAY = '#6b6b6b'
DPI = 200
LINES = {'lines.linewidth': 2, 'axes.grid': True, 'grid.color': '#e4e4e4'}
AXES = {'axes.spines.top': False, 'axes.spines.right': False, 'axes.edgecolor': '#444444', 'axes.axisbelow': True}
STYLE = {'font.family': 'DejaVu Sans', 'font.size': 12, **LINES, **AXES}


@contextlib.contextmanager
def new_figure(path: str, width: float, height: float) -> Iterator[Figure]:
    """Create a figure of a size in inches with this style, and write it as PNG at the end."""
    with matplotlib.style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # characters of a name that the font lacks are drawn as boxes
        figure = Figure(figsize=(width, height), dpi=DPI, layout='constrained')
        FigureCanvasAgg(figure)  # not pyplot, which would choose a backend for the process
        yield figure
        file = io.BytesIO()
        figure.savefig(file, format='png', dpi=DPI)
    write_file(path, file.getvalue())


def shorten(name: str, length: int = 30) -> str:
    """Return a name in one line; one that is too long loses its middle, as names often begin or end alike."""
    name = printable(' '.join(name.split()))
    return name if len(name) <= length else f'{name[: length // 2]}…{name[1 - length // 2 :]}'
