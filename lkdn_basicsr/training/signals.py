"""Signals that ask a training run to stop: noted when they come, obeyed at the end of the iteration."""

import logging
import os
import signal
import threading

# What schedulers and users send: SIGTERM before a kill, Ctrl-C, and slurm's `--signal=USR1@60`.
SIGNALS = tuple(
    getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGUSR1') if hasattr(signal, name)
)  # no USR1 on Windows


class StopRequest:
    """Notes the first of ``SIGNALS`` that comes between ``install`` and ``restore``; a second Ctrl-C ends at once.

    Attributes:
        received (int | None): The signal that came to this process.
        agreed (int | None): The signal that all ranks of a distributed run know of; see ``votes``.
    """

    def __init__(self):
        self.received = self.agreed = None
        self._previous = {}

    def install(self):
        """Begin to note signals. Python lets the main thread alone do this; elsewhere nothing happens."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def restore(self):
        """Put back the handlers that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number, _frame):
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        if self.received is None:
            self.received = number
            # A handler may interrupt the logger while it writes; a thread of its own waits until that is done.
            threading.Thread(
                target=logging.getLogger('basicsr').warning,
                args=(f'{signal.Signals(number).name}: saving after this iteration, then stopping; Ctrl-C stops now.',),
            ).start()

    def votes(self):
        """list[float]: one for the signal received, zero for the others; summed over the ranks for ``agree``."""
        return [float(number == self.received) for number in SIGNALS]

    def agree(self, sums):
        """Take the sums of all ranks' ``votes``: they are the same everywhere, so all stop at the same iteration."""
        self.agreed = next((number for number, count in zip(SIGNALS, sums) if count > 0), None)


def leave_to_parent(_worker_id=None):
    """Ignore the signals in a data loader's worker process, for which the main process cares.

    Ctrl-C and schedulers signal all processes of a job. Workers that died of it would take the last iteration, and
    with it the checkpoint, along. They end when the main process tells them, also by SIGTERM, or is no more.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_parent_says, daemon=True).start()


def _end_when_parent_says():
    # A handler is not told who sent the signal; who waits for one is.
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
