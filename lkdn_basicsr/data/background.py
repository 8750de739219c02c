"""Work that must not delay the caller: one thread for each process, started by its first job."""

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

_Jobs = queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]]
_jobs: _Jobs | None = None


def run_in_background(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function, which must not raise, in the background, after all earlier ones.

    The end of the process does not wait for it. A forked child starts without jobs, which its parent completes.
    """
    global _jobs
    if _jobs is None:
        _jobs = queue.SimpleQueue()
        threading.Thread(target=_work, args=(_jobs,), daemon=True).start()
    _jobs.put((function, arguments))


def _work(jobs: _Jobs) -> None:
    while True:
        function, arguments = jobs.get()
        function(*arguments)


def _forget_jobs() -> None:
    global _jobs
    _jobs = None


if hasattr(os, 'register_at_fork'):  # Windows has none
    os.register_at_fork(after_in_child=_forget_jobs)
