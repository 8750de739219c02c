"""Atomic writes: after a kill, a full disk or a power cut, a file is either complete or unchanged."""

import os
import tempfile

from lkdn_basicsr.errors import InputError

PARTIAL_SUFFIX = '.part'  # ends the name of a file that is being written; the name begins with a dot


def replace(path: str, data: bytes | memoryview) -> None:
    """Write a temporary file, flush it to the disk, rename it to ``path``; after an OSError it is removed."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f'.{name}{PARTIAL_SUFFIX}')
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(folder)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def partial_folder(path: str) -> str:
    """Return the hidden folder in which a folder is written that gets the name ``path`` when it is complete."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f'.{name}.partial')


def sync_folder(folder: str) -> None:
    """Flush the names in a folder to the disk, where the system can open a folder."""
    if hasattr(os, 'O_DIRECTORY'):
        descriptor = os.open(folder or '.', os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_file(path: str, data: bytes | memoryview) -> None:
    """Write a file atomically; create its folder if it is missing. Raises InputError if it cannot be written."""
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        replace(path, data)
    except OSError as error:
        raise InputError(
            f'{path} could not be written ({error.strerror}); check the disk and its permissions'
        ) from None


def check_writable(folder: str) -> None:
    """Create the folder of ``--out`` if it is missing; raise InputError if files cannot be written to it."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f'--out: {folder} cannot be written to ({error.strerror}); give another folder') from None
