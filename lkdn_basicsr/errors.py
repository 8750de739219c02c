"""The one exception for mistakes in what the user gave: an option, a file, a folder, a command line."""


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
