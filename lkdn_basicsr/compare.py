"""``python -m lkdn_basicsr.compare``: compare networks of any kind on benchmarks, in tables, images and a web page."""

import argparse
import os
from collections.abc import Sequence

from lkdn_basicsr import cli
from lkdn_basicsr.errors import InputError, printable

PROG = 'python -m lkdn_basicsr.compare'
EPILOG = """\
FILE is a checkpoint (.pth, .safetensors): LKDN and LKDN-S in training form or fused, BSRN, BasicSR's MSRResNet, EDSR,
RCAN, RRDBNet, SwinIR and SRVGGNetCompact, every network that spandrel supports, and every network that was trained by
lkdn_basicsr.train. For any other network of BasicSR's registry, FILE is a test option file (.yml) with network_g and
path:pretrain_network_g. NAME is the name in the tables; the default is the name of the file, or of its run.

A benchmark DIR contains GTmodX and LRbicxX for the scale X. python -m lkdn_basicsr.prepare benchmark creates it.

Results in the folder of --out are kept, and are not measured again.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(prog=PROG, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.description = 'Compare super-resolution networks on benchmarks.'
    parser.add_argument('--models', nargs='+', required=True, metavar='[NAME=]FILE', help='networks to compare')
    parser.add_argument('--sets', nargs='+', required=True, metavar='DIR', help='benchmarks to measure them on')
    parser.add_argument('--scale', type=int, default=4, metavar='X', help='upscaling factor (default: 4)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for tables, images and the page')
    region = 'region to show, in HR pixels; may be repeated (default: where methods differ most)'
    parser.add_argument('--region', action='append', metavar='BENCHMARK/IMAGE[:x,y,w,h]', help=region)
    return parser


def main() -> None:
    with cli.report_errors(PROG):
        compare(build_parser().parse_args())


def compare(arguments: argparse.Namespace) -> None:
    """Check all arguments and load all networks; then measure them, write the report and print the table.

    Args:
        arguments: See :func:`build_parser`. The subfolder ``methods`` of ``--out`` is the cache of results.

    Raises:
        InputError: An argument or the GPU cannot be used, or another process writes to ``--out``.
        OSError: The report cannot be written.
    """
    # Imported here, so that cli.report_errors reports an OpenCV that does not load.
    from lkdn_basicsr.evaluate import latency, published
    from lkdn_basicsr.evaluate.benchmarks import read_benchmarks
    from lkdn_basicsr.evaluate.loading.load import load
    from lkdn_basicsr.evaluate.measure import measure, measure_bicubic
    from lkdn_basicsr.files import check_writable
    from lkdn_basicsr.locks import FolderLock
    from lkdn_basicsr.report.regions import check_region, parse_region
    from lkdn_basicsr.report.report import write_report
    from lkdn_basicsr.report.table import markdown

    out, scale = arguments.out, arguments.scale
    if scale < 2:
        raise InputError(f'--scale is {scale}; give the upscaling factor of the networks, 2 or more')
    lock = FolderLock(out)
    lock.check_free()
    benchmarks = read_benchmarks(arguments.sets, scale)
    regions = None if arguments.region is None else [parse_region(text) for text in arguments.region]
    for region in regions or ():
        check_region(region, benchmarks)
    named_files = [split_name(model) for model in arguments.models]
    names = method_names(named_files)
    networks = [load(path, scale) for _, path in named_files]
    others = published.read(scale, [benchmark.name for benchmark in benchmarks])
    latency.device()  # raises if the GPU cannot be used
    check_writable(out)

    cache = os.path.join(out, 'methods')
    with lock:
        results = [measure_bicubic(benchmarks, scale, cache, progress=True)]
        for network, name in zip(networks, names):
            results.append(measure(network, benchmarks, scale, cache, name, progress=True))
        write_report(out, f'Super-resolution ×{scale}', results, benchmarks, others, regions)
    print(f'{markdown(results)}\nThe page: {printable(os.path.join(out, "index.html"))}')


def split_name(text: str) -> tuple[str | None, str]:
    """Split ``NAME=FILE`` into name and file. The name is None if there is none, or if ``text`` itself is a file."""
    name, equals, path = text.partition('=')
    return (name, path) if equals and name and path and not os.path.exists(text) else (None, text)


def method_names(named_files: Sequence[tuple[str | None, str]]) -> list[str]:
    """Return a distinct name for each method.

    It is the given name, or that of the file; checkpoints of the same run also get their iteration.

    Args:
        named_files: From :func:`split_name`.

    Raises:
        InputError: Two methods have the same name.
    """
    from lkdn_basicsr.evaluate.loading.load import method_name

    short = [name or method_name(path) for name, path in named_files]
    files: dict[str, str] = {}  # by the name of the method
    for (given, path), name in zip(named_files, short):
        stem = os.path.splitext(os.path.basename(path))[0]
        if given is None and short.count(name) > 1 and stem.startswith('net_g_'):
            name = f'{name} {stem.removeprefix("net_g_")}'
        if name in files:
            reason = f'{files[name]} and {path} are both called {name}'
            raise InputError(f'--models: {reason}; give one of them another name, as in NAME=FILE')
        files[name] = path
    return list(files)


if __name__ == '__main__':
    main()
