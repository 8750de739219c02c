"""Start-up of distributed runs, and what ranks exchange besides gradients.

``Ranks`` brings the ranks together in two steps: ``rendezvous`` connects them through a key-value store, so that an
invalid option is reported once; ``init_process_group`` creates the process group when the options are known.
"""

import atexit
import contextlib
import json
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from basicsr.utils.dist_util import get_dist_info

from lkdn_basicsr.devices import check_cuda
from lkdn_basicsr.errors import InputError, one_line, system_error
from lkdn_basicsr.training.launch import Launch, end_with_parent, set_slurm_environment
from lkdn_basicsr.training.network_interface import gloo_interface, local_address

# Ranks wait for each other where one has more to do: it downloads weights, or its validation images are larger. The
# timeout of the gradients' group must not end that. A rank that dies closes its connections: gloo notices that and
# raises. NCCL does not: a rank that waits for the gradients of a dead one is ended by the timeout, or by the launcher.
PATIENCE = timedelta(days=30)
# Seconds in which a failing rank prints its reason and the others read it: a launcher may end all after the first.
GRACE = 1.0
# Seconds that a rank whose connections broke waits for the reason of another one, which may be the cause.
BLAME = 2.0


class Ranks:
    """The ranks of a run. A process without a launcher is a single rank and needs no network.

    As a context manager it ends the run in order. After an exception only the first rank to fail raises it; the others
    exit with status 1, because what happened to them is the same error or a consequence.
    """

    def __init__(self, launch: Launch | None = None) -> None:
        self.launch = launch or Launch()
        self._store: dist.Store | None = None
        self._texts: dict[str, str] = {}  # the store of a process without a launcher
        self._control: Any = None  # process group for everything but gradients

    def __enter__(self) -> 'Ranks':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            # The process group stays: other ranks may be in a collective that never ends.
            is_lost = _is_lost_connection(error)
            with _without_warnings() if is_lost else contextlib.nullcontext():
                if is_lost:
                    self._await_reason()
                    reason = re.sub(r'^\[.*?\] ', '', one_line(error)).partition('. ')[0]  # without the place in C++
                    error = InputError(
                        f'rank {self.launch.rank} lost the connection to another rank ({reason}), which gave no '
                        'reason: it was killed, as the launcher or the system log says, or the network failed'
                    )
                error = system_error(error) or error
                name = '' if isinstance(error, InputError) else f'{type(error).__name__}: '
                is_first = self.report_failure(f'{name}{error}')
            if self.launch.rank == 0 and self._store is not None:
                atexit.register(time.sleep, GRACE)  # it may serve the store; the reason is printed before
            if not is_first:
                raise SystemExit(1) from None
            if is_lost:
                raise error from None
        elif kind is None or (kind is SystemExit and dist.is_initialized()):
            self.leave()

    def rendezvous(self, local_rank: int = 0, port: int | None = None) -> None:
        """Connect the ranks through a key-value store; no process group exists yet.

        Args:
            local_rank: ``--local_rank``, for launchers that do not set LOCAL_RANK.
            port: with slurm, the port of the first node; None for MASTER_PORT or 29500.

        Raises:
            InputError: the environment does not name the first rank, or a rank did not start.
        """
        if self.launch.launcher == 'none':
            return
        if self.launch.launcher == 'slurm':
            set_slurm_environment(port)
        os.environ.setdefault('LOCAL_RANK', str(local_rank))
        for name in ('MASTER_ADDR', 'MASTER_PORT'):
            if name not in os.environ:
                launcher = f'--launcher {self.launch.launcher}'
                raise InputError(f'{launcher} needs {name} in the environment; start with torchrun or srun')
        if 'TORCHELASTIC_RUN_ID' in os.environ:
            # Ranks outlive a torchrun that is killed; one started in its place would find the GPUs in use.
            end_with_parent()
        try:
            store = next(dist.rendezvous('env://', self.launch.rank, self.launch.world_size))[0]
        except dist.DistError as error:  # after half an hour, or because the port is in use
            address = f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'
            raise InputError(
                f'rank {self.launch.rank} of {self.launch.world_size} cannot connect the ranks at {address} '
                f'({one_line(error)}): check the logs of the others, or set dist_params: port'
            ) from None
        self._store = dist.PrefixStore(f'lkdn {self._agree_on_attempt(store)}', store)

    def _agree_on_attempt(self, store: dist.Store) -> str:
        """Return a name for this start of the ranks that all of them share and no earlier start had.

        torchrun keeps its store over restarts, with the addresses of ranks that have ended, which gloo would call. A
        rank may also read an old answer; so each asks under a name of its own, and rank 0 answers to that name.
        """
        rank, world_size = self.launch.rank, self.launch.world_size
        name = uuid.uuid4().hex
        if rank > 0:
            store.set(f'lkdn asks {rank}', name)
            attempt = store.get(f'lkdn answer {name}').decode()
            store.set(f'lkdn has {attempt} {rank}', '')
            return attempt
        self._store = dist.PrefixStore(f'lkdn {name}', store)  # where ranks that have the name report failures
        missing, deadline = set(range(1, world_size)), _start_deadline()
        while missing:
            for other in list(missing):
                if store.check([f'lkdn has {name} {other}']):
                    missing.remove(other)
                elif store.check([f'lkdn asks {other}']):
                    store.set(f'lkdn answer {store.get(f"lkdn asks {other}").decode()}', name)
            if missing:
                self._pause(min(missing), deadline)
        return name

    def _pause(self, missing: int, deadline: float) -> None:
        """Wait a moment for a rank that is still to start; raise InputError after the deadline."""
        self.exit_after_failure()
        if time.monotonic() > deadline:
            rank = f'rank {missing} of {self.launch.world_size}'
            raise InputError(f'{rank} has not started: check its log, or start fewer')
        time.sleep(0.05)

    def exit_after_failure(self) -> None:
        """End this rank with status 1 if another one has failed, which prints the reason; for loops that wait."""
        if self._store is not None and self._store.check(['lkdn text failed']):
            self.report_failure('')
            time.sleep(GRACE)
            raise SystemExit(1)

    def _await_reason(self) -> None:
        """Wait a moment for another rank to report a failure."""
        deadline = time.monotonic() + BLAME
        with contextlib.suppress(RuntimeError):  # the rank that served the store has ended
            while self._store is not None and self.get('failed') is None and time.monotonic() < deadline:
                time.sleep(0.1)

    def init_process_group(self, num_gpu: int, dist_params: dict[str, Any] | None = None) -> None:
        """Create the process group and select the device of this rank; after :meth:`rendezvous`.

        Args:
            num_gpu: 0 for a run on the CPU, which uses gloo.
            dist_params: ``backend``, and ``timeout`` of its collectives in seconds.

        Raises:
            InputError: two ranks share a GPU, which NCCL cannot do, or a rank sees none.
            SystemExit: another rank has failed.
        """
        if self._store is None:
            return
        dist_params = dist_params or {}
        backend = dist_params.get('backend', 'nccl') if num_gpu else 'gloo'
        _, rank, world_size = self.launch
        place = {'host': socket.gethostname(), 'address': local_address(os.environ['MASTER_ADDR'])}
        if num_gpu:
            place['gpu'] = _select_gpu(int(os.environ['LOCAL_RANK']), place['host'])
        # Some ranks start later than others; the timeout of the options, which may be short, does not count for that.
        self._store.set(f'lkdn rank {rank}', json.dumps(place))
        deadline = _start_deadline()
        for other in range(world_size):
            while not self._store.check([f'lkdn rank {other}']):
                self._pause(other, deadline)
        places = [json.loads(self._store.get(f'lkdn rank {other}')) for other in range(world_size)]
        if backend == 'nccl':
            _check_gpus_differ(places)
        if 'GLOO_SOCKET_IFNAME' not in os.environ:
            interface = gloo_interface(place['address'], [other['address'] for other in places])
            if interface is not None:
                os.environ['GLOO_SOCKET_IFNAME'] = interface
        timeout = timedelta(seconds=dist_params['timeout']) if 'timeout' in dist_params else None
        dist.init_process_group(backend, store=self._store, rank=rank, world_size=world_size, timeout=timeout)
        # gloo also where gradients use NCCL, which would keep a GPU busy while it waits.
        self._control = dist.new_group(backend='gloo', timeout=PATIENCE)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in their order, on every rank; wait for the slowest without limit."""
        world_size = get_dist_info()[1]
        if world_size == 1:
            return [value]
        values = [None] * world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def on_first_rank(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function on rank 0 and return its result, or raise its InputError or OSError, on every rank."""
        result = None
        if self.launch.rank == 0:
            try:
                result = function(*args)
            except (InputError, OSError) as error:
                result = error
        result = self.gather(result)[0]
        if isinstance(result, InputError | OSError):
            raise result
        return result

    def set(self, name: str, text: str = '') -> None:
        """Store a text under a name for all ranks; waits for none of them. Needs only :meth:`rendezvous`."""
        if self._store is None:
            self._texts[name] = text
        else:
            self._store.set(f'lkdn text {name}', text)

    def get(self, name: str) -> str | None:
        """Return the text that a rank has stored under a name; None if there is none yet."""
        if self._store is None:
            return self._texts.get(name)
        return self._store.get(f'lkdn text {name}').decode() if self._store.check([f'lkdn text {name}']) else None

    def leave(self) -> None:
        """Wait for the other ranks and destroy the process group: rank 0 may serve the store that they still use."""
        if dist.is_initialized() and self._control is not None:
            try:
                self.gather(None)
            except RuntimeError:  # one has ended already, and reports why
                return
            self._control = None
            dist.destroy_process_group()
        elif self._store is not None:
            self.set(f'left {self.launch.rank}')
            for rank in range(1, self.launch.world_size if self.launch.rank == 0 else 1):
                while self.get(f'left {rank}') is None and self.get('failed') is None:
                    time.sleep(0.1)

    def report_failure(self, reason: str) -> bool:
        """Store why this rank ends, for the other ranks and for torchrun's report.

        Returns:
            Whether this rank is the first to fail, and so the one that shows the reason.
        """
        first = own = f'{self.launch.rank} {reason}'
        if self._store is not None:
            with contextlib.suppress(RuntimeError):  # the rank that served the store has ended
                first = self._store.compare_set('lkdn text failed', '', own).decode()
        if report := os.environ.get('TORCHELASTIC_ERROR_FILE'):
            # What torch's @record writes, without the traceback, for which torchrun would not show the message.
            message = {'message': first.partition(' ')[2], 'extraInfo': {'timestamp': str(int(time.time()))}}
            with open(report, 'w', encoding='utf-8') as file:
                json.dump({'message': message}, file)
        return first == own


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Discard what torch prints in C++, with a backtrace, where the rank that served the store has ended."""
    sys.stderr.flush()
    saved, discarded = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(discarded, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(discarded)


def _is_lost_connection(error: BaseException) -> bool:
    """Return whether an exception means that another rank has ended, rather than a failure of this one."""
    text = str(error)
    is_closed = any(words in text for words in ('closed by peer', 'reset by peer', 'Broken pipe', 'remote process'))
    is_communication = isinstance(error, dist.DistError) or 'gloo' in text or 'NCCL' in text
    return isinstance(error, RuntimeError) and is_communication and is_closed


def _start_deadline() -> float:
    return time.monotonic() + dist.default_pg_timeout.total_seconds()


def _select_gpu(local_rank: int, host: str) -> str:
    """Select the GPU of a rank, and return its UUID; slurm may let each task see only its own."""
    visible = torch.cuda.device_count()
    if not visible:
        raise InputError(f'num_gpu is not 0, but a rank on {host} sees no GPU: request one per task, or set num_gpu: 0')
    index = local_rank % visible
    check_cuda('set num_gpu: 0', f'cuda:{index}')
    torch.cuda.set_device(index)
    return str(torch.cuda.get_device_properties(index).uuid)


def _check_gpus_differ(places: list[dict[str, str]]) -> None:
    """Check by ``host`` and ``gpu`` (a UUID) that no two ranks have the same GPU: NCCL ends in a traceback then."""
    owners: dict[tuple[str, str], int] = {}
    for rank, place in enumerate(places):
        first = owners.setdefault((place['host'], place['gpu']), rank)
        if first != rank:
            raise InputError(
                f'ranks {first} and {rank} use the same GPU of {place["host"]}, {place["gpu"]}: start one rank per GPU '
                '(torchrun --nproc_per_node, srun --gpus-per-task=1), or set num_gpu: 0'
            )
