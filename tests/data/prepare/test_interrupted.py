"""Preparation that is killed, starved of disk, or asked for something else in the middle."""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from unittest.mock import Mock

import lmdb
import pytest

from lkdn_basicsr import locks
from lkdn_basicsr.data.prepare import store_writer, stores, workers, write_stores
from lkdn_basicsr.data.prepare.benchmark import prepare_benchmark
from lkdn_basicsr.data.prepare.verify import verify
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.locks import FolderLock
from tests.support.images import prepare, write_images

pytestmark = pytest.mark.slow  # many killed processes

RAW = dict(scales=(2, 4), workers=2)
PNG = dict(RAW, format='png', crop_size=32, step=16)


@pytest.fixture
def hr(tmp_path, monkeypatch):
    monkeypatch.setattr(write_stores, 'COMMIT_BYTES', 1)  # after each image
    write_images(tmp_path / 'hr', '012345', (64, 48))
    return tmp_path / 'hr'


def start(function, *args, **kwargs):
    """Run a function in a forked process that leads a process group of its own."""

    def body():
        os.setsid()
        function(*args, **kwargs)

    process = multiprocessing.get_context('fork').Process(target=body)
    process.start()
    return process


def entries(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return list(transaction.cursor())


def content(out):
    """Return everything in the stores of a folder; LMDBs as their entries."""
    files = [path for path in out.glob('*.lmdb/*') if path.name != 'data.mdb']
    assert {path.name for path in out.glob('.*')} == {'.lock'}
    lmdbs = {path.relative_to(out): entries(path) for path in out.glob('*.lmdb')}
    return lmdbs | {path.relative_to(out): path.read_bytes() for path in files}


def finished(out):
    return [path for path in out.glob('*') if not path.name.startswith('.')]


def assert_resumes(out, hr, tmp_path, **options):
    prepare(out, hr, **options)
    prepare(tmp_path / 'uninterrupted', hr, **options)
    assert content(out) == content(tmp_path / 'uninterrupted')


def kill_at_step(step):
    """Let this process kill itself before its n-th change to the disk."""
    count = 0

    def counted(function):
        def wrapper(*args, **kwargs):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    for name in ('fsync', 'rename', 'replace', 'remove', 'makedirs'):
        setattr(os, name, counted(getattr(os, name)))
    store_writer.StoreWriter.commit = counted(store_writer.StoreWriter.commit)


@pytest.mark.parametrize('options, steps', [({}, range(1, 100)), (PNG, range(3, 99, 4))], ids=['raw', 'png'])
def test_killed_before_any_step_it_resumes_and_makes_the_same_stores(tmp_path, hr, options, steps):
    options = dict(options, workers=1)
    shutil.rmtree(hr)
    write_images(hr, '01', (64, 48))
    prepare(tmp_path / 'uninterrupted', hr, **options)
    expected = content(tmp_path / 'uninterrupted')

    def run(step):
        kill_at_step(step)
        prepare(out, hr, **options)

    for step in steps:
        out = tmp_path / f'out{step}'
        process = start(run, step)
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        for path in finished(out):
            verify(str(path))
        prepare(out, hr, **options)
        assert content(out) == expected
    assert 15 < step < 95


def test_killed_at_random_moments_it_loses_nothing_that_was_committed(tmp_path, hr):
    write_images(hr, map(str, range(60)), (64, 48))
    out, begin = tmp_path / 'out', time.monotonic()
    prepare(tmp_path / 'uninterrupted', hr, **RAW)
    duration = time.monotonic() - begin
    partial, reached, moments = out / '.HR.lmdb.partial', [0], random.Random(0)
    for _ in range(6):
        process = start(prepare, out, hr, **RAW)
        process.join(moments.uniform(0.2, 0.9) * duration)
        process.kill()
        process.join(60)
        if (partial / 'data.mdb').exists():
            reached.append(len(entries(partial)))
            assert reached[-1] >= reached[-2]
    lines, finished_before = [], finished(out)
    prepare(out, hr, **RAW, log=lines.append)
    assert content(out) == content(tmp_path / 'uninterrupted')
    assert not reached[-1] or finished_before or any(line.startswith('Resuming after') for line in lines)


def test_workers_end_with_the_command(tmp_path, hr, monkeypatch):
    monkeypatch.setattr(workers, 'read_image', lambda *args: time.sleep(60))
    process = start(prepare, tmp_path / 'out', hr, workers=3)
    time.sleep(1)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail('workers outlive the command')


def test_a_killed_worker_ends_the_command_with_one_line(tmp_path, hr, monkeypatch):
    out = tmp_path / 'out'
    with monkeypatch.context() as patch, pytest.raises(InputError, match='A worker process was killed'):
        patch.setattr(workers, 'imresize', lambda *args: os.kill(os.getpid(), signal.SIGKILL))
        prepare(out, hr, **RAW)
    assert not finished(out)
    assert_resumes(out, hr, tmp_path, **RAW)


def test_a_failed_write_is_reported_and_can_be_resumed(tmp_path, hr):
    out, file = tmp_path / 'out', tmp_path / 'message'

    def run():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
        try:
            prepare(out, hr, **RAW)
        except InputError as error:
            file.write_text(str(error))

    start(run).join(60)
    message = file.read_text()
    assert 'could not be written' in message and 'run the same command again' in message and '\n' not in message
    assert not finished(out) and len(entries(out / '.HR.lmdb.partial')) > 0
    assert_resumes(out, hr, tmp_path, **RAW)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    path = tmp_path / 'disk'
    path.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', path]
    if os.geteuid() or not shutil.which('mount') or subprocess.run(command, capture_output=True).returncode:
        pytest.skip('mounting a small file system needs root')
    yield path
    subprocess.run(['umount', path], check=True)


def test_a_disk_that_is_too_small_is_refused_before_starting(small_disk, hr):
    (small_disk / 'filler').write_bytes(bytes(2_000_000))
    with pytest.raises(InputError, match=r'free space, and .* are needed; make room'):
        prepare(small_disk / 'out', hr, **RAW)
    assert os.listdir(small_disk / 'out') == ['.lock']


def test_a_disk_that_fills_up_is_reported_and_can_be_resumed(small_disk, tmp_path, hr, monkeypatch):
    out, filler = small_disk / 'out', small_disk / 'filler'
    filler.write_bytes(bytes((3 << 20) - 60_000))
    with monkeypatch.context() as patch, pytest.raises(InputError, match=r'the disk is full'):
        patch.setattr(write_stores, '_check_free_space', lambda *args: None)  # as if it filled up later
        prepare(out, hr)
    filler.unlink()
    assert_resumes(out, hr, tmp_path)


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


def test_finished_stores_are_not_touched(tmp_path, hr):
    out, lines = tmp_path / 'out', []
    prepare(out, hr)
    before = tree(out)
    prepare(out, hr, log=lines.append)
    assert tree(out) == before and lines[0].startswith('Already complete')
    # A verification is still done.
    write_images(tmp_path / 'lr', '012345', (16, 12))
    prepare(tmp_path / 'given', hr, tmp_path / 'lr')
    with pytest.raises(InputError, match='6 problems'):
        prepare(tmp_path / 'given', hr, tmp_path / 'lr', verify_lr=True)
    # A further scale adds an LR store.
    prepare(out, hr, **RAW)
    assert {path: time for path, time in before.items() if path.parent != out}.items() <= tree(out).items()
    assert len(finished(out)) == 3


def test_other_settings_and_other_images_are_refused_not_mixed(tmp_path, hr):
    out = tmp_path / 'out'
    prepare(out, hr, **PNG)
    prepare(out, hr, **RAW)
    before = tree(out)
    with pytest.raises(InputError, match=r'HR_sub.lmdb was made with other settings \(step 16, now 8\)'):
        prepare(out, hr, **dict(PNG, step=8))
    shutil.copytree(hr, tmp_path / 'lr')
    with pytest.raises(InputError, match=r'LR_bicubic_X4.lmdb was made with other settings \(lr imresize, now given'):
        prepare(out, hr, tmp_path / 'lr')
    with open(hr / '5.png', 'ab') as file:
        file.write(b'more')
    with pytest.raises(InputError, match=r'HR.lmdb was made with other settings \(images 6 \(.*, now 6 \('):
        prepare(out, hr, **RAW)
    assert tree(out) == before
    # The images of the stores are cropped for their scales.
    write_images(tmp_path / 'odd', '0', (50, 50))
    prepare(tmp_path / 'out2', tmp_path / 'odd', scales=(2,))
    with pytest.raises(InputError, match=r'HR.lmdb was made with other settings \(sides_multiple_of 2, now 3\)'):
        prepare(tmp_path / 'out2', tmp_path / 'odd', scales=(3,))


def test_a_store_that_was_begun_with_other_settings_is_refused(tmp_path, hr, monkeypatch):
    out = tmp_path / 'out'
    monkeypatch.setattr(store_writer.StoreWriter, 'finish', lambda *args: os._exit(3))
    process = start(prepare, out, hr, **PNG)
    process.join(60)
    monkeypatch.undo()
    assert process.exitcode == 3 and not finished(out)
    with pytest.raises(InputError, match=r'\.HR_sub.lmdb.partial was made with other settings \(crop_size 32, now 48'):
        prepare(out, hr, **dict(PNG, crop_size=48))
    prepare(out, hr, **PNG)


@pytest.mark.parametrize(
    'name, damage',
    [
        ('settings.json', lambda data: b'[1]'),
        ('settings.json', lambda data: b'[' * 100_000),
        ('settings.json', lambda data: b'{"sides_multiple_of": "4"}'),
        ('data.mdb', lambda data: data[: len(data) // 2]),
        ('data.mdb', lambda data: bytes(len(data))),
    ],
)
def test_a_damaged_partial_store_is_refused(tmp_path, hr, monkeypatch, name, damage):
    out = tmp_path / 'out'
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store_writer.StoreWriter, 'finish', Mock(side_effect=KeyboardInterrupt))
        prepare(out, hr)
    path = out / '.HR.lmdb.partial' / name
    path.write_bytes(damage(path.read_bytes()))
    before = tree(out)
    with pytest.raises(InputError, match=r'HR.lmdb.partial.* (is damaged.*; delete .*partial to begin|other settings)'):
        prepare(out, hr)
    assert {path: time for path, time in tree(out).items() if path.name != '.lock'}.items() <= before.items()


def test_what_is_already_at_the_path_is_not_touched(tmp_path, hr):
    (tmp_path / 'out/HR.lmdb').mkdir(parents=True)
    with pytest.raises(InputError, match='was not made by lkdn_basicsr.prepare'):
        prepare(tmp_path / 'out', hr)
    (tmp_path / 'file').write_text('')
    with pytest.raises(NotADirectoryError, match='file'):
        prepare(tmp_path / 'file', hr)


def test_a_second_command_is_refused_and_changes_nothing(tmp_path, hr, monkeypatch):
    out = tmp_path / 'out'
    with monkeypatch.context() as patch:
        patch.setattr(workers, 'imresize', lambda *args: time.sleep(60))
        process = start(prepare, out, hr)
    try:
        while not (out / '.HR.lmdb.partial' / 'data.mdb').exists():
            assert process.is_alive()
            time.sleep(0.05)
        before = tree(out)
        monkeypatch.setattr(locks, 'PATIENCE', 0)
        monkeypatch.setattr(stores, 'check_images', None)
        for command in (lambda: prepare(out, hr), lambda: prepare_benchmark(str(hr), str(out))):
            with pytest.raises(InputError, match=f'out is in use by process {process.pid} on'):
                command()  # before it reads the images
        monkeypatch.setattr(FolderLock, 'check_free', lambda _: None)
        monkeypatch.setattr(stores, 'check_images', lambda _: [])
        for command in (lambda: prepare(out, hr), lambda: prepare_benchmark(str(hr), str(out))):
            with pytest.raises(InputError, match=f'out is in use by process {process.pid} on'):
                command()  # as if the first one had started while this one read the images
        assert tree(out) == before
    finally:
        process.kill()
        process.join(60)
    monkeypatch.undo()
    prepare(out, hr)  # the workers of the first may still be alive


def test_stores_that_another_command_has_finished_in_the_meantime_are_not_touched(tmp_path, hr, monkeypatch):
    out, before = tmp_path / 'out', {}

    def check(plan):
        monkeypatch.undo()
        prepare(out, hr)
        before.update(tree(out))
        return workers.check_images(plan)

    monkeypatch.setattr(stores, 'check_images', check)
    prepare(out, hr)
    assert before.pop(out / '.lock') and before.items() <= tree(out).items()


def test_workers_that_are_not_forked_make_the_same_stores(tmp_path, hr, monkeypatch):
    prepare(tmp_path / 'forked', hr)
    monkeypatch.setattr(workers, 'START_METHOD', 'spawn')  # as on Windows and macOS
    prepare(tmp_path / 'spawned', hr)
    for path in finished(tmp_path / 'forked'):
        for file in path.iterdir():
            assert (tmp_path / 'spawned' / path.name / file.name).read_bytes() == file.read_bytes()
