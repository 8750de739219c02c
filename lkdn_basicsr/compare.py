"""``python -m lkdn_basicsr.compare``: networks of any kind against each other on test sets, as tables and pictures."""

import os

from lkdn_basicsr import cli
from lkdn_basicsr.errors import InputError

PROG = 'python -m lkdn_basicsr.compare'
EPILOG = """\
A model is a checkpoint of LKDN or LKDN-S in any form, of BSRN, of BasicSR's MSRResNet, EDSR, RCAN, RRDBNet, SwinIR or
SRVGGNetCompact, or of any network that spandrel knows; or a test option file (.yml) that describes any other network
of BasicSR's registry (network_g, and path:pretrain_network_g). It is called by its file's name, or as in NAME=FILE.

A set is a folder with GTmodX and LRbicxX for the scale X; scripts/prepare_benchmark.py makes them.

What is in the folder of --out from before is not measured again.
"""


def build_parser():
    """The parser of the command's arguments."""
    import argparse

    parser = cli.Parser(
        prog=PROG,
        description='Compare super-resolution networks on test sets.',
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--models', nargs='+', required=True, metavar='[NAME=]FILE', help='the networks to compare')
    parser.add_argument('--sets', nargs='+', required=True, metavar='DIR', help='the test sets')
    parser.add_argument('--scale', type=int, default=4, metavar='X', help='upscaling factor (default: 4)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the tables, the pictures and the page')
    parser.add_argument(
        '--region',
        action='append',
        metavar='SET/PICTURE[:x,y,w,h]',
        help='what the visual comparison shows, in HR pixels; may be given again (default: where methods differ most)',
    )
    return parser


def main():
    args = build_parser().parse_args()
    with cli.report_errors(PROG):
        from lkdn_basicsr import register

        register()
        print(compare(args.models, args.sets, args.scale, args.out, args.region))


def compare(models, folders, scale, out, regions=None):
    """Measure networks on test sets and write ``table.md``, ``table.csv``, the pictures and ``index.html``.

    Everything is read and tried before anything is measured.

    Args:
        models (Sequence[str]): files, see ``evaluate.networks.load``, each perhaps behind a name: ``NAME=FILE``.
        folders (Sequence[str]): test sets, see ``evaluate.test_sets.read_benchmark``.
        scale (int): upscaling factor.
        out (str): where everything goes; what was measured is kept below ``methods`` in it.
        regions (Sequence[str] | None): ``SET/PICTURE[:x,y,w,h]`` to show. Default: None, where methods differ most.

    Returns:
        str: the table and where the page lies, to be printed.

    Raises:
        InputError: what was given cannot be used, or ``out`` not be written.
    """
    from lkdn_basicsr.evaluate import published
    from lkdn_basicsr.evaluate.benchmarks import read_benchmarks
    from lkdn_basicsr.evaluate.loading import load as networks
    from lkdn_basicsr.evaluate.measure import measure, measure_bicubic
    from lkdn_basicsr.files import check_writable
    from lkdn_basicsr.report import regions as crops
    from lkdn_basicsr.report import report, table

    if scale < 2:
        raise InputError(f'--scale is {scale}; give the upscaling factor of the networks, 2 or more')
    given = [split_name(model) for model in models]
    sets = read_benchmarks(folders, scale)
    chosen = None if regions is None else [crops.parse_region(text) for text in regions]
    for region in chosen or ():
        crops.check_region(region, sets)
    names = method_names(given)
    loaded = [networks.load(path, scale) for _, path in given]
    check_writable(out)

    cache = os.path.join(out, 'methods')
    results = [measure_bicubic(sets, scale, cache, progress=True)]
    results += [measure(network, sets, scale, cache, name, progress=True) for network, name in zip(loaded, names)]
    others = published.read(scale, [benchmark.name for benchmark in sets])
    report.write_report(out, f'Super-resolution ×{scale}', results, sets, published=others, regions=chosen)
    return f'{table.markdown(results)}\nThe page: {os.path.join(out, "index.html")}'


def split_name(text):
    """``NAME=FILE`` as (name, file); (None, file) where there is no name, or a file of the whole text."""
    name, equals, path = text.partition('=')
    return (name, path) if equals and name and path and not os.path.exists(text) else (None, text)


def method_names(given):
    """What the methods are called in tables: all differently.

    Args:
        given (Sequence[tuple[str | None, str]]): the name, if one was given, and the file.

    Returns:
        list[str]: the given name, or that of the file; checkpoints of one run with what tells their files apart.

    Raises:
        InputError: two have one name.
    """
    from lkdn_basicsr.evaluate.loading.load import method_name

    names = [name or method_name(path) for name, path in given]
    several = {name for name in names if names.count(name) > 1}
    for index, (name, path) in enumerate(given):
        stem = os.path.splitext(os.path.basename(path))[0]
        if name is None and names[index] in several and stem.startswith('net_g_'):
            names[index] += f' {stem.removeprefix("net_g_")}'
    for index, name in enumerate(names):
        first = names.index(name)
        if first < index:
            raise InputError(
                f'--models: {given[first][1]} and {given[index][1]} are both called {name}; call one of '
                'them otherwise, as in NAME=FILE'
            )
    return names


if __name__ == '__main__':
    main()
