"""The one exception for mistakes in what the user gave: an option, a file, a folder, a command line."""

import difflib


class InputError(ValueError):
    """What is wrong, in which file or option, and what to do, in one sentence.

    Commands print it without a traceback and exit with status 1. Everything else that is raised is a bug, and keeps its
    traceback.
    """

    def __init__(self, message):
        if message.startswith('Caught InputError in '):
            # Raised by a DataLoader worker: torch builds it anew from the traceback, of which the sentence is the end.
            message = message.rpartition(f'{__name__}.InputError: ')[2].strip()
        super().__init__(message)


def nearest(word, known):
    """The one of ``known`` that ``word`` was probably meant to be, or None. Case and - for _ count little."""
    plain = {name.lower().replace('-', '_'): name for name in known}
    found = difflib.get_close_matches(str(word).lower().replace('-', '_'), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def hint(word, known):
    """The end of a sentence on an unknown name: the nearest one, or the known ones when they are few."""
    near = nearest(word, known)
    if near is not None:
        return f'did you mean {near}?'
    if 0 < len(known) <= 15:
        return f'known here: {", ".join(sorted(known))}'
    return 'docs/options.md lists what is known'


def one_line(err):
    """An exception as the middle of a sentence."""
    text = ' '.join(str(err).split()).rstrip('.')
    # Ours are sentences with a remedy at the end; others may be pages.
    return text if isinstance(err, InputError) or len(text) <= 200 else f'{text[:197]}...'
