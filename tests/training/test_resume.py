"""Runs that are killed, stopped, out of disk space or given other settings, and resume."""

import logging
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.models.sr_model import SRModel
from basicsr.utils.registry import MODEL_REGISTRY
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from lkdn_basicsr.training.resume import global_batch
from tests.support import processes
from tests.support.runs import BASICSR, BASICSR_DATASETS, change, damage, log, reset_log, run, same, snapshot, train

RUN = 'experiments/run'

pytestmark = pytest.mark.slow  # complete trainings: 20 s in all
# Twelve iterations, five per epoch: checkpoints, validations and epochs end at different iterations.
LONG = (
    'train:total_iter=12 datasets:train:batch_size_per_gpu=2 datasets:train:dataset_enlarge_ratio=2 '
    'logger:save_checkpoint_freq=4 val:val_freq=3'
).split()


@pytest.fixture
def long_home(home):
    change(home, *LONG)
    return home


def events(folder):
    """Everything logged to TensorBoard, in order: (tag, step, value), as read from the files."""
    loaded = (event for file in folder.glob('tb_logger/run/events*') for event in EventFileLoader(str(file)).Load())
    found = ((value.tag, event.step, value.tensor.float_val[:]) for event in loaded for value in event.summary.value)
    return sorted(event for event in found if event[0].startswith(('losses/', 'metrics/')))


def iterations(text):
    """The iterations with lines in a log."""
    return re.findall(r'iter: +(\d+), lr', text)


def load(folder, name):
    return torch.load(Path(folder, RUN, name), weights_only=True)


def outcome(folder):
    """What must not depend on how often a run was killed."""
    state = load(folder, 'training_states/12.state')
    keys = ('epoch', 'iter', 'optimizers', 'schedulers', 'best_metric_results', 'random')
    nets = {
        name: load(folder, f'models/net_g_{name}.pth') for name in '8 12 latest best latest_fused best_fused'.split()
    }
    return {'state': {key: state[key] for key in keys}, 'nets': nets, 'events': events(folder)}


def copy_home(home, name):
    """The same images and options in another folder."""
    folder = home / name
    folder.mkdir()
    for part in ('train', 'val'):
        (folder / part).symlink_to(home / part)
    shutil.copy(home / 'train.yml', folder)
    return folder


def uninterrupted(home, ranks=1):
    folder = copy_home(home, 'uninterrupted')
    assert set(processes.finish(processes.start(folder, ranks=ranks))) == {0}, processes.output(folder)
    return outcome(folder)


def resume(folder, ranks=1):
    codes = processes.finish(processes.start(folder, '--auto_resume', ranks=ranks))
    assert set(codes) == {0}, processes.output(folder)[-3000:]
    assert not list(folder.glob('*/*archived*')) and not list(folder.rglob('.*.part'))


def test_run_killed_at_any_moment_ends_like_an_uninterrupted_one(long_home):
    begin, moments = time.monotonic(), random.Random(4)
    expected = uninterrupted(long_home)
    seconds = time.monotonic() - begin
    for k in range(4):
        folder = copy_home(long_home, f'killed{k}')
        for _ in range(2):
            (process,) = processes.start(folder, '--auto_resume')
            process.join(moments.uniform(0.2, seconds))
            processes.kill([process])
        resume(folder)
        assert same(outcome(folder), expected), k


def test_run_killed_while_saving_ends_like_an_uninterrupted_one(long_home):
    expected = uninterrupted(long_home)
    for call in random.Random(5).sample(range(1, 50), 6):
        folder = copy_home(long_home, f'killed{call}')
        assert processes.finish(processes.start(folder, '--auto_resume', die_at=call)) == [-signal.SIGKILL]
        resume(folder)
        assert same(outcome(folder), expected), call


def test_validation_that_a_kill_prevented_is_done_on_resume(long_home):
    change(long_home, 'val:val_freq=4')
    expected = uninterrupted(long_home)
    folder = copy_home(long_home, 'killed')
    # Three calls for each file: two option files, net_g_4_fused, net_g_4, 4.state; the 16th saves the best network.
    assert processes.finish(processes.start(folder, die_at=16)) == [-signal.SIGKILL]
    assert load(folder, 'training_states/4.state')['best_metric_results'] == {}
    resume(folder)
    assert same(outcome(folder), expected)


def kill_after_iteration_6(folder, ranks=1):
    """The last intact checkpoint is of iteration 4."""
    started = processes.start(folder, ranks=ranks)
    processes.wait_for('iter:       6', folder, started)
    processes.kill(started)


@pytest.mark.parametrize('classes', [[], BASICSR], ids=['PairedCropDataset', 'PairedImageDataset'])
def test_killed_run_resumes_exactly_with_other_workers(long_home, classes):
    change(long_home, *classes)
    expected = copy_home(long_home, 'expected')
    assert processes.finish(processes.start(expected)) == [0]
    folder = copy_home(long_home, 'killed')
    change(folder, 'datasets:train:num_worker_per_gpu=2')
    kill_after_iteration_6(folder)
    change(folder, 'datasets:train:num_worker_per_gpu=1')
    resume(folder)
    for name in ('net_g_latest', 'net_g_best'):
        assert same(load(folder, f'models/{name}.pth'), load(expected, f'models/{name}.pth'))
    assert events(folder) == events(expected)


def test_killed_run_of_two_ranks_resumes_exactly_and_on_one_rank_within_rounding(long_home):
    expected = uninterrupted(long_home, ranks=2)
    folder, one = copy_home(long_home, 'killed'), long_home / 'one'
    kill_after_iteration_6(folder, ranks=2)
    shutil.copytree(folder, one, symlinks=True)
    resume(folder, ranks=2)
    assert same(outcome(folder), expected)

    change(one, 'datasets:train:batch_size_per_gpu=4')
    resume(one)
    weights, known = outcome(one)['nets']['latest']['params'], expected['nets']['latest']['params']
    for key, value in weights.items():
        # Float32 sums in another order, over eight steps: a wrong sample changes 1e-3 and more.
        torch.testing.assert_close(value, known[key], rtol=0, atol=2e-5)
    assert 'Changed setting datasets:train:batch_size_per_gpu: 2 in the checkpoint, 4 now; continues with 4' in log(one)


# ------------------------------------------- in this process, on `home` ------------------------------------------- #


def train_until(monkeypatch, text, action):
    """Train in this process, and call ``action`` once, when a text appears in the log; return the exit status."""
    pending, handler = [action], logging.Handler()

    def emit(record):
        if pending and text in record.getMessage():
            pending.pop()()

    reset_log()
    handler.emit = emit
    logging.getLogger('basicsr').addHandler(handler)  # removed by reset_log
    return run(monkeypatch, 'train', '-opt', 'train.yml')


def stop(number=signal.SIGTERM):
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture
def stopped(home, monkeypatch):
    """A run that was stopped after iteration 6, with checkpoints of 2, 4 and 6."""
    change(home, 'logger:save_checkpoint_freq=2', 'val:val_freq=2')
    assert train_until(monkeypatch, 'iter:       6', stop()) == 128 + signal.SIGTERM
    assert sorted(path.name for path in (home / RUN / 'training_states').iterdir()) == ['2.state', '4.state', '6.state']
    return home


class NoisyModel(SRModel):
    def feed_data(self, data):
        noise = random.gauss(0, 0.1) + np.random.normal(0, 0.1) + 0.1 * torch.randn_like(data['lq'])
        super().feed_data(dict(data, lq=data['lq'] + noise))


@pytest.mark.parametrize(
    'number, iteration, classes',
    [(number, 2, []) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    + [(signal.SIGTERM, 5, [*BASICSR_DATASETS, 'model_type=NoisyModel'])],  # which uses random numbers
)
def test_signal_saves_after_the_iteration_and_training_resumes_exactly(home, monkeypatch, number, iteration, classes):
    monkeypatch.setitem(MODEL_REGISTRY._obj_map, 'NoisyModel', NoisyModel)
    change(home, *classes)
    handler = signal.getsignal(number)
    assert train(monkeypatch) is None
    expected = load(home, 'models/net_g_latest.pth')
    shutil.rmtree(home / 'experiments')
    assert train_until(monkeypatch, f'iter:       {iteration}', stop(number)) == 128 + number
    assert (home / RUN / f'training_states/{iteration}.state').exists()
    assert train(monkeypatch, '--auto_resume') is None
    assert same(load(home, 'models/net_g_latest.pth'), expected)
    assert signal.getsignal(number) is handler


def test_second_interrupt_ends_immediately(home, monkeypatch):
    def twice():
        stop(signal.SIGINT)()
        time.sleep(0)  # the handler runs between two steps of the interpreter
        stop(signal.SIGINT)()

    assert train_until(monkeypatch, 'iter:       2', twice) == 130
    assert not list((home / RUN / 'training_states').iterdir())


def test_workers_ignore_a_signal_to_all_processes_of_a_job(home, monkeypatch):
    change(home, 'datasets:train:num_worker_per_gpu=1', 'datasets:train:dataset_enlarge_ratio=9')

    def signal_all():
        workers = multiprocessing.active_children()
        assert workers
        for number in ('INT', 'USR1', 'TERM'):  # not from this process, whose SIGTERM ends them
            subprocess.run(['kill', f'-{number}', *(str(worker.pid) for worker in workers)], check=True)
        time.sleep(0.2)
        assert multiprocessing.active_children() == workers
        stop(signal.SIGUSR1)()

    assert train_until(monkeypatch, 'iter:       2', signal_all) == 128 + signal.SIGUSR1
    assert (home / RUN / 'training_states/2.state').exists()
    deadline = time.monotonic() + 20
    while multiprocessing.active_children():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not Path('/proc/thread-self/children').exists(), reason='finds the workers as Linux lists them')
def test_killed_worker_ends_the_run(long_home):
    change(long_home, 'train:total_iter=100000', 'datasets:train:num_worker_per_gpu=2')
    change(long_home, 'datasets:train:dataset_enlarge_ratio=1000')
    (process,) = started = processes.start(long_home)
    processes.wait_for('iter:       2', long_home, started)
    workers = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    assert len(workers) == 2
    os.kill(int(workers[0]), signal.SIGKILL)
    assert processes.finish(started, 60) == [1] and 'a worker of the data loader' in processes.output(long_home)


def test_signal_to_one_rank_stops_all_at_one_iteration(long_home):
    change(long_home, 'train:total_iter=100000')
    started = processes.start(long_home, ranks=2)
    processes.wait_for('iter:       5', long_home, started)
    os.kill(started[1].pid, signal.SIGTERM)
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [143, 143], processes.output(long_home)[-3000:]
    assert 'Stopped by SIGTERM after iteration' in log(long_home)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    'name, spoil',
    [(name, spoil) for name in ('models/net_g_6.pth', 'training_states/6.state') for spoil in (damage, cut_short)]
    + [
        ('models/net_g_6.pth', spoil)
        for spoil in (Path.unlink, lambda path: shutil.copy(path.with_stem('net_g_4'), path))
    ],
)
def test_damaged_newest_checkpoint_is_skipped(stopped, monkeypatch, name, spoil):
    spoil(stopped / RUN / name)
    for name in ('best.state', '7.state.old', '.8.state.part'):
        (stopped / RUN / 'training_states' / name).write_bytes(b'')
    assert train(monkeypatch, '--auto_resume') is None
    text = log(stopped)
    assert re.search(r'Resuming from \S*4\.state; skipped: 6\.state \(.+\)\.', text), text[:3000]
    assert iterations(text)[:3] == list('567') and not list((stopped / 'experiments').glob('*arch*'))


EDITS = {
    'moments of other shapes': lambda state: state['optimizers'][0]['state'][0].update(exp_avg=torch.ones(2)),
    'fewer parameters': lambda state: state['optimizers'][0]['param_groups'][0]['params'].pop(),
    'no betas': lambda state: state['optimizers'][0]['param_groups'][0].pop('betas'),
    'rate that is text': lambda state: state['optimizers'][0]['param_groups'][0].update(lr='fast'),
    'no optimizer': lambda state: state['optimizers'].clear(),
    'empty schedule': lambda state: state['schedulers'][0].clear(),
    'schedule with a method': lambda state: state['schedulers'][0].update(step=5),
    'schedule at a rate that is text': lambda state: state['schedulers'][0].update(_last_lr=['fast']),
    'schedule of NaN': lambda state: state['schedulers'][0].update(
        _last_lr=[math.nan], gamma=math.nan, milestones={6: 1}
    ),
    'option of another type': lambda state: state['options']['train']['optim_g'].update(lr='fast'),
    'unknown optimizer': lambda state: state['options']['train']['optim_g'].update(type='Adon'),
    'iteration that is text': lambda state: state.update(iter='6'),
    'newer release': lambda state: state.update(version=99),
}


@pytest.mark.parametrize('edit', EDITS)
def test_edited_state_is_skipped_or_refused_before_anything_is_written(stopped, monkeypatch, edit):
    path = stopped / RUN / 'training_states/6.state'
    state = load(stopped, 'training_states/6.state')
    EDITS[edit](state)
    torch.save(state, path)
    change(stopped, 'name=second', f'path:resume_state={path}')
    before = snapshot(stopped)
    assert re.search(r'error: path:resume_state: \S*6\.state[^\n]*$', train(monkeypatch))
    assert snapshot(stopped) == before
    change(stopped, 'name=run', 'path:resume_state=~')
    assert train(monkeypatch, '--auto_resume') is None
    assert re.search(r'Resuming from \S*4\.state; skipped: 6\.state \(\S*6\.state[:,]? .+\)\.', log(stopped))


def test_nothing_usable_to_resume_from_is_reported_in_one_line(stopped, monkeypatch):
    for path in (stopped / RUN / 'models').glob('net_g_?.pth'):
        path.unlink()
    before, status = snapshot(stopped), train(monkeypatch, '--auto_resume')
    assert 'no checkpoint' in status and 'net_g_6.pth' in status and '\n' not in status
    assert snapshot(stopped) == before


def test_finished_run_is_not_changed(home, monkeypatch):
    assert train(monkeypatch) is None
    before = snapshot(home)
    assert train(monkeypatch, '--auto_resume') is None
    assert snapshot(home) == before
    change(home, 'train:total_iter=9')
    assert train(monkeypatch, '--auto_resume') is None
    assert iterations(log(home))[-2:] == list('89')


def test_state_of_another_experiment_is_resumed_under_a_new_name(stopped, monkeypatch):
    change(stopped, 'name=second', f'path:resume_state={RUN}/training_states/4.state')
    before = snapshot(stopped / 'experiments/run')
    assert train(monkeypatch) is None
    assert iterations(log(stopped, 'experiments/second/train_*.log'))[:2] == list('56')
    assert snapshot(stopped / 'experiments/run') == before
    change(stopped, f'path:resume_state={RUN}/training_states/2.state')
    assert re.search('second.*another name|another name.*second', train(monkeypatch))


def test_state_written_by_basicsr_is_resumed(stopped, monkeypatch):
    state = load(stopped, 'training_states/6.state')
    state = {key: state[key] for key in ('epoch', 'iter', 'optimizers', 'schedulers')}
    torch.save(state, stopped / RUN / 'training_states/6.state')
    assert train(monkeypatch, '--auto_resume') is None
    assert iterations(log(stopped)) == ['7'] and 'written by BasicSR:' in log(stopped)


def test_changed_settings_are_listed_and_the_checkpoint_decides(stopped, monkeypatch):
    change(stopped, 'train:optim_g:lr=0.001', 'train:scheduler:milestones=[6]')
    change(stopped, 'train:ema_decay=0.5', 'datasets:train:gt_size=20')
    assert train(monkeypatch, '--auto_resume') is None
    text = log(stopped)
    for key, old, new, used in (
        ('train:optim_g:lr', '0.005', '0.001', '0.005'),
        ('train:scheduler:milestones', '[100]', '[6]', '[100]'),
        ('train:ema_decay', '0.9', '0.5', '0.5'),
        ('datasets:train:gt_size', 16, 20, 20),
    ):
        assert f'{key}: {old} in the checkpoint, {new} now; continues with {used}' in text
    assert text.count('Changed setting') == 4 and 'iter:       7, lr:(5.000e-03' in text


def test_global_batch_is_logged_and_compared(stopped, monkeypatch):
    """It depends on the ranks and GPUs as well, which are not compared: they may change as long as it stays."""
    assert 'Global batch size (all GPUs and ranks): 3\n' in log(stopped)
    path = stopped / RUN / 'training_states/6.state'
    state = load(stopped, 'training_states/6.state')
    assert state.pop('global_batch') == 3
    torch.save(state, path)  # as of earlier releases
    assert train(monkeypatch, '--auto_resume') is None
    assert 'Changed setting' not in log(stopped)
    (stopped / RUN / 'training_states/7.state').unlink()
    torch.save(state | {'global_batch': 6}, path)  # as of two ranks
    assert train(monkeypatch, '--auto_resume') is None
    text = log(stopped)
    assert 'global batch: 6 in the checkpoint, 3 now; continues with 3.' in text and text.count('Changed setting') == 1


@pytest.mark.parametrize(
    'dist, world_size, num_gpu, expected', [(False, 1, 0, 8), (False, 1, 4, 32), (True, 2, 1, 16), (True, 2, 0, 16)]
)
def test_global_batch(dist, world_size, num_gpu, expected):
    datasets = dict(train=dict(batch_size_per_gpu=8))
    assert global_batch(dict(dist=dist, world_size=world_size, num_gpu=num_gpu, datasets=datasets)) == expected


def test_training_longer_than_the_schedule_of_the_checkpoint_is_refused(home, monkeypatch):
    change(home, 'train:scheduler={type: CosineAnnealingRestartLR, periods: [7], restart_weights: [1]}')
    assert train(monkeypatch) is None
    change(home, 'train:scheduler:periods=[9]', 'train:total_iter=9')
    assert 'resume_override: true' in train(monkeypatch, '--auto_resume')
    change(home, 'path:resume_override=true')
    assert train(monkeypatch, '--auto_resume') is None
    assert iterations(log(home))[-1] == '9'


def test_iterations_continue_with_another_epoch_length(stopped, monkeypatch):
    change(stopped, 'datasets:train:dataset_enlarge_ratio=3')  # five iterations per epoch instead of one
    assert train(monkeypatch, '--auto_resume') is None
    assert iterations(log(stopped)) == ['7']


@pytest.mark.parametrize('optimizer, betas', [('Adan', [0.9, 0.9, 0.9]), ('Adam', [0.9, 0.9])])
def test_option_file_decides_with_resume_override(stopped, monkeypatch, optimizer, betas):
    change(stopped, f'train:optim_g={{type: {optimizer}, lr: 0.001, betas: {betas}}}', 'path:resume_override=true')
    change(stopped, 'train:scheduler:milestones=[3, 6]', 'train:total_iter=8')
    steps = load(stopped, 'training_states/6.state')['optimizers'][0]['param_groups'][0]['step']
    assert train(monkeypatch, '--auto_resume') is None
    text = log(stopped)
    assert 'train:optim_g:lr: 0.005 in the checkpoint, 0.001 now; continues with 0.001.' in text
    # Milestones count from the beginning: 3 and 6 are over at iteration 7.
    assert 'iter:       7, lr:(2.500e-04' in text
    if optimizer == 'Adan':
        group = load(stopped, 'training_states/8.state')['optimizers'][0]['param_groups'][0]
        assert group['step'] == steps + 2 and list(group['betas']) == betas


def test_drawn_seed_is_that_of_the_run(home, monkeypatch):
    change(home, 'manual_seed=~')
    assert train_until(monkeypatch, 'iter:       4', stop()) == 143
    seed = load(home, 'training_states/4.state')['options']['manual_seed']
    assert f'manual_seed: {seed}\n' in log(home, f'{RUN}/train_run_*.yml')
    assert train(monkeypatch, '--auto_resume') is None
    assert load(home, 'training_states/7.state')['options']['manual_seed'] == seed
    assert 'Changed setting' not in log(home)


def test_last_checkpoints_and_the_best_are_kept(home, monkeypatch):
    change(home, 'logger:save_checkpoint_freq=2', 'logger:keep_checkpoints=2', 'val:val_freq=1')
    assert train(monkeypatch) is None
    models = {path.name.removesuffix('.pth') for path in (home / RUN / 'models').iterdir()}
    names = ('net_g_6', 'net_g_7', 'net_g_latest', 'net_g_best')
    assert models == {*names, *(f'{name}_fused' for name in names)}
    assert {path.name for path in (home / RUN / 'training_states').iterdir()} == {'6.state', '7.state'}


def test_best_network_is_that_of_the_best_value(home, monkeypatch):
    # With `better: lower` the best PSNR is the first one, before the network has learned anything.
    change(home, 'val:val_freq=2', 'logger:save_checkpoint_freq=2', 'val:metrics:psnr:better=lower')
    assert train_until(monkeypatch, 'iter:       4', stop()) == 143
    assert train(monkeypatch, '--auto_resume') is None
    best = load(home, 'training_states/7.state')['best_metric_results']['val']['psnr']
    assert best['iter'] == 2 and isinstance(best['val'], float)
    for form in ('', '_fused'):
        assert same(load(home, f'models/net_g_best{form}.pth'), load(home, f'models/net_g_2{form}.pth'))


def test_full_disk_is_reported_in_one_line_and_keeps_the_last_checkpoint(home, monkeypatch):
    resource = pytest.importorskip('resource')
    change(home, 'logger:save_checkpoint_freq=2')
    kind, limits = resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        status = train_until(monkeypatch, 'iter:       4', lambda: resource.setrlimit(kind, (25_000, limits[1])))
    finally:
        resource.setrlimit(kind, limits)
    assert re.fullmatch(r'.*error: \S+net_g_4.pth: the file is larger .*, then resume with --auto_resume: .*', status)
    assert not (home / RUN / 'models/net_g_4.pth').exists() and not list(home.rglob('.*.part'))
    assert train(monkeypatch, '--auto_resume') is None
    assert iterations(log(home))[:2] == list('34')


@pytest.mark.parametrize(
    'classes', [BASICSR, BASICSR_DATASETS, []], ids=['SRModel', 'ReparamSRModel', 'PairedCropDataset']
)
def test_nan_stops_the_run_and_is_not_saved(home, monkeypatch, classes):
    change(home, *classes, 'logger:save_checkpoint_freq=1', 'train:optim_g={type: SGD, lr: 1.0e+25}')
    status = train(monkeypatch)
    iteration = int(re.search(r'(?:nan|inf) at iteration (\d+)', status)[1])
    saved = list((home / RUN / 'models').iterdir())
    assert saved and all(int(path.stem.split('_')[2]) < iteration for path in saved)
    for path in saved:
        if not path.stem.endswith('_fused'):  # products of such weights may be infinite
            assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)['params'].values())


def test_run_on_the_cpu_does_not_use_a_gpu(home, monkeypatch):
    """Also where there is one: not for the options, at a checkpoint, for a validation, or when it resumes."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for name in ('_lazy_init', 'get_rng_state', 'set_rng_state'):
        monkeypatch.setattr(torch.cuda, name, None)  # whose call is an error
    change(home, 'num_gpu=0')
    assert train_until(monkeypatch, 'iter:       4', stop()) == 143
    (rank,) = (state := load(home, 'training_states/4.state'))['random']
    assert rank['cuda'] is None
    torch.save(state | {'random': [rank | {'cuda': rank['torch']}]}, home / RUN / 'training_states/4.state')  # of a GPU
    assert train(monkeypatch, '--auto_resume') is None
