"""Files that are there whole or not at all."""
import os
import tempfile

from lkdn_basicsr.errors import InputError


def write_whole(path, data):
    """Write a file under a temporary name beside its place, then give it its name; until then the old one stays.

    Args:
        path (str): of the file; its folder is made if it is missing.
        data (bytes): all of it.

    Raises:
        InputError: It cannot be written.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f'.{name}.partial')
    try:
        os.makedirs(folder or '.', exist_ok=True)
        try:
            with open(temporary, 'wb') as file:
                file.write(data)
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
    except OSError as error:
        raise InputError(f'{path} could not be written ({error.strerror}); make it possible to write there.') from None


def check_writable(folder):
    """Make a folder if it is missing, and see that files can be written into it, before hours of work are.

    Raises:
        InputError: They cannot.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f'--out: {folder} cannot be written to ({error.strerror}); give another folder') from None
