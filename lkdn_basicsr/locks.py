"""One run per folder: an advisory lock that the system releases when its process ends, however it ends."""

import contextlib
import datetime
import logging
import os
import socket
from typing import Self

from filelock import FileLock, Timeout

from lkdn_basicsr.errors import InputError

PATIENCE = 2.0  # seconds to wait for a process that is just ending, or that only asks who holds the lock


class FolderLock:
    """The right to write to a folder, which one process has at a time; a context manager.

    Only an open lock file is a lock: one that is left behind by a process that was killed is not. Forked children do
    not inherit it, so workers that outlive a killed process do not keep it. The file contains who opened it.

    On a file system without locks, a warning is logged instead.

    Args:
        folder: It is created if it is missing; with ``beside``, its parent is.
        beside: Whether the lock file is next to the folder, which may then be renamed, instead of in it.
    """

    def __init__(self, folder: str, beside: bool = False) -> None:
        self.folder = folder
        parent, name = os.path.split(os.path.abspath(folder))
        self._path = os.path.join(parent, f'.{name}.lock') if beside else os.path.join(folder, '.lock')
        # Writable for all: a file that another user left behind must not block, and the folder has the permissions.
        # Not filelock's soft locks, which outlive their process.
        self._lock = FileLock(
            self._path, mode=0o666, thread_local=False, fallback_to_soft=False, on_acquired=_write_holder
        )

    def acquire(self) -> None:
        """Take the lock; raise InputError if another process has it, and OSError if its file cannot be created."""
        if not self.try_acquire(PATIENCE):
            raise self._in_use(self._read_holder())

    def try_acquire(self, patience: float = 0) -> bool:
        """Return whether this process has the lock now, after waiting for it for some seconds; raises OSError."""
        try:
            self._lock.acquire(timeout=patience)
        except Timeout:
            return False
        except OSError as error:
            if error.filename is not None:
                raise
            reason = f'{self.folder} is on a file system without locks ({error.strerror})'
            logging.getLogger('basicsr').warning(f'{reason}: do not start a second run in it.')
        return True

    def release(self) -> None:
        self._lock.release()

    def holder(self, patience: float = 0) -> str | None:
        """Return which process has the lock, as a part of a sentence; None if there is none. Nothing is changed."""
        with contextlib.suppress(OSError):  # the file does not exist, or cannot be locked
            os.stat(self._path)
            try:
                with FileLock(self._path, timeout=patience, fallback_to_soft=False):
                    return None
            except Timeout:
                return self._read_holder()
        return None

    def check_free(self) -> None:
        """Raise InputError if another process has the lock. Nothing is changed, so this can be the first check."""
        holder = self.holder(PATIENCE)
        if holder is not None:
            raise self._in_use(holder)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _in_use(self, holder: str) -> InputError:
        return InputError(f'{self.folder} is in use by {holder}; wait until it ends, or use another folder or name')

    def _read_holder(self) -> str:
        text = ''
        with contextlib.suppress(OSError), open(self._path, 'rb') as file:
            file.seek(1)  # Windows does not let others read the byte that is locked
            text = file.read(200).decode(errors='replace')
        # Anyone can write to the file: no line breaks, and nothing that controls a terminal.
        return ''.join(filter(str.isprintable, text)).strip() or 'another process'


def _write_holder(descriptor: int) -> None:
    since = datetime.datetime.now().astimezone().isoformat(' ', 'seconds')
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f' process {os.getpid()} on {socket.gethostname()} since {since}\n'.encode())
