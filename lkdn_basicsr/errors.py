"""The exception for invalid input (an option, a file, a folder, a command line), and parts of its messages."""

import difflib
import errno
import os
import re
from collections.abc import Callable, Iterable
from typing import NoReturn

_WORKER_ADVICE = 'use fewer workers, free some memory, or raise the limit of open files (ulimit -n)'
# What an error of the operating system means, and what to do about it, by its number.
_ADVICE = {
    errno.EACCES: 'permission denied; change its permissions, or use another path',
    errno.EPERM: 'the system does not permit this; change its owner or attributes, or use another path',
    errno.EROFS: 'the file system is read-only; use another path',
    errno.ENOSPC: 'the disk is full; free some space',
    errno.EDQUOT: 'the disk quota is used up; free some space',
    errno.EFBIG: 'the file is larger than the system allows; raise the limit (ulimit -f)',
    errno.ENOENT: 'no such file or folder; correct the path, or create it',
    errno.ENOTDIR: 'a part of this path is a file, not a folder; rename that file, or use another path',
    errno.EISDIR: 'a folder, not a file; rename or remove it, or use another path',
    errno.EEXIST: 'exists already; rename or remove it, or use another path',
    errno.ENOTEMPTY: 'a folder that is not empty; rename or remove it',
    errno.ENAMETOOLONG: 'the name is too long; use a shorter one',
    errno.EILSEQ: 'the file system does not allow this name; rename it',
    errno.ELOOP: 'its symbolic links form a loop; correct the links',
    errno.ENXIO: 'not a regular file; use another path',
    errno.EXDEV: 'on another file system; use a folder on the same one',
    errno.EBUSY: 'in use by the system or another program; end that, or use another path',
    errno.EMFILE: 'too many open files; raise the limit (ulimit -n 4096), or use fewer workers',
    errno.ENFILE: 'too many open files on this machine; end other programs, or use fewer workers',
    errno.EAGAIN: 'the limit of processes is reached; raise it (ulimit -u), or use fewer workers',
    errno.ENOMEM: 'the memory does not suffice; end other programs, or use fewer workers',
    errno.EIO: 'the disk cannot be read or written; check it, and see the system log',
    errno.ESTALE: 'lost by the network file system; check the mount',
    errno.ENOLCK: 'the network file system has no locks; check the mount',
    errno.ECONNRESET: f'a worker has ended; {_WORKER_ADVICE}',
    errno.ECONNREFUSED: f'a worker has ended; {_WORKER_ADVICE}',
    errno.EPIPE: 'closed before everything was written; read all of it',
}
# Those that libraries report with exceptions of their own.
_OF_LIBRARIES = [getattr(errno, name) for name in 'EACCES EROFS ENOSPC EDQUOT EMFILE ENFILE ENOMEM EIO'.split()]


class InputError(ValueError):
    """Invalid input. The message is one line: what is wrong, in which file or option, and how to fix it.

    Commands print it without a traceback and exit with status 1, and so they do for :func:`system_error`. Any other
    exception is a bug and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        if message.startswith('Caught InputError in '):
            # Raised by a DataLoader worker: torch builds it again from the traceback, which ends with the message.
            message = message.rpartition(f'{__name__}.InputError: ')[2].strip()
        super().__init__(printable(message))


def nearest(word: object, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that ``word`` is probably a typo of, or None; case and - for _ hardly count."""
    plain = {name.lower().replace('-', '_'): name for name in known}
    found = difflib.get_close_matches(str(word).lower().replace('-', '_'), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def hint(word: object, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known one, or all if they are few."""
    known = list(known)
    near = nearest(word, known)
    if near is not None:
        return f'did you mean {near}?'
    if 0 < len(known) <= 15:
        return f'known here: {", ".join(sorted(known))}'
    return 'docs/options.md lists all options'


def one_line(error: BaseException | str) -> str:
    """Return an exception's message as a part of a sentence, or its class if it has none."""
    if isinstance(error, OSError):
        error = system_error(error) or error
    text = ' '.join(str(error).split()).rstrip('.') or type(error).__name__
    # Messages of InputError end with the fix; those of others may be pages.
    return text if isinstance(error, InputError) or len(text) <= 200 else f'{text[:197]}...'


def raise_all(summary: str, problems: list[str], log: Callable[[str], None] = lambda line: None) -> NoReturn:
    """Raise InputError with ``summary``, as in "3 files are damaged; copy them again:", and the first ten problems.

    If there are more, all of them are logged before, one in a line.
    """
    if len(problems) == 1:
        raise InputError(f'{summary} {problems[0]}')
    shown = ' '.join(f'({n}) {problem}' for n, problem in enumerate(problems[:10], 1))
    if len(problems) > 10:
        for problem in problems:
            log(printable(problem))
        shown += f' … and {len(problems) - 10:,} more'
    raise InputError(f'{summary} {shown}')


def system_error(error: BaseException | None) -> InputError | None:
    """Return an error of the operating system as one of the user, with the path and what to do; None for all others.

    Besides OSError these are a name that the encoding of the system lacks, and what :func:`_reported` finds.
    """
    if isinstance(error, UnicodeEncodeError):
        fix = 'rename it, or set PYTHONUTF8=1 in the environment'
        return InputError(f'{one_line(printable(error.object))} has characters that {error.encoding} lacks; {fix}')
    if not isinstance(error, OSError) or error.errno is None:
        return _reported(error) if isinstance(error, Exception) and not isinstance(error, InputError) else None
    path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    if path is None and error.strerror != os.strerror(error.errno):
        path = error.strerror  # as in "No usable temporary directory found in ['/tmp']"
    elif path is None:  # a current folder that was removed, or a reader of the output that has ended
        path = {errno.ENOENT: 'the current folder', errno.EPIPE: 'standard output'}.get(error.errno)
    elif error.errno not in _ADVICE:
        return InputError(f'{path}: {error.strerror}; check this path and its file system')
    return _advise(error.errno, path)


def _reported(error: Exception) -> InputError | None:
    """Return an error of the system that an exception reports in its message, or None.

    A DataLoader raises what a worker has raised again, with its traceback as the message, and that a worker was killed.
    Libraries have exceptions of their own, with messages such as "unable to open x: Too many open files (24)".
    """
    *_, message = str(error).splitlines() or ['']
    if found := re.search(r'DataLoader worker \(.*?\) (is killed by signal: [^.]*|exited unexpectedly)', message):
        return InputError(f'a worker of the data loader {found[1]}; {_WORKER_ADVICE}')
    if found := re.search(r"Error: \[Errno (\d+)\] [^:]*(?:: ['\"](.*)['\"])?$", message):
        return _advise(int(found[1]), found[2])
    number = next((number for number in _OF_LIBRARIES if os.strerror(number) in message), 0)
    return _advise(number, one_line(message))


def _advise(number: int, path: object) -> InputError | None:
    if number not in _ADVICE:
        return None
    return InputError(f'{path}: {_ADVICE[number]}' if path else _ADVICE[number])


def printable(text: object) -> str:
    """Return a text as one line that every terminal and file can show, with ``\\n`` and ``\\xff`` as in Python.

    Names of files may contain newlines, commands for terminals and, as surrogates, bytes that are not UTF-8.
    """
    return ''.join(char if char.isprintable() else _escape(char) for char in str(text))


def _escape(char: str) -> str:
    is_byte = '\udc80' <= char <= '\udcff'  # see os.fsdecode
    return f'\\x{ord(char) - 0xDC00:02x}' if is_byte else char.encode('unicode_escape').decode()
