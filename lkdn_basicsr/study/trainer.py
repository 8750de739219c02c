"""Training of one run: by one process at a time, in a subprocess that ends with the study.

Networks are measured in subprocesses too. The study itself never uses the GPU: its memory is free for the next
training, and it may allow only one process at a time.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any, BinaryIO, Self

from lkdn_basicsr import cli
from lkdn_basicsr.errors import InputError, printable, system_error
from lkdn_basicsr.locks import FolderLock
from lkdn_basicsr.study.runs import StudyRun
from lkdn_basicsr.training.launch import end_with_parent
from lkdn_basicsr.training.signals import SIGNALS

# Prefixes of the variables that torchrun sets. Without them, the trainer does not take itself for a rank of the study.
TORCHRUN = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'GROUP_', 'ROLE_', 'MASTER_', 'TORCHELASTIC_')


def claim(run: StudyRun) -> FolderLock | None:
    """Lock a run, so that one rank trains it at a time, on all machines that share its folder.

    If the study is killed, its trainer ends after the current iteration. Until then it has the lock of a training.

    Returns:
        The lock, to be released; None if another rank has it, or a trainer is active.
    """
    lock = FolderLock(run.folder)
    if not lock.try_acquire():
        return None
    if FolderLock(run.folder, beside=True).holder() is None:
        return lock
    lock.release()
    return None


class Trainer:
    """Starts the subprocesses of a study. As a context manager, it forwards stop signals to the one in progress.

    Between subprocesses a stop signal ends the study immediately.
    """

    def __init__(self) -> None:
        self.stopped_by: signal.Signals | None = None  # the first stop signal
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._forward) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        self.stopped_by = self.stopped_by or signal.Signals(number)
        if self._process is None:
            sys.exit(128 + number)
        self._process.send_signal(number)

    def train(self, run: StudyRun, log_file: str | None = None) -> None:
        """Train a run, from its newest checkpoint if it has one.

        Args:
            run: prepared and claimed.
            log_file: file to append the output of the trainer to; by default the output is shown.

        Raises:
            InputError: the training failed.
            SystemExit: a signal stopped the study; the trainer has saved a checkpoint.
        """
        with open(log_file, 'ab') if log_file else contextlib.nullcontext() as log:
            what = f'the trainer (log in {run.folder})'
            self._run(what, log, _train, run.name, run.out, run.options_path)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a subprocess and return its result; all of these are pickled.

        Raises:
            InputError: by the function, or because the subprocess failed.
            SystemExit: a signal stopped the study.
        """
        return self._run('the process that measures', None, function, *arguments)

    def _run(self, what: str, output: BinaryIO | None, function: Callable, *arguments: Any) -> Any:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(TORCHRUN)}
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, [package, os.environ.get('PYTHONPATH')]))
        # Pickle is safe here: these files have no name, and are written by this process and its own child only.
        with tempfile.TemporaryFile() as call, tempfile.TemporaryFile() as result:
            pickle.dump((function, arguments), call)
            call.seek(0)
            fds = call.fileno(), result.fileno()
            command = [sys.executable, '-m', __name__, *map(str, (os.getpid(), *fds))]
            # Ctrl-C signals the group of the study. A trainer in that group would get it twice, directly and
            # forwarded, and the second signal stops a training without a checkpoint: it gets a group of its own.
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=fds, process_group=0, stdout=output, stderr=output
            )
            status = self._process.wait()
            self._process = None
            result.seek(0)
            contents = result.read()
        if self.stopped_by is not None:
            sys.exit(128 + self.stopped_by)
        if status != 0:
            end = f'ended with status {status}' if status > 0 else f'was killed by {signal.Signals(-status).name}'
            raise InputError(f'{what} {end}')
        value = pickle.loads(contents) if contents else None
        if isinstance(value, InputError):
            raise value
        return value


def _train(name: str, root: str, options: str) -> None:
    sys.argv = ['lkdn_basicsr.train', '-opt', options, '--auto_resume']
    from lkdn_basicsr.training.run import train_pipeline

    try:
        train_pipeline(root)
    except InputError as error:
        print(printable(f'{name}: error: {error}'), file=sys.stderr)
        raise


def main() -> None:
    """Call a function and return its result or InputError: ``PARENT CALL RESULT``, the last two file descriptors."""
    parent, call, result = map(int, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a training handles it, there is nothing to save
    end_with_parent()
    if os.getppid() != parent:  # the parent ended before
        sys.exit(1)
    with cli.report_errors('study'), open(call, 'rb') as call_file, open(result, 'wb') as result_file:
        function, arguments = pickle.load(call_file)
        try:
            value = function(*arguments)
        except Exception as error:
            value = error if isinstance(error, InputError) else system_error(error)
            if value is None:
                raise
        pickle.dump(value, result_file)


if __name__ == '__main__':
    main()
