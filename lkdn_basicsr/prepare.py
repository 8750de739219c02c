"""``python -m lkdn_basicsr.prepare``: convert images to the stores and folders that the option files read."""

import argparse
import sys
import time

from lkdn_basicsr.cli import Parser, integer, report_errors
from lkdn_basicsr.errors import printable

PROG = 'python -m lkdn_basicsr.prepare'
EPILOG = f"""examples:
  {PROG} train --div2k DIV2K --flickr2k Flickr2K --out datasets/DF2K --scale 2 3 4
  {PROG} benchmark --hr Set5/original --out datasets/Set5 --scale 2 3 4 --edges repeat
  {PROG} verify datasets/DF2K/DF2K_train_HR.lmdb

After an interruption, the same command resumes. Finished stores and folders are not touched.
"""


def main(arguments: list[str] | None = None) -> None:
    start = time.time()
    with report_errors(PROG):
        args = _parse(arguments)
        try:
            args.run(args)
        except KeyboardInterrupt:
            print('Interrupted; run the same command again to resume.', file=sys.stderr)
            raise
        _log(f'Took {time.time() - start:.0f} s.')


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=PROG, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = 'Convert images to the stores and folders that the option files read.'
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    train = commands.add_parser('train', help='DF2K, or any folder of images, to stores')
    train.set_defaults(run=_prepare_train)
    add = train.add_argument
    add('--div2k', metavar='DIR', help='folder with DIV2K_train_HR and optionally DIV2K_train_LR_bicubic/X4')
    add('--flickr2k', metavar='DIR', help='folder with Flickr2K_HR and optionally Flickr2K_LR_bicubic/X4')
    add('--hr', metavar='DIR', help='instead of these two: any folder of HR images')
    lr_help = "with --hr: folder of LR images, or of folders X4 (default: made by MATLAB's bicubic)"
    add('--lr', metavar='DIR', help=lr_help)
    add('--scale', type=int, nargs='+', default=[4], choices=(2, 3, 4), help='scales of the LR stores (default: 4)')
    add('--out', metavar='DIR', required=True, help='folder for the stores')
    format_help = "raw: complete images as pixels (default); png: BasicSR's sub-images"
    add('--format', choices=('raw', 'png'), default='raw', help=format_help)
    add('--crop-size', type=integer(1), default=480, help='png: side of a sub-image, HR (default: 480)')
    add('--step', type=integer(1), default=240, help='png: distance of sub-images, HR (default: 240)')
    add('--thresh', type=integer(0), default=0, help='png: drop remainders up to this, HR (default: 0)')
    add('--workers', type=integer(1), help='processes (default: one per core)')
    add('--verify-lr', action='store_true', help="compare given LR images with MATLAB's bicubic of HR images")
    add('--allow-missing', action='store_true', help='continue without images that are missing')

    benchmark = commands.add_parser('benchmark', help='HR images to GTmodX and LRbicxX folders')
    benchmark.set_defaults(run=_prepare_benchmark)
    add = benchmark.add_argument
    add('--hr', metavar='DIR', required=True, help='folder of HR images')
    add('--out', metavar='DIR', required=True, help='folder of the benchmark')
    add('--scale', type=int, nargs='+', default=[2, 3, 4], choices=(2, 3, 4), help='scales (default: 2 3 4)')
    edges_help = 'how images continue at the border: mirror (default), or repeat (old MATLAB: Set5, Set14 and B100)'
    add('--edges', choices=('mirror', 'repeat'), default='mirror', help=edges_help)

    verify = commands.add_parser('verify', help='compare stores with their checksums')
    verify.set_defaults(run=_verify)
    verify.add_argument('store', nargs='+', help='folder *.lmdb')

    args = parser.parse_args(arguments)
    if args.run is _prepare_train:
        if not args.hr and not args.div2k and not args.flickr2k:
            train.error('give --div2k and --flickr2k, or --hr')
        if args.hr and (args.div2k or args.flickr2k):
            train.error('--hr cannot be combined with --div2k and --flickr2k; run one after the other')
        if args.lr and not args.hr:
            train.error('--lr needs --hr; LR images of DIV2K and Flickr2K are found in their own folders')
    return args


def _log(line: str) -> None:
    print(printable(line), flush=True)  # at once, also where the output is redirected


def _prepare_train(args: argparse.Namespace) -> None:
    from lkdn_basicsr.data.prepare.stores import StoreOptions, prepare_df2k, prepare_folder

    names = ('format', 'crop_size', 'step', 'thresh', 'workers', 'verify_lr', 'allow_missing')
    values = {name: getattr(args, name) for name in names}
    options = StoreOptions(scales=args.scale, **values, log=_log, progress=True)
    if args.hr:
        prepare_folder(args.out, args.hr, args.lr, options)
    else:
        prepare_df2k(args.out, args.div2k, args.flickr2k, options)


def _prepare_benchmark(args: argparse.Namespace) -> None:
    from lkdn_basicsr.data.prepare.benchmark import prepare_benchmark

    prepare_benchmark(args.hr, args.out, args.scale, args.edges, log=_log, progress=True)


def _verify(args: argparse.Namespace) -> None:
    from lkdn_basicsr.data.prepare.verify import verify

    for store in args.store:
        verify(store, progress=True, log=_log)
        _log(f'{store} is intact.')


if __name__ == '__main__':
    main()
