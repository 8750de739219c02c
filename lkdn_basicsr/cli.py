"""What the commands share: BasicSR's flags, and how a command ends. Imports little, so that --help answers at once."""

import argparse
import contextlib
import importlib
import os
import sys

from lkdn_basicsr.errors import InputError


def build_parser(prog=None):
    """The parser with BasicSR's own flags, and ``--check``.

    Args:
        prog (str | None): The command's name in its help. Default: None, the name of the running program.

    Returns:
        argparse.ArgumentParser: Gives ``opt, launcher, auto_resume, debug, local_rank, force_yml, check``.
    """
    # Abbreviations are off: BasicSR took --auto for --auto_resume, which hides typing errors.
    parser = Parser(prog=prog, allow_abbrev=False)
    parser.add_argument('-opt', type=str, required=True, metavar='FILE', help='option file (YAML)')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        default='none',
        help='job launcher; torchrun is noticed without it (default: none)',
    )
    parser.add_argument('--auto_resume', action='store_true', help='go on from the newest checkpoint of this run')
    parser.add_argument('--debug', action='store_true', help='short run: print every iteration, validate and save at 8')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by old launchers')
    parser.add_argument(
        '--force_yml',
        nargs='+',
        default=None,
        metavar='KEY=VALUE',
        help='set keys of the option file, as in train:ema_decay=0.99 datasets:test_2=~',
    )
    parser.add_argument('--check', action='store_true', help='check options, data, network; change nothing, and exit')
    return parser


def run(task):
    """Run ``train`` or ``test``: parse the arguments, load everything, hand over to BasicSR's pipeline.

    Args:
        task (str): ``train`` or ``test``.
    """
    prog = f'python -m lkdn_basicsr.{task}'
    build_parser(prog).parse_args()
    with report_errors(prog):
        from lkdn_basicsr import register

        register()
        pipeline = getattr(importlib.import_module(f'basicsr.{task}'), f'{task}_pipeline')
        pipeline(os.getcwd())


@contextlib.contextmanager
def report_errors(prog):
    """How the work of a command ends: mistakes in what was given, with one line and status 1; bugs, with a traceback.

    Of many ranks the first to fail speaks.

    Args:
        prog (str): The command's name in its messages.
    """
    try:
        yield
    except InputError as error:
        sys.exit(f'{prog}: error: {error}' if _is_first_failure(str(error)) else 1)
    except Exception as error:
        if _is_first_failure(f'{type(error).__name__}: {error}'):
            raise
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if 'lkdn_basicsr.training.logger' in sys.modules:
            sys.modules['lkdn_basicsr.training.logger'].ProgressLogger.close_current()


def _is_first_failure(reason):
    ranks = sys.modules.get('lkdn_basicsr.training.distributed')  # not there when the import of BasicSR is what fails
    return ranks is None or ranks.fail(reason)


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes the first rank alone reports."""

    def error(self, message):
        if os.environ.get('RANK', '0') != '0':  # torchrun gives all ranks the same arguments
            sys.exit(2)
        super().error(message)
