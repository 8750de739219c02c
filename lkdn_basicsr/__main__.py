"""``python -m lkdn_basicsr``: list the commands of the package."""

import argparse
import sys

from lkdn_basicsr import cli
from lkdn_basicsr.errors import InputError, hint

PROG = 'python -m lkdn_basicsr'
COMMANDS = {
    'prepare': 'convert images to the stores and benchmark folders that option files name',
    'train': 'train a network from an option file',
    'test': 'test a network on benchmarks from an option file',
    'compare': 'compare checkpoints on benchmarks: table, plots, HTML page',
    'study': 'train several option files with the same data and seed, and compare them',
    'options.docs': 'print the reference of all options as Markdown',
}


def build_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    return cli.Parser(
        prog=PROG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Train, test and compare LKDN super-resolution networks with BasicSR.',
        epilog='\n'.join(f'{PROG}.{name:{width}}  {purpose}' for name, purpose in COMMANDS.items())
        + f'\n\nFlags of a command: {PROG}.train --help',
    )


def main() -> None:
    parser = build_parser()
    _, unknown = parser.parse_known_args()
    with cli.report_errors(PROG):
        if unknown:
            name = unknown[0].removeprefix('lkdn_basicsr.')
            raise InputError(
                f'{unknown[0]} is not an argument; '
                + (f'run {PROG}.{name}' if name in COMMANDS else hint(name, [*COMMANDS, '--help']))
            )
    parser.print_help(sys.stdout)


if __name__ == '__main__':
    main()
