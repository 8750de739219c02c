#!/usr/bin/env python
"""Turn DF2K, or any folder of pictures, into the stores that training reads.

  python scripts/prepare_df2k.py --div2k DIV2K --flickr2k Flickr2K --out datasets/DF2K --scale 2 3 4
  python scripts/prepare_df2k.py --hr photographs --out datasets/photographs --scale 4
  python scripts/prepare_df2k.py verify datasets/DF2K/DF2K_train_HR.lmdb

Interrupted, the same command goes on where it stopped; finished stores are left alone.
"""

import argparse
import sys
import time


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not 1 or more')
    return number


def not_negative(text):
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f'{text} is below 0')
    return number


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        '--div2k', metavar='DIR', help='holds DIV2K_train_HR and, if at hand, DIV2K_train_LR_bicubic/X4'
    )
    parser.add_argument('--flickr2k', metavar='DIR', help='holds Flickr2K_HR and, if at hand, Flickr2K_LR_bicubic/X4')
    parser.add_argument('--hr', metavar='DIR', help='instead of these two: any folder of HR pictures')
    parser.add_argument(
        '--lr',
        metavar='DIR',
        help="with --hr: folder of LR pictures, or of folders X2, X3, X4 with them (default: made by MATLAB's bicubic)",
    )
    parser.add_argument(
        '--scale', type=int, nargs='+', default=[4], choices=(2, 3, 4), help='scales of the LR stores (default: 4)'
    )
    parser.add_argument('--out', metavar='DIR', required=True, help='folder for the stores')
    parser.add_argument(
        '--format',
        choices=('raw', 'png'),
        default='raw',
        help="raw: whole pictures as pixels (default); png: BasicSR's sub-images",
    )
    parser.add_argument('--crop-size', type=positive, default=480, help='png: side of a sub-image, HR (default: 480)')
    parser.add_argument('--step', type=positive, default=240, help='png: distance of sub-images, HR (default: 240)')
    parser.add_argument(
        '--thresh', type=not_negative, default=0, help='png: drop remainders up to this, HR (default: 0)'
    )
    parser.add_argument('--workers', type=positive, help='processes (default: one a core)')
    parser.add_argument(
        '--verify-lr', action='store_true', help="compare LR pictures that are given with MATLAB's bicubic of HR"
    )
    parser.add_argument('--allow-missing', action='store_true', help='go on without pictures that are missing')
    args = parser.parse_args()
    if not args.hr and not args.div2k and not args.flickr2k:
        parser.error('give --div2k and --flickr2k, or --hr')
    if args.hr and (args.div2k or args.flickr2k):
        parser.error('--hr does not go with --div2k and --flickr2k; run one after the other')
    if args.lr and not args.hr:
        parser.error('--lr goes with --hr; DIV2K and Flickr2K hold their LR pictures themselves')
    return args


def parse_verify():
    parser = argparse.ArgumentParser(
        prog='prepare_df2k.py verify',
        allow_abbrev=False,
        description='Read everything in a store and compare it with its checksums.',
    )
    parser.add_argument('store', nargs='+', help='a folder *.lmdb')
    return parser.parse_args(sys.argv[2:])


def run(args):
    """Imports the package, and torch with it, only now: --help and typing errors are answered at once."""
    from lkdn_basicsr.data.prepare.stores import prepare_df2k, prepare_folder

    options = dict(
        out=args.out,
        scales=args.scale,
        format=args.format,
        crop_size=args.crop_size,
        step=args.step,
        thresh=args.thresh,
        workers=args.workers,
        verify_lr=args.verify_lr,
        allow_missing=args.allow_missing,
        say=print,
        progress=True,
    )
    if args.hr:
        prepare_folder(hr=args.hr, lr=args.lr, **options)
    else:
        prepare_df2k(div2k=args.div2k, flickr2k=args.flickr2k, **options)


def run_verify(args):
    from lkdn_basicsr.data.prepare.verify import verify

    for store in args.store:
        verify(store, progress=True)
        print(f'{store} is whole.')


def main():
    verifying = sys.argv[1:2] == ['verify']
    args = parse_verify() if verifying else parse()
    started = time.time()
    try:
        from lkdn_basicsr.errors import InputError
    except ImportError as error:
        sys.exit(f'Error: lkdn_basicsr cannot be imported ({error}); install it with pip install . first.')
    try:
        run_verify(args) if verifying else run(args)
    except InputError as error:
        sys.exit(f'Error: {error}')
    except KeyboardInterrupt:
        print('Interrupted; the same command goes on where it stopped.', file=sys.stderr)
        sys.exit(130)
    print(f'Took {time.time() - started:.0f} s.')


if __name__ == '__main__':
    main()
