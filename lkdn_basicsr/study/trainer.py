"""A row of a study is trained: by one process at a time, in a process of its own, which does not outlive the study."""

import contextlib
import fcntl
import os
import signal
import statistics
import subprocess
import sys

from lkdn_basicsr import cli
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.training.signals import SIGNALS

# What launchers tell their ranks: a row is trained by a single process, which must not take itself for one of them.
LAUNCHED = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'GROUP_', 'ROLE_', 'MASTER_', 'TORCHELASTIC_')


@contextlib.contextmanager
def claim(row):
    """Claim a row, so that it is trained by one process at a time, on all machines that see its folder.

    The trainer inherits the lock. One whose study was killed ends with the iteration that it is in, and until then no
    other can begin to write into the same folder.

    Yields:
        int | None: the descriptor that holds the lock; None if somebody else does.
    """
    os.makedirs(row.folder, exist_ok=True)
    descriptor = os.open(os.path.join(row.folder, 'study.lock'), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


class Signals:
    """While it is entered, signals that ask to stop go on to the trainer; without one they end the study at once.

    Attributes:
        received (int | None): the first that came.
    """

    def __init__(self):
        self.received = self.trainer = None
        self._previous = {}

    def __enter__(self):
        self._previous = {number: signal.signal(number, self._pass_on) for number in SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _pass_on(self, number, _frame):
        self.received = self.received or number
        if self.trainer is None:
            raise SystemExit(128 + number)
        self.trainer.send_signal(number)


def train(row, root, lock, signals, output=None):
    """Train a row, from where it was left, and wait for its end.

    Args:
        row (Row): begun and claimed.
        root (str): the folder of the study.
        lock (int): what :func:`claim` gave.
        signals (Signals): entered.
        output (str | None): a file that what the trainer shows is added to. Default: None, shown.

    Returns:
        str | None: why it failed, if it did.

    Raises:
        SystemExit: the study was asked to stop, and the trainer has saved what it did.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(LAUNCHED)}
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment['PYTHONPATH'] = os.pathsep.join(filter(None, [package, os.environ.get('PYTHONPATH')]))
    with contextlib.ExitStack() as opened:
        stream = None if output is None else opened.enter_context(open(output, 'ab'))
        reading, writing = os.pipe()
        said = opened.enter_context(open(reading, 'rb', buffering=0))
        os.set_blocking(reading, False)  # workers of a trainer that was killed may keep the other end for a while
        command = [
            sys.executable,
            '-c',
            f'from {__name__} import main; main()',
            str(os.getpid()),
            row.name,
            root,
            row.options_file,
            str(writing),
        ]
        # A process group of its own: Ctrl-C on a terminal would reach it beside the one that is passed on, and two stop
        # a training at once, without a checkpoint.
        trainer = subprocess.Popen(
            command, env=environment, pass_fds=[lock, writing], process_group=0, stdout=stream, stderr=stream
        )
        os.close(writing)
        signals.trainer = trainer
        try:
            status = trainer.wait()
        finally:
            signals.trainer = None
        if signals.received is not None:
            raise SystemExit(128 + signals.received)
        if status == 0:
            return None
        end = f'ended with status {status}' if status > 0 else f'was killed by {signal.Signals(-status).name}'
        return (said.read() or b'').decode() or f'the trainer {end}; its log is in {row.folder}'


def main():
    """The trainer's process: ``PARENT NAME ROOT OPTIONS DESCRIPTOR``, the last to write to what is wrong."""
    from lkdn_basicsr.training import distributed as ranks

    parent, name, root, options, descriptor = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the trainer listens, there is nothing to save
    ranks.end_with_parent()
    if os.getppid() != int(parent):  # it has ended already
        sys.exit(1)
    sys.argv = ['lkdn_basicsr.train', '-opt', options, '--auto_resume']
    with cli.report_errors(name):
        from lkdn_basicsr.training.loop import train_pipeline

        try:
            train_pipeline(root)
        except InputError as error:
            os.write(int(descriptor), str(error).encode())
            raise


def read_events(row):
    """What the trainer has logged of a row; of an interrupted one each iteration counts once, as it was done last.

    Returns:
        tuple[float | None, dict[str, list[tuple[int, float]]]]: seconds of training, which are the iterations times the
        median time of one, so that starting, validating, saving and interruptions do not count; and PSNR curves, by
        validation set.
    """
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    if not os.path.isdir(row.events):  # it was removed
        return None, {}
    events = EventAccumulator(row.events, size_guidance={SCALARS: 0}).Reload()
    tags = events.Tags()['scalars']
    opt, curves, seconds = row.source.opt, {}, None
    speed = 'speed/iterations_per_second'
    if speed in tags:
        times = [1 / event.value for event in events.Scalars(speed) if event.value > 0]
        seconds = row.iterations * statistics.median(times) if times else None
    metrics = (opt.get('val') or {}).get('metrics') or {}
    metric = next((name for name, options in metrics.items() if options['type'] == 'calculate_psnr'), None)
    for phase, dataset in opt['datasets'].items():
        tag = f'metrics/{dataset["name"]}/{metric}'
        if phase != 'train' and tag in tags:
            curves[dataset['name']] = [(event.step, event.value) for event in events.Scalars(tag)]
    return seconds, curves
