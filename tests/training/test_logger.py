"""Log lines and ETA, the progress bar on a terminal, TensorBoard, and the prefetchers."""

import contextlib
import logging
import os
import pty
import re
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.models.reparam_sr_model import check_finite
from lkdn_basicsr.training import logger
from lkdn_basicsr.training.logger import prepare_handlers
from lkdn_basicsr.training.prefetch import Prefetcher
from lkdn_basicsr.training.run import Run
from tests.support.runs import log, reset_log, train


def options(name='run', total=100):
    settings = dict(logger=dict(print_freq=10, use_tb_logger=True), train=dict(total_iter=total))
    return dict(name=name, path={}, root_path='.', rank=0, **settings)


def write_line(message_logger, iteration, **losses):
    message_logger(dict(epoch=0, iter=iteration, lrs=[5e-3], time=0.5, data_time=0.125) | losses)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    time = [1000.0]
    monkeypatch.setattr(logger.time, 'monotonic', lambda: time[0])
    return time


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(logging.getLogger('basicsr'), 'info', lines.append)
    return lines


@pytest.mark.parametrize('start', [0, 60])  # from the beginning, or resumed
def test_eta_counts_the_remaining_iterations(clock, logged, start):
    message_logger = logger.MessageLogger(options(), start)
    for iteration in range(start + 10, 101, 10):
        write_line(message_logger, iteration, l_pix=0.25)
        clock[0] += 20  # 2 s per iteration with validation, which BasicSR's timers leave out: they show 0.5
    left = [(90 - start) // 2] + [2 * n for n in range(80 - start, -1, -10)]
    assert [re.search('eta: ([^,]+),', text)[1] for text in logged] == [str(timedelta(seconds=n)) for n in left]


def test_lines_have_the_format_of_basicsr(logged, clock):
    write_line(logger.MessageLogger(options(name='a_long_name')), 10, l_pix=0.25, grad_norm=1.5)
    assert logged == [
        '[a_lon..][epoch:  0, iter:      10, lr:(5.000e-03,)] [eta: 0:00:45, time (data): 0.500 (0.125)] '
        'l_pix: 2.5000e-01 grad_norm: 1.5000e+00 '
    ]


def test_tags_in_tensorboard(home, monkeypatch):
    assert train(monkeypatch) is None
    events = EventAccumulator(str(home / 'tb_logger/run')).Reload()
    found = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()['scalars']}
    speed = {'speed/iterations_per_second', 'speed/data_wait_share'}
    assert set(found) == {'losses/l_pix', 'grad_norm', 'learning_rate', 'metrics/val/psnr', *speed}
    assert [event.step for event in events.Scalars('losses/l_pix')] == [1, 2, 3, 4, 5, 6, 7]
    assert found['learning_rate'][0] == pytest.approx(5e-3)
    assert all(0 <= share <= 1 for share in found['speed/data_wait_share'])
    assert found['grad_norm'][0] == pytest.approx(float(re.search(r'grad_norm: (\S+)', log(home))[1]), rel=1e-4)
    assert 'images/val' in events.Tags()['images']


@pytest.mark.parametrize('name, expected', [('no_debug_run', True), ('debug_run', False), ('run', True)])
def test_debug_runs_do_not_write_to_tensorboard(tmp_path, monkeypatch, name, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'tb_logger' / name).mkdir(parents=True)
    writer = Run().init_tb_loggers(options(name=name))
    assert (writer is not None) is expected
    if expected:
        writer.close()
    # BasicSR's pipeline moves an earlier folder aside, but not one with 'debug' in its name.
    assert len(list((tmp_path / 'tb_logger').iterdir())) == (2 if name == 'no_debug_run' else 1)


def test_logs_contain_any_text_and_report_a_full_disk(home, capsys):
    logger = logging.getLogger('a test')
    handler = logging.FileHandler('a.log', 'w', encoding='ascii')
    logger.addHandler(handler)
    prepare_handlers(logger)
    logger.warning('×4 \udcff')
    assert Path('a.log').read_bytes() == '×4 \\udcff\n'.encode()
    full = open('/dev/full', 'w')
    handler.setStream(full)
    with pytest.raises(OSError) as caught:
        logger.warning('lost')
    assert caught.value.filename == str(home / 'a.log') and full.closed
    logger.warning('also lost')
    assert capsys.readouterr().err == ''


def epoch(prefetcher):
    prefetcher.reset()
    return [batch.tolist() for batch in iter(prefetcher.next, None)]


def test_workers_are_started_once_per_epoch():
    started = []

    class Counted(DataLoader):
        def __iter__(self):
            started.append(self)
            return super().__iter__()

    prefetcher = Prefetcher(Counted(range(5), batch_size=2))
    assert [epoch(prefetcher), epoch(prefetcher)] == [[[0, 1], [2, 3], [4]]] * 2
    assert len(started) == 2


def test_error_in_a_prefetching_thread_is_raised():
    class Images(list):
        def __getitem__(self, index):
            if index == 3:
                raise InputError(f'image {index} is damaged')
            return index

    prefetcher, got = Prefetcher(DataLoader(Images(range(5)), batch_size=1), ahead=1), []

    def read():
        try:
            epoch(prefetcher)
        except InputError as error:
            got.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(20)  # BasicSR's waits forever
    assert got == ['image 3 is damaged']
    assert epoch(Prefetcher(DataLoader(range(3), batch_size=2), ahead=1)) == [[0, 1], [2]]


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_losses_that_are_not_finite_stop_the_run(value):
    check_finite({'l_pix': 1.0, 'grad_norm': 2.0}, 3)
    with pytest.raises(InputError, match='grad_norm is (nan|inf) at iteration 3.*optim_g:lr'):
        check_finite({'l_pix': 1.0, 'grad_norm': value}, 3)


def on_a_terminal(monkeypatch, function):
    """Return what a terminal receives while ``function`` runs."""
    (terminal, stream), shown = pty.openpty(), []

    def read():
        with contextlib.suppress(OSError):  # closed
            while data := os.read(terminal, 65536):
                shown.append(data)

    reader, stderr = threading.Thread(target=read), os.fdopen(stream, 'w')
    reader.start()
    monkeypatch.setattr(sys, 'stderr', stderr)
    try:
        result = function()
    finally:
        monkeypatch.undo()
        reset_log()
        stderr.close()
        reader.join(20)
        os.close(terminal)
    return b''.join(shown).decode(), result


@pytest.mark.parametrize('more, status', [([], None), (['train:optim_g:lr=1e30'], 'l_pix is nan')])
def test_log_lines_do_not_break_the_progress_bar(home, monkeypatch, more, status):
    with monkeypatch.context() as patch:
        patch.chdir(home)
        text, result = on_a_terminal(patch, lambda: train(patch, '--force_yml', 'name=seen', *more))
    assert result is None if status is None else status in result
    parts = re.split(r'[\r\n]+', text)
    bars = [part for part in parts if '|' in part and 'it/s' in part]
    assert bars and re.match(r'seen: +\d+%\|', bars[-1])
    if status is None:
        assert '7/7' in bars[-1] and re.search(r'loss=0\.\d+, lr=5\.0e-03, waiting for data \d+%', bars[-1])
    assert not [part for part in parts if 'INFO' in part and not part.lstrip('\x1b[A').startswith('20')]
    assert text.rstrip(' ').endswith('\n')  # what is printed next starts on a new line


def test_no_progress_bar_without_a_terminal(home, monkeypatch, capfd):
    train(monkeypatch)
    assert 'it/s' not in capfd.readouterr().err
