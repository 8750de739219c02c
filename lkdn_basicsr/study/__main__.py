"""``python -m lkdn_basicsr.study options/ablation/table1 --iters N --out DIR``: train and compare many option files."""

import argparse
import contextlib
import os
import sys
import time

import torch

from lkdn_basicsr import cli
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import check_writable
from lkdn_basicsr.locks import FolderLock

PROG = 'python -m lkdn_basicsr.study'
DESCRIPTION = """Train and test option files as the runs of one study, and write a table, plots and a page. Give the
same command again to resume after an interruption. Start it with torchrun to split the runs across several processes,
each with a GPU of its own. See docs/study.md."""


def build_parser() -> cli.Parser:
    """Return the parser of the command's arguments."""
    parser = cli.Parser(prog=PROG, description=DESCRIPTION)
    add = parser.add_argument
    files = 'option files, or folders of option files: paths, or names of shipped ones'
    add('options', nargs='+', metavar='OPTIONS', help=files)
    add('--iters', type=cli.integer(1), metavar='N', help="iterations of each run (default: each file's)")
    add('--out', required=True, metavar='DIR', help='folder for everything that the study writes')
    sets = 'benchmarks, folders with GTmodX and LRbicxX (default: those that the option files validate on)'
    add('--sets', nargs='+', metavar='DIR', help=sets)
    settings = 'set keys in all runs, as in datasets:train:batch_size_per_gpu=8 datasets:val_2=~'
    add('--force_yml', nargs='+', default=(), metavar='KEY=VALUE', help=settings)
    return parser


def main() -> None:
    with cli.report_errors(PROG):
        run_study(build_parser().parse_args())


def run_study(arguments: argparse.Namespace) -> None:
    """Check all runs, then train and measure them, and write the report on the first rank.

    Raises:
        InputError: the arguments or option files are invalid, and nothing was written; or runs failed, and the report
            has the others.
        SystemExit: a signal stopped the study.
    """
    # Imported here, so that cli.report_errors reports an OpenCV that does not load.
    from lkdn_basicsr.evaluate.benchmarks import read_benchmarks
    from lkdn_basicsr.study.runs import benchmark_folders, check_runs, read_runs
    from lkdn_basicsr.study.study import Study
    from lkdn_basicsr.study.trainer import Trainer
    from lkdn_basicsr.training.distributed import Ranks
    from lkdn_basicsr.training.launch import read_launch

    failures, lock = {}, FolderLock(arguments.out)
    with contextlib.ExitStack() as held, Ranks(read_launch()) as ranks:
        ranks.rendezvous()
        select_gpu()
        runs = read_runs(arguments.options, arguments.out, arguments.iters, arguments.force_yml)
        is_first = ranks.launch.rank == 0
        if is_first:
            lock.check_free()
            check_runs(runs)
        while not is_first and ranks.get('study started') is None:
            ranks.exit_after_failure()
            time.sleep(0.1)
        benchmarks = read_benchmarks(arguments.sets or benchmark_folders(runs), runs[0].scale)
        check_writable(arguments.out)
        if is_first:
            held.enter_context(lock)
            ranks.set('study started', '')
        with Trainer() as trainer:
            study = Study(runs, benchmarks, arguments.out, ranks, trainer)
            try:
                study.work()
                if is_first:
                    names = [os.path.basename(os.path.normpath(path)) for path in arguments.options]
                    study.write_report(', '.join(names))
                    failures = study.failures()
            finally:
                if trainer.stopped_by is not None:
                    reason = f'stopped by {trainer.stopped_by.name}; run the same command again to resume'
                    print(f'{PROG}: {reason}', file=sys.stderr)
    if failures:
        reasons = '; '.join(f'{name} ({reason})' for name, reason in failures.items())
        others = ' The report has the others.' if len(failures) < len(runs) else ''
        message = f'{len(failures)} of {len(runs)} runs failed: {reasons}.{others} Run the same command again to retry'
        ranks.report_failure(message)
        raise InputError(message)


def select_gpu() -> None:
    """Limit this rank, and the trainers that it starts, to the GPU of its local rank."""
    if 'LOCAL_RANK' in os.environ and torch.cuda.device_count() > 0:
        visible = os.environ.get('CUDA_VISIBLE_DEVICES') or ','.join(map(str, range(torch.cuda.device_count())))
        devices = visible.split(',')
        os.environ['CUDA_VISIBLE_DEVICES'] = devices[int(os.environ['LOCAL_RANK']) % len(devices)]


if __name__ == '__main__':
    main()
