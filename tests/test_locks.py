import errno
import fcntl
import multiprocessing
import os
import signal
import stat

import pytest

from lkdn_basicsr import locks
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.locks import FolderLock
from tests.support.runs import snapshot

FORK = multiprocessing.get_context('fork')


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(locks, 'PATIENCE', 0.0)


def hold(folder, beside, connection):
    with FolderLock(folder, beside):
        # A worker, as of a data loader or a pool: it survives the SIGKILL of its parent.
        worker = FORK.Process(target=signal.pause)
        worker.start()
        connection.send(worker.pid)
        connection.recv()


@pytest.fixture(params=[False, True], ids=['inside', 'beside'])
def held(tmp_path, request):
    """A lock that another process holds, and the process."""
    ours, theirs = FORK.Pipe()
    folder = str(tmp_path / 'run')
    process = FORK.Process(target=hold, args=(folder, request.param, theirs))
    process.start()
    worker = ours.recv()
    yield FolderLock(folder, request.param), process
    process.kill()
    os.kill(worker, signal.SIGKILL)


def test_the_second_process_is_refused_and_changes_nothing(tmp_path, held):
    lock, process = held
    before = snapshot(tmp_path), [path.read_bytes() for path in tmp_path.rglob('.*lock')]
    for refuse in (lock.acquire, lock.check_free):
        with pytest.raises(
            InputError, match=rf'run is in use by process {process.pid} on \S+ since 20.*; wait'
        ) as error:
            refuse()
        assert '\n' not in str(error.value)
    assert not lock.try_acquire()
    assert (snapshot(tmp_path), [path.read_bytes() for path in tmp_path.rglob('.*lock')]) == before


def test_a_killed_process_does_not_keep_the_lock_and_neither_do_its_workers(held):
    lock, process = held
    process.kill()
    process.join()
    with lock:
        assert str(os.getpid()) in lock.holder()
    assert lock.holder() is None


def test_a_process_that_is_just_ending_is_waited_for(held):
    lock, process = held
    assert not lock.try_acquire()
    process.kill()
    assert lock.try_acquire(60)
    lock.release()


def test_asking_creates_nothing(tmp_path):
    assert FolderLock(str(tmp_path / 'missing/run')).holder() is None
    FolderLock(str(tmp_path / 'missing/run'), beside=True).check_free()
    assert not list(tmp_path.iterdir())


def test_the_folder_can_be_renamed_while_it_is_locked(tmp_path):
    (tmp_path / 'run').mkdir()
    with FolderLock(str(tmp_path / 'run'), beside=True):
        (tmp_path / 'run').rename(tmp_path / 'run_archived')
        (tmp_path / 'run').mkdir()
        with pytest.raises(InputError, match='in use by process'):
            FolderLock(str(tmp_path / 'run'), beside=True).check_free()


@pytest.mark.parametrize('code', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'flock', flock)
    with FolderLock(str(tmp_path / 'run')) as lock:
        assert lock.holder() is None
    assert 'is on a file system without locks' in caplog.text and len(caplog.records) == 1


def test_what_is_in_the_file_is_shown_in_one_printable_line(tmp_path):
    with FolderLock(str(tmp_path)) as lock:
        for content, shown in ((b'', 'another process'), (b' \x1b[31mred\n\xff\n', '[31mred�')):
            (tmp_path / '.lock').write_bytes(content)
            assert lock.holder() == shown


def test_a_file_of_another_user_does_not_block(tmp_path):
    previous = os.umask(0o077)
    try:
        with FolderLock(str(tmp_path)):
            assert stat.S_IMODE((tmp_path / '.lock').stat().st_mode) == 0o666
    finally:
        os.umask(previous)
