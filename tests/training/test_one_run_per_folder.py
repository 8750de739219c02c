"""A second run of the same name, while the first one is active, and after it was killed."""

import os
import signal

import pytest

from lkdn_basicsr import locks
from lkdn_basicsr.locks import FolderLock
from tests.support import processes
from tests.support.runs import change, log, run, snapshot, train


def contents(folder):
    return snapshot(folder), {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.slow
def test_a_second_training_is_refused_until_the_first_is_killed(home, monkeypatch, capsys):
    monkeypatch.setattr(locks, 'PATIENCE', 0)
    change(home, 'train:total_iter=1000000', 'datasets:train:num_worker_per_gpu=1')
    first = processes.start(home)
    try:
        processes.wait_for('iter:       6,', home, first)
        os.kill(first[0].pid, signal.SIGSTOP)  # it could be writing
        before = contents(home)
        for arguments in ([], ['--auto_resume']):
            message = train(monkeypatch, *arguments)
            assert f'experiments/run is in use by process {first[0].pid} on ' in message and '\n' not in message
        assert train(monkeypatch, '--check') == 0
        assert f'experiments/run is in use by process {first[0].pid} on ' in capsys.readouterr().out
        assert contents(home) == before
    finally:
        processes.kill(first)
    # The worker of the first one, which is its child, may still be alive.
    assert train(monkeypatch, '--auto_resume', '--force_yml', 'train:total_iter=7') is None
    assert 'Resuming from' in log(home) and not list(home.glob('experiments/*archived*'))


@pytest.mark.parametrize('task, folder', [('train', 'experiments/run'), ('test', 'results/tested')])
def test_a_folder_that_another_process_writes_to_is_refused_first(home, monkeypatch, task, folder):
    monkeypatch.setattr(locks, 'PATIENCE', 0)
    change(home, 'path:pretrain_network_g=missing.pth', file=f'{task}.yml')
    with FolderLock(folder, beside=True):
        before = contents(home)
        assert f'{folder} is in use by process {os.getpid()} on ' in run(monkeypatch, task, '-opt', f'{task}.yml')
        assert contents(home) == before
    assert 'missing.pth' in run(monkeypatch, task, '-opt', f'{task}.yml')
    assert [path.name for path in (home / folder).parent.iterdir()] == [f'.{folder.split("/")[1]}.lock']


def test_the_lock_is_released_after_a_run(home, monkeypatch):
    lock = FolderLock('experiments/run', beside=True)
    assert train(monkeypatch, '--force_yml', 'train:total_iter=1') is None and lock.try_acquire()
    lock.release()
    change(home, 'train:optim_g:lr=1e30', 'train:total_iter=9')
    assert 'is nan' in train(monkeypatch) and lock.try_acquire()
