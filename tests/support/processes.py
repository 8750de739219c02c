"""Trainings in separate processes, to be killed. They are forked from one that has imported everything."""

import itertools
import multiprocessing
import os
import signal
import socket
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from lkdn_basicsr import train as train_command

torch.set_num_threads(1)
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload([__name__])


def train(folder, arguments, die_at):
    """Run ``python -m lkdn_basicsr.train`` in ``folder``; SIGKILL at the n-th call of os.fsync or os.replace."""
    multiprocessing.set_start_method('fork', force=True)  # for workers, as in a process that a user starts
    work_in(folder)
    if die_at is not None:
        calls = itertools.count(1)
        os.fsync, os.replace = (_dying(function, calls, die_at) for function in (os.fsync, os.replace))
    sys.argv = ['train', *arguments]
    train_command.main()


def work_in(folder):
    """Change to a folder, and redirect the output to ``out.txt`` there."""
    os.chdir(folder)
    out = os.open('out.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)


def _dying(function, calls, die_at):
    def call(*args):
        if next(calls) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)

    return call


def start(folder, *arguments, ranks=1, die_at=None):
    """Start a training; return its processes, one for each rank, launched as torchrun does."""
    arguments = ['-opt', 'train.yml', *arguments]
    return start_ranks(ranks, lambda rank: (train, str(folder), arguments, None if rank else die_at))


def start_ranks(ranks, call):
    """Start a process for each rank, as torchrun does; ``call(rank)`` returns a function and its arguments."""
    with pytest.MonkeyPatch.context() as patch:  # Python 3.11 does not pass the module search path to the forkserver
        patch.setenv('PYTHONPATH', os.pathsep.join(sys.path))
        forkserver.ensure_running()
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        store = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(probe.getsockname()[1]), WORLD_SIZE=str(ranks))
    processes = []
    for rank in range(ranks):
        environment = store | dict(RANK=str(rank), LOCAL_RANK=str(rank)) if ranks > 1 else {}
        processes.append(CONTEXT.Process(target=_as_rank, args=(environment, *call(rank))))
        processes[-1].start()
    return processes


def _as_rank(environment, function, *arguments):
    os.environ.update(environment)
    function(*arguments)


def finish(processes, timeout=120):
    """Wait for the ranks; return their exit codes. If one fails, the others are killed, as by torchrun."""
    for process in processes:
        process.join(timeout)
        if process.exitcode != 0:
            kill(processes)
    return [process.exitcode for process in processes]


def kill(processes):
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def wait_for(text, folder, processes):
    """Wait until a text is in the output of running processes."""
    deadline = time.monotonic() + 120
    while not Path(folder, 'out.txt').exists() or text not in output(folder):
        assert time.monotonic() < deadline and any(process.is_alive() for process in processes), output(folder)[-3000:]
        time.sleep(0.005)


def output(folder):
    return Path(folder, 'out.txt').read_text()
