"""Published results of other methods, from ``published.yml``. They are shown apart from what was measured here."""

import dataclasses
import os
from collections.abc import Sequence

import yaml

from lkdn_basicsr.errors import InputError, one_line

FILE = os.path.join(os.path.dirname(__file__), 'published.yml')
_ALIASES = {'b100': 'bsd100', 'bsds100': 'bsd100', 'cbsd100': 'bsd100'}


@dataclasses.dataclass
class Published:
    """Published results of a method at a scale, as rounded in the source."""

    method: str
    scale: int
    params: int
    multi_adds: int  # for an output of 1280×720
    sets: dict[str, tuple[float, float]]  # by the name of the benchmark, PSNR in dB and SSIM, on Y, border = scale
    source: str


def read(scale: int | None = None, names: Sequence[str] | None = None) -> list[Published]:
    """Read the published results, in the order of the file.

    Args:
        scale: Only results at this scale; None for all.
        names: Only results on these benchmarks, returned under these names; None for all. B100 is BSD100; case and
            punctuation do not matter. Methods without results on any of them are left out.

    Raises:
        InputError: The file was edited or damaged.
    """
    entries = []
    for entry in _read_file():
        sets = entry.sets
        if names is not None:
            known = {_normalize(name): scores for name, scores in sets.items()}
            sets = {name: known[_normalize(name)] for name in names if _normalize(name) in known}
        if sets and scale in (None, entry.scale):
            entries.append(dataclasses.replace(entry, sets=sets))
    return entries


def _read_file() -> list[Published]:
    entries = []
    try:
        with open(FILE, encoding='utf-8') as file:
            blocks = yaml.safe_load(file)
        for block in blocks:
            for method, scale, params, multi_adds, *cells in block['rows']:
                counts = round(params * 1e3), round(multi_adds * 1e9)
                sets = {name: _scores(cell) for name, cell in zip(block['sets'], cells) if cell}
                entries.append(Published(method, scale, *counts, sets, block['source']))
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f'{FILE} is damaged ({one_line(error)}): install lkdn_basicsr again') from None
    return entries


def _scores(cell: str) -> tuple[float, float]:
    psnr, ssim = cell.split('/')
    return float(psnr), float(ssim)


def _normalize(name: str) -> str:
    plain = ''.join(character for character in name.lower() if character.isalnum())
    return _ALIASES.get(plain, plain)
