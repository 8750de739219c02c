"""Commands in forked processes, which need not import anything again. Linux only."""

import atexit
import contextlib
import ctypes
import faulthandler
import importlib
import os
import resource
import select
import signal
import struct
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lkdn_basicsr.study import trainer

MEMORY = 8 << 30  # bytes; a command that asks for more must not stop the machine
MAX_OUTPUT = 1 << 20  # bytes; a process may print the same error for ever


@dataclass
class Outcome:
    """How a process ended: ``status`` is None if it was killed after the time limit, and -N after signal N."""

    status: int | None
    seconds: float
    stdout: str
    stderr: str


def fork(function: Callable[[], object], folder: Path, timeout: float) -> Outcome:
    """Call a function in a forked process in a folder, and end that process as the interpreter does."""
    start, pipes = time.monotonic(), [os.pipe(), os.pipe()]
    pid = os.fork()
    if pid == 0:
        _prepare(folder, pipes)
        _run(function)
    texts, process = {read: b'' for read, _ in pipes}, os.pidfd_open(pid)
    for _, write in pipes:
        os.close(write)
    has_ended, unread = False, [*texts]
    while not has_ended and (left := start + timeout - time.monotonic()) > 0:
        has_ended = process in select.select([process, *unread], [], [], left)[0]
        _read(unread, texts)
    with contextlib.suppress(ProcessLookupError):
        if not has_ended:  # print where it is
            os.killpg(pid, signal.SIGUSR2)
            time.sleep(1)
        os.killpg(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    _read(unread, texts)
    for descriptor in (process, *texts):
        os.close(descriptor)
    output = (text.decode(errors='replace') for text in texts.values())
    return Outcome(status if has_ended else None, time.monotonic() - start, *output)


def _prepare(folder: Path, pipes: list[tuple[int, int]]) -> None:
    """Put this process into a session and a folder, connect its output with pipes, and limit its memory."""
    os.setsid()
    descriptors = [os.open(os.devnull, os.O_RDONLY), *(write for _, write in pipes)]
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in {*descriptors, *(read for read, _ in pipes)} - {0, 1, 2}:
        os.close(descriptor)
    os.chdir(folder)
    _obey_permissions()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def _obey_permissions() -> None:
    """Give up root's right to read and write any file."""
    libc, header, sets = ctypes.CDLL(None), struct.pack('Ii', 0x20080522, 0), ctypes.create_string_buffer(24)
    libc.capget(header, sets)
    masks = list(struct.unpack('6I', sets.raw))  # effective, permitted and inheritable capabilities, twice
    masks[:2] = (mask & ~0b110 for mask in masks[:2])  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    libc.capset(header, struct.pack('6I', *masks))


def _read(pipes: list[int], texts: dict[int, bytes]) -> None:
    """Append to the texts what is in their pipes now, up to a limit; remove pipes that are closed from the list."""
    for pipe in select.select(pipes, [], [], 0)[0]:
        data = os.read(pipe, 1 << 16)  # the capacity of a pipe
        texts[pipe] = (texts[pipe] + data)[:MAX_OUTPUT]
        if not data:
            pipes.remove(pipe)


def _run(function: Callable[[], object]) -> None:
    """Call a function and end this process as the interpreter does after a program."""
    sys.stdout = open(1, 'w', encoding='utf-8', closefd=False)
    sys.stderr = open(2, 'w', encoding='utf-8', errors='backslashreplace', closefd=False)
    faulthandler.register(signal.SIGUSR2, 2)
    status = 0
    try:
        function()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        status = 120
    os._exit(status)  # deleting all objects takes seconds


def run_command(module: str, arguments: list[str]) -> None:
    """Run ``python -m MODULE ARGUMENTS`` in this process; a study starts its trainers as forks of it."""
    trainer.subprocess = types.SimpleNamespace(Popen=_Fork)
    sys.argv = [module, *arguments]
    importlib.import_module(module).main()


class _Fork:
    """What a study uses of ``subprocess.Popen``, for a module that this process has imported."""

    def __init__(self, command: list[str], env: dict[str, str], stdout=None, stderr=None, **_: object) -> None:
        def run() -> None:
            os.setpgid(0, 0)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, signal.SIG_DFL)
            for descriptor, file in ((1, stdout), (2, stderr)):
                if file is not None:
                    os.dup2(file.fileno(), descriptor)
            os.environ.clear()
            os.environ.update(env)
            run_command(command[2], command[3:])  # after the interpreter and -m

        self.pid = os.fork()
        if self.pid == 0:
            _run(run)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)
