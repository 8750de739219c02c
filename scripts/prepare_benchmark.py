#!/usr/bin/env python
"""Turn a folder of HR test pictures into the GTmodX and LRbicxX folders that test option files name.

python scripts/prepare_benchmark.py --hr Set5/original --out datasets/Set5 --scale 2 3 4 --edges repeat
"""

import argparse
import sys


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--hr', metavar='DIR', required=True, help='folder of HR pictures')
    parser.add_argument('--out', metavar='DIR', required=True, help='folder of the test set')
    parser.add_argument(
        '--scale', type=int, nargs='+', default=[2, 3, 4], choices=(2, 3, 4), help='scales (default: 2 3 4)'
    )
    parser.add_argument(
        '--edges',
        choices=('mirror', 'repeat'),
        default='mirror',
        help='what lies beyond the border: mirror, as MATLAB of today has it (default); repeat, as old '
        'versions, for the usual LR pictures of Set5, Set14 and B100',
    )
    return parser.parse_args()


def main():
    args = parse()
    try:
        from lkdn_basicsr.data.prepare.benchmark import prepare_benchmark
        from lkdn_basicsr.errors import InputError
    except ImportError as error:
        sys.exit(f'Error: lkdn_basicsr cannot be imported ({error}); install it with pip install . first.')
    try:
        prepare_benchmark(args.hr, args.out, args.scale, args.edges, say=print, progress=True)
    except InputError as error:
        sys.exit(f'Error: {error}')
    except KeyboardInterrupt:
        print('Interrupted; run the same command again.', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    main()
