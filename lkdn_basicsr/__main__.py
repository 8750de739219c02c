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


def main() -> None:
    width = max(map(len, COMMANDS))
    commands = '\n'.join(f'{PROG}.{name:{width}}  {purpose}' for name, purpose in COMMANDS.items())
    parser = cli.Parser(prog=PROG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = 'Train, test and compare LKDN super-resolution networks with BasicSR.'
    parser.epilog = f'{commands}\n\nFlags of a command: {PROG}.train --help'
    with cli.report_errors(PROG):
        _, unknown = parser.parse_known_args()
        if unknown:
            name = unknown[0].removeprefix('lkdn_basicsr.')
            fix = f'run {PROG}.{name}' if name in COMMANDS else hint(name, [*COMMANDS, '--help'])
            raise InputError(f'{unknown[0]} is not an argument; {fix}')
        parser.print_help(sys.stdout)


if __name__ == '__main__':
    main()
