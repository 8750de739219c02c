"""Parts of messages, and errors of the operating system as those of the user."""

import errno
import os

import pytest
from torch.utils.data import DataLoader

from lkdn_basicsr.errors import InputError, one_line, printable, system_error


@pytest.mark.parametrize(
    'text, expected',
    [
        ('Größe ×4, 画像 #1.png', 'Größe ×4, 画像 #1.png'),
        (os.fsdecode(b'a\xff\xc3.png'), r'a\xff\xc3.png'),
        ('a\nb\r\t\x1b[31m\u2028', r'a\nb\r\t\x1b[31m\u2028'),
        ('\ud800', r'\ud800'),
        (3, '3'),
    ],
)
def test_printable(text, expected):
    assert printable(text) == expected
    assert printable(printable(text)) == expected


TOO_MANY = 'too many open files; raise the limit (ulimit -n 4096), or use fewer workers'


def _os_error(number, *path):
    return OSError(number, os.strerror(number), *path)


@pytest.mark.parametrize(
    'error, message',
    [
        (_os_error(errno.EACCES, 'a/b'), 'a/b: permission denied; change its permissions, or use another path'),
        (_os_error(errno.ENOENT, b'a'), 'a: no such file or folder; correct the path, or create it'),
        (_os_error(errno.ENOENT), 'the current folder: no such file or folder; correct the path, or create it'),
        (_os_error(errno.ENOSPC), 'the disk is full; free some space'),
        (_os_error(errno.EMFILE), TOO_MANY),
        (_os_error(errno.ENOTCONN, 'a'), 'a: Transport endpoint is not connected; check this path and its file system'),
        (OSError(errno.EROFS, 'No place'), 'No place: the file system is read-only; use another path'),
        (
            RuntimeError('unable to open x: Too many open files (24)'),
            f'unable to open x: Too many open files (24): {TOO_MANY}',
        ),
        (
            RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. '),
            'a worker of the data loader is killed',
        ),
        (UnicodeEncodeError('ascii', 'é\n', 0, 1, 'x'), r'é\n has characters that ascii lacks; rename it'),
    ],
)
def test_errors_of_the_system_say_where_and_what_to_do(error, message):
    found = system_error(error)
    assert isinstance(found, InputError) and str(found).startswith(message)


@pytest.mark.parametrize(
    'error', [OSError('a closed writer'), _os_error(errno.EBADF), KeyError('a'), InputError('a'), None]
)
def test_other_errors_are_none_of_the_system(error):
    assert system_error(error) is None


class Missing:
    def __getitem__(self, index):
        with open('missing/a b.png', 'rb'):
            pass

    def __len__(self):
        return 1


def test_errors_of_workers_are_found():
    with pytest.raises(OSError) as caught:
        next(iter(DataLoader(Missing(), num_workers=1)))
    expected = 'missing/a b.png: no such file or folder; correct the path, or create it'
    assert str(system_error(caught.value)) == expected == one_line(caught.value)
