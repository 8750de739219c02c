"""Figures that others have published, from ``published.yml``, to be shown apart from what was measured here."""

import dataclasses
from pathlib import Path

import yaml

FILE = Path(__file__).with_name('published.yml')
_ALIASES = {'b100': 'bsd100', 'bsds100': 'bsd100', 'cbsd100': 'bsd100'}


@dataclasses.dataclass
class Published:
    """A method at a scale, as published.

    Attributes:
        method (str): its name.
        scale (int): upscaling factor.
        params (int): number of parameters, as rounded in the source.
        multi_adds (int): Multi-Adds for an output of 1280×720, as rounded in the source.
        sets (dict[str, tuple[float, float]]): by the name of the test set, PSNR in dB and SSIM, on Y, border = scale.
        source (str): where the figures stand.
    """

    method: str
    scale: int
    params: int
    multi_adds: int
    sets: dict[str, tuple[float, float]]
    source: str


def read(scale=None, set_names=None):
    """The published figures, in the order of the file.

    Args:
        scale (int | None): of this scale alone. Default: None, of all.
        set_names (Sequence[str] | None): of these test sets alone, under these names (B100 is BSD100, case and what is
            no letter or digit do not matter); methods that have none of them are left out. Default: None, of all.

    Returns:
        list[Published]
    """
    entries = []
    for block in yaml.safe_load(FILE.read_text(encoding='utf-8')):
        for method, row_scale, params, multi_adds, *cells in block['rows']:
            sets = {name: tuple(map(float, cell.split('/'))) for name, cell in zip(block['sets'], cells) if cell}
            if set_names is not None:
                known = {_plain(name): scores for name, scores in sets.items()}
                sets = {name: known[_plain(name)] for name in set_names if _plain(name) in known}
            if sets and scale in (None, row_scale):
                entries.append(
                    Published(method, row_scale, round(params * 1e3), round(multi_adds * 1e9), sets, block['source'])
                )
    return entries


def _plain(name):
    plain = ''.join(character for character in name.lower() if character.isalnum())
    return _ALIASES.get(plain, plain)
