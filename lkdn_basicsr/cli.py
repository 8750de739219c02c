"""What the commands share: BasicSR's flags, and how a command ends after an error."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from lkdn_basicsr import compat
from lkdn_basicsr.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations, which hide typos; only the first rank reports errors."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**{'allow_abbrev': False, **kwargs})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        if os.environ.get('RANK', '0') != '0':  # torchrun gives all ranks the same arguments
            sys.exit(2)
        super().error(message)


def build_parser(prog: str | None = None) -> Parser:
    """Return the parser of ``train`` and ``test``: BasicSR's own flags, and ``--check``."""
    parser = Parser(prog=prog)
    add = parser.add_argument
    add('-opt', required=True, metavar='FILE', help='option file (YAML): a path, or the name of a shipped one')
    launcher = 'job launcher; torchrun is detected without it (default: none)'
    add('--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help=launcher)
    add('--auto_resume', action='store_true', help='resume from the newest checkpoint of this run')
    add('--debug', action='store_true', help='short run: log each iteration, validate and save at 8')
    add('--local_rank', '--local-rank', type=int, default=0, help='set by old launchers')
    settings = 'set options, as in train:ema_decay=0.99 datasets:test_2=~'
    add('--force_yml', nargs='+', metavar='KEY=VALUE', help=settings)
    add('--check', action='store_true', help='check options, data and network, change nothing, exit')
    return parser


def integer(minimum: int) -> Callable[[str], int]:
    """Return the ``type`` of an argument that is an integer of at least ``minimum``, and of nine digits at most."""

    def parse(text: str) -> int:
        if not text.isdecimal() or len(text) > 9 or int(text) < minimum:
            raise argparse.ArgumentTypeError(f'{text[:20]} is not an integer from {minimum} to 999999999')
        return int(text)

    return parse


@contextlib.contextmanager
def report_errors(prog: str) -> Iterator[None]:
    """Report invalid input in one line and exit with status 1; any other exception is a bug and keeps its traceback."""
    try:
        compat.check_opencv()
        yield
    except InputError as error:
        sys.exit(f'{prog}: error: {error}')
    except KeyboardInterrupt:
        sys.exit(130)
