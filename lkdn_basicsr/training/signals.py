"""Signals that ask a run to stop. They are recorded here; ``Run.begin_iteration`` then saves and stops."""

import logging
import multiprocessing.queues
import os
import signal
import threading
from types import FrameType
from typing import Any

# What schedulers and users send: SIGTERM before a kill, Ctrl-C, and slurm's `--signal=USR1@60`; no USR1 on Windows.
SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGUSR1') if hasattr(signal, name))


class StopRequest:
    """Records the first of ``SIGNALS`` between ``install`` and ``restore``; a second Ctrl-C ends the process."""

    def __init__(self) -> None:
        self.received: int | None = None  # by this process
        self.agreed: int | None = None  # known to all ranks of a distributed run; see ``votes``
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Start to record signals. Python allows this in the main thread only; elsewhere nothing happens."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._record) for number in SIGNALS}

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        if self.received is None:
            self.received = number
            name = signal.Signals(number).name
            message = f'{name}: saving at the end of this iteration, then stopping; Ctrl-C stops immediately.'
            # A handler may interrupt the logger while it writes; a separate thread waits until that is done.
            threading.Thread(target=logging.getLogger('basicsr').warning, args=(message,)).start()

    def votes(self) -> list[float]:
        """Return 1 for the signal received and 0 for the others; summed over the ranks for ``agree``."""
        return [float(number == self.received) for number in SIGNALS]

    def agree(self, sums: list[float]) -> None:
        """Set ``agreed`` from the sums of all ranks' ``votes``, which are equal on all ranks: all stop together."""
        self.agreed = next((number for number, count in zip(SIGNALS, sums) if count > 0), None)


def ignore_in_worker(_worker_id: int | None = None) -> None:
    """Ignore the signals in a worker process of a data loader; the main process handles them.

    A worker that cannot send a sample, because too many files are open, ends: the main process would wait forever.

    Ctrl-C and schedulers signal all processes of a job. If workers ended, the current iteration, and with it the
    checkpoint, would be lost. Workers end when the main process asks them to, also by SIGTERM, or has ended.
    """
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_exit)  # type: ignore[attr-defined]
    for number in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_exit_when_parent_asks, daemon=True).start()


def _exit(_error: BaseException, _sample: Any) -> None:
    os._exit(0)  # with another status, torch may report it twice


def _exit_when_parent_asks() -> None:
    # A handler does not learn who sent the signal; sigwaitinfo does.
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
