"""Trainings in separate processes, to be killed. They are forked from one that has imported everything."""

import functools
import multiprocessing
import os
import signal
import socket
import sys
from multiprocessing import forkserver
from pathlib import Path

import torch

from lkdn_basicsr import cli

torch.set_num_threads(1)
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload([__name__])


def train(folder, arguments, die_at):
    """``python -m lkdn_basicsr.train`` below ``folder``; SIGKILL at the n-th call of os.fsync or os.replace."""
    multiprocessing.set_start_method('fork', force=True)  # for workers, as in a process that a user starts
    work_in(folder)
    if die_at is not None:
        _die_in_a_save(die_at)
    sys.argv = ['train', *arguments]
    cli.run('train')


def work_in(folder):
    """Change to a folder, and redirect the output to ``out.txt`` there."""
    os.chdir(folder)
    out = os.open('out.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)


def _die_in_a_save(number):
    calls = 0

    def dying(function):

        def call(*args):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)

        return call

    os.fsync, os.replace = dying(os.fsync), dying(os.replace)


def start(folder, *arguments, ranks=1, die_at=None):
    """Start a training; return its processes, one for each rank, launched as torchrun does."""
    return start_ranks(
        ranks, lambda rank: (train, str(folder), ['-opt', 'train.yml', *arguments], die_at if rank == 0 else None)
    )


def start_ranks(ranks, call):
    """Start a process for each rank, as torchrun does; ``call(rank)`` returns a function and its arguments."""
    _import_once()
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(ranks):
        environment = (
            {}
            if ranks == 1
            else {
                'RANK': str(rank),
                'LOCAL_RANK': str(rank),
                'WORLD_SIZE': str(ranks),
                'MASTER_ADDR': '127.0.0.1',
                'MASTER_PORT': str(port),
            }
        )
        processes.append(CONTEXT.Process(target=_as_rank, args=(environment, *call(rank))))
        processes[-1].start()
    return processes


def _as_rank(environment, function, *arguments):
    os.environ.update(environment)
    function(*arguments)


@functools.cache
def _import_once():
    """Start the process that imports everything: Python 3.11 does not pass it the module search path."""
    path = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        del os.environ['PYTHONPATH']
        if path is not None:
            os.environ['PYTHONPATH'] = path


def finish(processes, timeout=120):
    """Wait for the ranks; return their exit codes. If one fails, the others are killed, as by torchrun."""
    for process in processes:
        process.join(timeout)
        if process.exitcode != 0:
            for other in processes:
                other.kill()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def output(folder):
    return Path(folder, 'out.txt').read_text()
