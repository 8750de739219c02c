"""What the ranks of a distributed run tell each other beside their gradients. A process alone talks to itself."""

import atexit
import ctypes
import json
import os
import signal
import sys
import time
import uuid
from datetime import timedelta

import torch.distributed as dist
from basicsr.utils.dist_util import get_dist_info

from lkdn_basicsr.errors import InputError

# Ranks wait for each other where one has more to do: it downloads weights, or its validation pictures are larger. The
# timeout of the gradients' group must not end that; a rank that dies closes its connections, which is noticed at once.
PATIENCE = timedelta(days=30)

_rank = 0
_store = None
_patient = None
_posted = {}  # what a process alone tells itself


def meet(rank, world_size):
    """Finds the other ranks, by what the launcher put into the environment; makes no process group yet."""
    global _rank, _store
    _rank = rank
    _end_with_agent()
    store = next(dist.rendezvous('env://', rank, world_size))[0]
    _store = dist.PrefixStore(f'lkdn {_attempt(store, rank, world_size)}', store)


def _attempt(store, rank, world_size):
    """A name for this start of the ranks, that all of them have and no earlier start had.

    torchrun keeps its store over restarts, and in it the addresses of ranks that are no more, which gloo would call.
    What a rank reads in the store may be just as old; so each asks under a name of its own, and the first one answers.
    """
    name = uuid.uuid4().hex
    if rank > 0:
        store.set(f'lkdn asks {rank}', name)
        attempt = store.get(f'lkdn answer {name}').decode()
        store.set(f'lkdn has {attempt} {rank}', '')
        return attempt
    missing, deadline = set(range(1, world_size)), time.monotonic() + dist.default_pg_timeout.total_seconds()
    while missing:
        for other in list(missing):
            if store.check([f'lkdn has {name} {other}']):
                missing.remove(other)
            elif store.check([f'lkdn asks {other}']):
                store.set(f'lkdn answer {store.get(f"lkdn asks {other}").decode()}', name)
        if time.monotonic() > deadline:
            raise InputError(f'rank {min(missing)} of {world_size} has not started: look at its log, or start fewer')
        time.sleep(0.05)
    return name


def _end_with_agent():
    """A torchrun that is killed leaves its ranks running, and one started in its place finds the GPUs taken."""
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        end_with_parent()


def end_with_parent():
    """Have this process get SIGTERM when its parent ends, in whatever way; Linux alone can do this."""
    if sys.platform == 'linux':
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def post(name, text=''):
    """Makes a text known to all ranks under a name, and waits for none of them; needs :func:`meet` alone."""
    if _store is None:
        _posted[name] = text
    else:
        _store.set(f'lkdn post {name}', text)


def posted(name):
    """The text that a rank has posted under a name; None if none has yet."""
    if _store is None:
        return _posted.get(name)
    return _store.get(f'lkdn post {name}').decode() if _store.check([f'lkdn post {name}']) else None


def join(rank, world_size, backend, timeout=None):
    """Makes the process group, which is left when the program ends well.

    Args:
        rank, world_size (int): After :func:`meet`.
        backend (str): ``nccl`` or ``gloo``.
        timeout (float | None): Seconds after which a collective gives up. Default: None, torch's.
    """
    global _patient
    # Some ranks start later than others; the timeout, which may be short, is not for that.
    _store.set(f'lkdn rank {rank}', '')
    _store.wait([f'lkdn rank {other}' for other in range(world_size)], dist.default_pg_timeout)
    limit = {} if timeout is None else {'timeout': timedelta(seconds=timeout)}
    dist.init_process_group(backend, store=_store, rank=rank, world_size=world_size, **limit)
    # gloo also where the gradients go by NCCL, which would keep a GPU busy with waiting.
    _patient = dist.new_group(backend='gloo', timeout=PATIENCE)
    atexit.register(_leave)


def _leave():
    # After a failure the others may be in a collective that never ends; then the end of the process is the better end.
    if dist.is_initialized() and not hasattr(sys, 'last_type'):
        try:
            gather(None)  # the first rank may keep the store, which the others still need
        except RuntimeError:  # one is gone already, and says why
            return
        dist.destroy_process_group()


def gather(value):
    """The values of all ranks, in their order, on every rank. Waits for the slowest as long as it takes.

    Args:
        value (object): Anything that pickles.

    Returns:
        list: One value a rank.
    """
    world_size = get_dist_info()[1]
    if world_size == 1:
        return [value]
    values = [None] * world_size
    dist.all_gather_object(values, value, group=_patient)
    return values


def fail(reason):
    """Makes known why this rank ends, to the other ranks and in torchrun's report.

    Args:
        reason (str): A sentence.

    Returns:
        bool: Whether this rank is the first to fail, and so the one to show why. What happens to the others is the
        same, or comes of it.
    """
    atexit.unregister(_leave)
    first = mine = f'{_rank} {reason}'
    if _store is not None:
        try:
            first = _store.compare_set('lkdn failed', '', mine).decode()
        except RuntimeError:  # the rank that kept the store is gone
            pass
    report = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if report:
        # What torch's @record writes, less the traceback, in place of which torchrun then shows the message.
        message = {'message': first.partition(' ')[2], 'extraInfo': {'timestamp': str(int(time.time()))}}
        with open(report, 'w') as file:
            json.dump({'message': message}, file)
    return first == mine
