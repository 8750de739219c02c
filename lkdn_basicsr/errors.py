"""The exception for invalid input (an option, a file, a folder, a command line), and parts of its messages."""

import difflib
from collections.abc import Callable, Iterable
from typing import NoReturn


class InputError(ValueError):
    """Invalid input. The message is one line: what is wrong, in which file or option, and how to fix it.

    Commands print it without a traceback and exit with status 1. Any other exception is a bug and keeps its traceback.
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


def printable(text: object) -> str:
    """Return a text as one line that every terminal and file can show, with ``\\n`` and ``\\xff`` as in Python.

    Names of files may contain newlines, commands for terminals and, as surrogates, bytes that are not UTF-8.
    """
    return ''.join(char if char.isprintable() else _escape(char) for char in str(text))


def _escape(char: str) -> str:
    is_byte = '\udc80' <= char <= '\udcff'  # see os.fsdecode
    return f'\\x{ord(char) - 0xDC00:02x}' if is_byte else char.encode('unicode_escape').decode()
