"""Parts of messages."""

import os

import pytest

from lkdn_basicsr.errors import printable


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
