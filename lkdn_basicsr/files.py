"""Atomic writes: after a kill, a full disk or a power cut, a file is either complete or unchanged."""

import os
import tempfile
import zlib

PARTIAL_SUFFIX = '.part'  # ends the name of a file that is being written; the name begins with a dot


def replace(path: str, data: bytes | memoryview) -> None:
    """Write a temporary file, flush it to the disk, rename it to ``path``; after an OSError it is removed."""
    folder, name = os.path.split(path)
    if len(name) > 50:  # of 255 bytes, a character may have four
        name = f'{name[:40]}{zlib.crc32(os.fsencode(name)):08x}'
    temporary = os.path.join(folder, f'.{name}{PARTIAL_SUFFIX}')
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(folder)
    except OSError as error:
        error.filename, error.filename2 = path, None  # for the message; writing names no file
        raise
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


def write_file(path: str, data: bytes | memoryview | str) -> None:
    """Write a file atomically; create its folder if it is missing.

    Text is written as UTF-8. Bytes of a name in it that are not UTF-8 become escapes.
    """
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    replace(path, data.encode(errors='backslashreplace') if isinstance(data, str) else data)


def check_writable(folder: str) -> None:
    """Check that files can be written to a folder, or that it can be created; change nothing. Raises OSError if not."""
    existing = os.path.abspath(folder)
    while not os.path.islink(existing) and not exists(existing):
        existing = os.path.dirname(existing)
    try:
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            file.write(bytes(4096))  # a full disk may still have space for names
    except OSError as error:
        error.filename = folder if existing == os.path.abspath(folder) else existing
        raise


def exists(path: str) -> bool:
    """Return whether a path exists; unlike ``os.path.exists``, raise OSError where the system does not show that."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
