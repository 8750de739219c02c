"""What the commands share: BasicSR's flags, and how a command ends after an error."""

import argparse
import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn, TextIO

from lkdn_basicsr import compat
from lkdn_basicsr.errors import InputError, printable, system_error


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations, which hide typos; only the first rank reports errors."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**{'allow_abbrev': False, **kwargs})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        if os.environ.get('RANK', '0') != '0':  # torchrun gives all ranks the same arguments
            sys.exit(2)
        super().error(printable(message))


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
    settings = 'set options, also ones that the file lacks, as in train:ema_decay=0.99 datasets:test_2=~'
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
    """Report invalid input, and errors of the operating system, in one line and exit with status 1.

    Any other exception is a bug and keeps its traceback. What the command prints is complete when this ends; a name in
    it that the terminal cannot show does not raise.
    """
    _open_streams()
    thread_hook, threading.excepthook = threading.excepthook, _report_in_thread
    try:
        try:
            yield
        except SystemExit:  # --help, --check
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, ImportError):
            error = _missing_library() or error
        if isinstance(error, OSError) and error.errno and not error.filename and _discard_output(sys.stdout):
            error.filename = 'standard output'
        reason = error if isinstance(error, InputError) else system_error(error)
        if reason is None:
            raise
        sys.exit(f'{prog}: error: {printable(reason)}')
    finally:
        threading.excepthook = thread_hook
        for stream in (sys.stdout, sys.stderr):
            _discard_output(stream)


def _missing_library() -> InputError | None:
    """Return the reason why OpenCV does not load, on which almost every import of this package depends."""
    try:
        compat.check_opencv()
    except InputError as error:
        return error
    return None


def _open_streams() -> None:
    """Open streams that were closed before the start; a file would get their numbers, and what is printed."""
    for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


def _discard_output(stream: TextIO) -> bool:
    """Discard output that cannot be written, to a closed pipe or a full disk; return whether there is any.

    Python would try again at its exit, and print a traceback.
    """
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


def _report_in_thread(arguments: threading.ExceptHookArgs) -> None:
    """Print no errors of the system in threads, which pass them on to the main thread, such as TensorBoard's."""
    if system_error(arguments.exc_value) is None:
        threading.__excepthook__(arguments)
