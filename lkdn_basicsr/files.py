"""Files that are there whole or not at all, also after a kill, a full disk or a power cut."""

import os
import tempfile

from lkdn_basicsr.errors import InputError

PARTIAL_SUFFIX = '.part'  # how a file ends that is not complete; its name begins with a dot


def replace(path, data):
    """Write a file under another name and flush it to the disk, then give it its name; until then the old one stays.

    Args:
        path (str): of the file.
        data (bytes-like): all of it.

    Raises:
        OSError: it cannot be written; nothing half-written is left.
    """
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


def sync_folder(folder):
    """Bring the names in a folder to the disk, where the system lets a folder be opened."""
    if hasattr(os, 'O_DIRECTORY'):
        descriptor = os.open(folder or '.', os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_file(path, data):
    """:func:`replace`, for a file in a folder that is made if it is missing.

    Raises:
        InputError: it cannot be written.
    """
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        replace(path, data)
    except OSError as error:
        raise InputError(f'{path} could not be written ({error.strerror}); make it possible to write there.') from None


def check_writable(folder):
    """Make the folder of ``--out`` if it is missing, and see that files can be written into it, before hours of work.

    Raises:
        InputError: they cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f'--out: {folder} cannot be written to ({error.strerror}); give another folder') from None
