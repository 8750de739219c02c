"""``python -m lkdn_basicsr.study options/ablation/table1 --iters N --out DIR``: a table of the paper, on any budget."""

import argparse
import contextlib
import os
import signal
import sys
import time

from lkdn_basicsr import cli
from lkdn_basicsr.errors import InputError

PROG = 'python -m lkdn_basicsr.study'


def build_parser():
    parser = cli.Parser(
        prog=PROG,
        allow_abbrev=False,
        description='Train and test option files as the rows of one table, and write the table, plots and a page. Give '
        'the same command again to go on after an interruption; start it with torchrun to deal the rows out to '
        'several processes, each on a GPU of its own. docs/study.md has the rest.',
    )
    parser.add_argument('rows', nargs='+', metavar='ROWS', help='option files, or folders of option files')
    parser.add_argument('--iters', type=_positive, metavar='N', help="iterations of each row (default: each file's)")
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for everything that the study makes')
    parser.add_argument(
        '--sets',
        nargs='+',
        metavar='DIR',
        help='test sets, folders with GTmodX and LRbicxX (default: those that the option files validate on)',
    )
    parser.add_argument(
        '--force_yml',
        nargs='+',
        metavar='KEY=VALUE',
        help='set keys in all rows, as in datasets:train:batch_size_per_gpu=8 datasets:val_2=~',
    )
    return parser


def _positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text} is not a whole number from 1 on')
    return int(text)


def main():
    arguments = build_parser().parse_args()
    with cli.report_errors(PROG):
        from lkdn_basicsr import register

        register()
        run(arguments)


def run(arguments):
    """Check everything, then train and measure what no other process does, then wait for them and write the table.

    Args:
        arguments (argparse.Namespace): see :func:`build_parser`.

    Raises:
        InputError: something is wrong with what was given, and nothing was begun; or rows failed, and the table has the
            others.
        SystemExit: a signal asked to stop.
    """
    from lkdn_basicsr.evaluate.benchmarks import read_benchmarks
    from lkdn_basicsr.files import check_writable
    from lkdn_basicsr.study.runs import check_rows, read_rows, set_folders
    from lkdn_basicsr.study.trainer import Signals
    from lkdn_basicsr.training import distributed as ranks
    from lkdn_basicsr.training.launch import meet_ranks, read_launch

    launch = read_launch('none')
    meet_ranks(launch)
    _take_gpu()
    rows = read_rows(arguments.rows, arguments.out, arguments.iters, arguments.force_yml)
    if launch.rank == 0:
        check_rows(rows)
        ranks.post('checked')
    while ranks.posted('checked') is None:
        time.sleep(0.1)
    sets = read_benchmarks(arguments.sets or set_folders(rows), rows[0].scale)
    check_writable(arguments.out)

    study = Study(rows, sets, arguments.out, launch)
    with Signals() as study.signals:
        try:
            study.work()
            if launch.rank == 0:
                study.conclude(', '.join(os.path.basename(os.path.normpath(path)) for path in arguments.rows))
        except SystemExit:
            if study.signals.received is not None:
                print(
                    f'{PROG}: stopped by {signal.Signals(study.signals.received).name}; the same command goes on '
                    'from here',
                    file=sys.stderr,
                )
            raise
    if launch.rank > 0:
        ranks.post(f'left {launch.rank}')
    else:  # it may keep what the others read
        while any(ranks.posted(f'left {rank}') is None for rank in range(1, launch.world_size)):
            time.sleep(0.1)
    if study.failed and launch.rank == 0:
        reasons = '; '.join(f'{name} ({reason})' for name, reason in study.failed.items())
        others = 'The table has the others, and the' if len(study.failed) < len(rows) else 'The'
        raise InputError(
            f'{len(study.failed)} of {len(rows)} rows failed: {reasons}. {others} same command tries these again'
        )


def _take_gpu():
    """Of several ranks on a machine each sees one GPU, and so does what it starts."""
    import torch

    if 'LOCAL_RANK' in os.environ and torch.cuda.device_count() > 0:
        seen = os.environ.get('CUDA_VISIBLE_DEVICES') or ','.join(map(str, range(torch.cuda.device_count())))
        seen = seen.split(',')
        os.environ['CUDA_VISIBLE_DEVICES'] = seen[int(os.environ['LOCAL_RANK']) % len(seen)]


class Study:
    """The rows of a table, on the way to their results.

    Args:
        rows (list[Row]): checked.
        sets (list[Benchmark]): to measure on.
        out (str): the folder of the study.
        launch (Launch): which of how many processes this is.

    Attributes:
        failed (dict[str, str]): the names of rows that failed, and why.
        signals (Signals): see there.
    """

    def __init__(self, rows, sets, out, launch):
        self.rows, self.sets, self.out, self.launch = rows, sets, out, launch
        self.failed, self.signals = {}, None
        self.alone = launch.world_size == 1
        self.cache = os.path.join(out, 'methods')  # as compare has it

    def work(self):
        """Take one free row after the other until all are trained and measured, here or elsewhere, or have failed."""
        from lkdn_basicsr.study.trainer import claim
        from lkdn_basicsr.training import distributed as ranks

        pending, waiting = list(self.rows), False
        while pending:
            before = len(pending)
            for row in list(pending):
                reason = ranks.posted(f'failed {row.name}')
                with contextlib.nullcontext() if reason else claim(row) as lock:
                    if lock is not None:
                        reason = self._do(row, lock)
                        if reason:
                            ranks.post(f'failed {row.name}', reason)
                if reason:
                    self.failed[row.name] = reason
                if reason or lock is not None:
                    pending.remove(row)
            if pending and len(pending) == before:
                if self.alone and not waiting:
                    print(
                        f'waiting for another process, which trains {", ".join(row.name for row in pending)}',
                        flush=True,
                    )
                    waiting = True
                time.sleep(0.5)

    def _do(self, row, lock):
        """Train a row and measure it, as far as that has not been done. Returns why it failed, or None."""
        from lkdn_basicsr.study.trainer import read_events, train

        heading = f'row {self.rows.index(row) + 1} of {len(self.rows)}: {row.name}'
        record = row.begin()
        is_new = 'seconds' not in record
        if is_new:
            print(f'{heading}' if self.alone else f'{heading} begins on rank {self.launch.rank}', flush=True)
            output = None if self.alone else os.path.join(row.folder, 'study.log')
            reason = train(row, self.out, lock, self.signals, output)
            if reason:
                print(f'{heading} failed' if self.alone else f'{heading} failed: {reason}', file=sys.stderr, flush=True)
                return reason
            record['seconds'], record['curves'] = read_events(row)
            row.write_record(record)
        try:
            result = self.result(row)
        except InputError as error:
            print(f'{heading}: {error}', file=sys.stderr, flush=True)
            return str(error)
        if is_new or self.alone:
            scores = ', '.join(f'{name} {scores.mean_psnr:.2f} dB' for name, scores in result.scores.items())
            print(f'{heading} is done: {scores}', flush=True)
        return None

    def result(self, row, timed=False):
        """The Result of a trained row; what was measured before comes from the cache."""
        from lkdn_basicsr.evaluate.measure import measure

        models = os.path.join(row.folder, 'models')
        fused = os.path.join(models, 'net_g_latest_fused.pth')  # which ReparamSRModel alone writes
        network = fused if os.path.isfile(fused) else os.path.join(models, 'net_g_latest.pth')
        result = measure(network, self.sets, row.scale, self.cache, row.name, self.alone, timed)
        record = row.record()
        result.seconds = record['seconds']
        result.curves = {name: [tuple(point) for point in points] for name, points in record['curves'].items()}
        return result

    def conclude(self, title):
        """Write the table, the plots and the page of the rows that did not fail.

        The networks are timed here, one after the other, when no row is trained any more.
        """
        from lkdn_basicsr.evaluate.measure import measure_bicubic
        from lkdn_basicsr.report import report, table

        done = [self.result(row, timed=True) for row in self.rows if row.name not in self.failed]
        if done:
            results = [measure_bicubic(self.sets, self.rows[0].scale, self.cache), *done]
            report.write_report(self.out, title, results, self.sets)
            print(f'\n{table.markdown(results)}\nThe page: {os.path.join(self.out, "index.html")}', flush=True)


if __name__ == '__main__':
    main()
