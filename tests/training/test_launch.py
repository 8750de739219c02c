"""How ranks start: the GPU of each one, and what the others do when one of them fails."""

import os
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.training import distributed, network_interface
from lkdn_basicsr.training.distributed import Ranks
from lkdn_basicsr.training.launch import Launch


@pytest.fixture
def start(monkeypatch):
    """Return a function that starts two ranks as threads, and returns what ended each of them."""
    created = []
    monkeypatch.setattr(distributed, 'GRACE', 0)
    monkeypatch.setattr(dist, 'init_process_group', lambda backend, **_: created.append(backend))
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setattr(dist, 'new_group', lambda **_: None)

    def start(*calls, store=None):
        store, ended = store or dist.HashStore(), {}

        def work(rank, call):
            ranks = Ranks(Launch('pytorch', rank, 2))
            ranks._store = dist.PrefixStore('lkdn', store)
            try:
                with ranks:
                    call(ranks)
                    ranks._store = None  # nobody to wait for in a thread
            except BaseException as error:
                ended[rank] = error

        threads = [threading.Thread(target=work, args=item) for item in enumerate(calls)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        return [ended.get(rank) for rank in range(2)], created

    return start


@pytest.fixture
def gpus(monkeypatch):
    """Return a function that gives each process these GPUs (their UUIDs); ``.selected`` has the indices in use."""

    def give(*uuids):
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: len(uuids))
        monkeypatch.setattr(torch.cuda, 'set_device', give.selected.append)
        monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda index: SimpleNamespace(uuid=uuids[index]))
        monkeypatch.setattr(distributed, 'check_cuda', lambda remedy, device: None)

    give.selected = []
    return give


@pytest.mark.parametrize('visible, local_rank, index', [(1, 0, 0), (1, 1, 0), (1, 7, 0), (4, 3, 3), (2, 3, 1)])
def test_a_rank_takes_a_gpu_that_it_sees(gpus, visible, local_rank, index):
    gpus(*'abcd'[:visible])
    assert distributed._select_gpu(local_rank, 'host') == 'abcd'[index] and gpus.selected == [index]


def test_a_rank_without_a_gpu_is_refused(gpus):
    gpus()
    with pytest.raises(InputError, match='a rank on n1 sees no GPU: .*set num_gpu: 0'):
        distributed._select_gpu(0, 'n1')


@pytest.mark.parametrize('backend, is_refused', [('nccl', True), ('gloo', False)])
def test_two_ranks_on_one_gpu_are_refused_with_nccl(start, gpus, monkeypatch, backend, is_refused):
    gpus('GPU-1')
    monkeypatch.setenv('LOCAL_RANK', '1')

    def call(ranks):
        ranks.init_process_group(1, {'backend': backend})

    ended, created = start(call, call)
    assert created == ([] if is_refused else ['gloo', 'gloo'])
    if is_refused:  # one of them reports it
        reasons = [str(error) for error in ended if isinstance(error, InputError)]
        assert len(reasons) == 1 and 'ranks 0 and 1 use the same GPU of ' in reasons[0] and 'GPU-1' in reasons[0]
        assert [error.code for error in ended if isinstance(error, SystemExit)] == [1]


def test_the_same_uuid_on_two_hosts_is_not_the_same_gpu():
    distributed._check_gpus_differ([{'host': host, 'gpu': gpu} for host in 'mn' for gpu in 'ab'])


@pytest.mark.parametrize('failing', [0, 1])
def test_a_rank_that_waits_ends_soon_after_another_has_failed(start, monkeypatch, tmp_path, failing):
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(tmp_path / 'error.json'))

    def fail(ranks):
        raise InputError('this GPU is broken')

    calls = [lambda ranks: ranks.init_process_group(0)] * 2
    calls[failing] = fail
    ended, _ = start(*calls)
    assert isinstance(ended[failing], InputError)
    assert isinstance(ended[1 - failing], SystemExit) and ended[1 - failing].code == 1
    assert 'this GPU is broken' in (tmp_path / 'error.json').read_text()


def test_the_first_rank_sees_a_failure_while_others_have_not_connected(monkeypatch):
    monkeypatch.setattr(distributed, 'GRACE', 0)
    store, ended = dist.HashStore(), []

    def agree():
        with pytest.raises(SystemExit):
            Ranks(Launch('pytorch', 0, 3))._agree_on_attempt(store)
        ended.append(True)

    first = threading.Thread(target=agree)
    first.start()
    ranks = Ranks(Launch('pytorch', 1, 3))
    ranks._store = dist.PrefixStore(f'lkdn {ranks._agree_on_attempt(store)}', store)
    assert ranks.report_failure('an invalid option')
    first.join(20)
    assert ended


def test_a_rank_that_does_not_start_is_named(start, monkeypatch):
    monkeypatch.setattr(distributed, '_start_deadline', lambda: time.monotonic() + 0.2)
    ended, _ = start(lambda ranks: ranks.init_process_group(0), lambda ranks: None)
    assert 'rank 1 of 2 has not started' in str(ended[0])


GLOO = '[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [::1]:4: Connection reset by peer'


def lose_connection(ranks):
    raise RuntimeError(GLOO)


def test_a_lost_connection_is_not_the_reason(start):
    """The rank that fails reports it after another one has noticed."""

    def fail(ranks):
        time.sleep(0.5)
        raise ValueError('the first failure')

    ended, _ = start(lose_connection, fail)
    assert isinstance(ended[0], SystemExit) and ended[0].code == 1
    assert str(ended[1]) == 'the first failure'


def test_a_rank_that_is_killed_is_reported_in_one_line(start, monkeypatch):
    monkeypatch.setattr(distributed, 'BLAME', 0.2)
    ended, _ = start(lose_connection, lose_connection)
    assert sorted(type(error).__name__ for error in ended) == ['InputError', 'SystemExit']
    assert 'lost the connection to another rank' in ''.join(map(str, ended))


@pytest.mark.parametrize(
    'error, is_lost',
    [
        (RuntimeError(GLOO), True),
        (dist.DistNetworkError('failed to recv, got 0 bytes: Connection reset by peer'), True),
        (dist.DistBackendError('NCCL error: remote process exited or there was a network error'), True),
        (dist.DistBackendError('NCCL error: unhandled cuda error'), False),
        (torch.OutOfMemoryError('CUDA out of memory'), False),
        (ConnectionResetError('Connection reset by peer'), False),  # of a worker
    ],
)
def test_lost_connections_are_detected(error, is_lost):
    assert distributed._is_lost_connection(error) is is_lost


@pytest.mark.parametrize(
    'own, addresses, interface',
    [
        ('127.0.0.1', ['127.0.0.1', '127.0.0.1'], None),  # one machine
        ('::1', ['::1', ''], None),
        ('10.0.0.2', ['127.0.1.1', '10.0.0.2'], 'eth7'),
        ('127.0.1.1', ['127.0.1.1', '10.0.0.2'], 'eth7'),  # Debian resolves the name of the first machine there
        ('', ['10.0.0.1', '10.0.0.2'], 'eth7'),
        ('10.0.0.9', ['10.0.0.1', '10.0.0.9'], None),
    ],
)
def test_gloo_uses_the_interface_that_reaches_the_first_rank(monkeypatch, own, addresses, interface):
    local = {'10.0.0.1': '10.0.0.2', '10.0.0.2': '10.0.0.1'}  # as seen from the other machine
    monkeypatch.setattr(network_interface, 'local_address', local.get)
    monkeypatch.setattr(network_interface, '_interface_of', {'10.0.0.1': 'eth7', '10.0.0.2': 'eth7'}.get)
    assert network_interface.gloo_interface(own, addresses) == interface


@pytest.mark.parametrize('chosen', [None, 'ib0'])
def test_the_interface_is_set_unless_the_user_chose_one(start, monkeypatch, chosen):
    monkeypatch.setenv('GLOO_SOCKET_IFNAME', chosen or '')
    if chosen is None:
        monkeypatch.delenv('GLOO_SOCKET_IFNAME')
    monkeypatch.setattr(distributed, 'local_address', lambda host: '10.0.0.1')
    monkeypatch.setattr(network_interface, '_interface_of', lambda address: 'eth7')
    start(*[lambda ranks: ranks.init_process_group(0)] * 2)
    assert os.environ.pop('GLOO_SOCKET_IFNAME') == (chosen or 'eth7')


@pytest.mark.skipif(sys.platform != 'linux', reason='interfaces are only looked up on Linux')
def test_interfaces_are_found_by_their_address():
    assert network_interface.local_address('127.0.0.1') == '127.0.0.1'
    assert network_interface.local_address('1::2::3') == ''
    assert network_interface._interface_of('127.0.0.1') == 'lo'
    assert network_interface._interface_of('192.0.2.1') is network_interface._interface_of('2001:db8::1') is None
