"""Atomic writes, and whether a folder can be written to."""

import os

import pytest

from lkdn_basicsr.files import check_writable, exists, replace, write_file
from tests.support.runs import snapshot
from tests.support.system import as_nobody, disk


@pytest.mark.parametrize('name', ['a', 'n' * 255, '画' * 85, os.fsdecode(b'\xff\xfe'), 'a\nb'])
def test_files_of_any_name_are_written(tmp_path, name):
    write_file(str(tmp_path / 'new' / name), b'contents')
    assert os.listdir(tmp_path / 'new') == [name] and (tmp_path / 'new' / name).read_bytes() == b'contents'


def test_text_is_utf8_whatever_is_in_it(tmp_path):
    write_file(str(tmp_path / 'a'), f'×4 {os.fsdecode(b"<xff>")}\udcff')
    assert (tmp_path / 'a').read_text(encoding='utf-8') == r'×4 <xff>\udcff'


def test_errors_name_the_file_and_not_its_temporary(tmp_path):
    with disk(tmp_path / 'disk', 'size=8k'):
        (tmp_path / 'disk/old').write_bytes(b'old')
        for path, number in ((tmp_path / 'disk/old', 28), (tmp_path / 'missing/a', 2), (tmp_path / ('n' * 300), 36)):
            with pytest.raises(OSError) as caught:
                replace(str(path), bytes(10_000))
            assert (caught.value.errno, caught.value.filename) == (number, str(path))
        assert os.listdir(tmp_path / 'disk') == ['old'] and (tmp_path / 'disk/old').read_bytes() == b'old'


def test_writable_folders_are_not_changed(tmp_path):
    (tmp_path / 'there').mkdir()
    before = snapshot(tmp_path)
    check_writable(str(tmp_path / 'there'))
    check_writable(str(tmp_path / 'new/folder'))
    assert snapshot(tmp_path) == before


def test_folders_that_cannot_be_written_to(tmp_path):
    (tmp_path / 'file').touch()
    (tmp_path / 'link').symlink_to('nowhere')
    for path, named in (('file', 'file'), ('file/a/b', 'file'), ('link/a', 'link'), ('n' * 300, 'n' * 300)):
        with pytest.raises(OSError) as caught:
            check_writable(str(tmp_path / path))
        assert caught.value.filename == str(tmp_path / named)


@pytest.mark.parametrize('options, number', [('ro', 30), ('size=4k', 28)])
def test_disks_that_cannot_be_written_to(tmp_path, options, number):
    with disk(tmp_path / 'disk', options):
        if options != 'ro':
            (tmp_path / 'disk/full').write_bytes(bytes(4096))
        with pytest.raises(OSError) as caught:
            check_writable(str(tmp_path / 'disk/new'))
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / 'disk'))


def test_what_may_not_be_seen_is_not_missing(tmp_path, monkeypatch):
    (tmp_path / 'closed').mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    assert exists('closed') and not exists('missing') and not exists('closed/missing')
    with as_nobody(), pytest.raises(PermissionError):
        exists('closed/missing')
