"""Trainings that are killed, stopped, short of disk or given other settings, and go on."""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tests import children
from tests.test_pipelines import ROOT, damage, forget_the_log, home, log, run, snapshot, write  # noqa: F401

RUN = 'experiments/run'


def change(folder, **changes):
    """Change options of ``train.yml``: keys as ``train__optim_g__lr=1e-3``."""
    options = yaml.safe_load(Path(folder, 'train.yml').read_text())
    for key, value in changes.items():
        *parents, last = key.split('__')
        block = options
        for parent in parents:
            block = block[parent]
        block[last] = value
    write(Path(folder, 'train.yml'), options)


@pytest.fixture
def long_home(home):  # noqa: F811
    """Twelve iterations, five an epoch: checkpoints, validations and epochs end at different iterations."""
    change(home, train__total_iter=12, datasets__train__batch_size_per_gpu=2, datasets__train__dataset_enlarge_ratio=2,
           logger__save_checkpoint_freq=4, val__val_freq=3)  # yapf: disable
    return home


def events(folder):
    """All that was logged to TensorBoard, in order: (tag, step, value), as a reader of the bare files finds it."""
    found = []
    for file in sorted(folder.glob('tb_logger/run/events*')):
        for event in EventFileLoader(str(file)).Load():
            found += [(value.tag, event.step, value.tensor.float_val[:]) for value in event.summary.value
                      if value.tag.startswith(('losses/', 'metrics/'))]  # yapf: disable
    return sorted(found)


def load(folder, name):
    return torch.load(Path(folder, RUN, name), weights_only=True)


def same(one, other):
    """Whether two trees of dicts, lists and tensors are equal, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def outcome(folder):
    """What must not depend on how often a run was killed."""
    state = load(folder, 'training_states/12.state')
    state = {key: state[key] for key in ('epoch', 'iter', 'optimizers', 'schedulers', 'best_metric_results', 'random')}
    nets = {name: load(folder, f'models/{name}.pth') for name in
            ('net_g_8', 'net_g_12', 'net_g_latest', 'net_g_best', 'net_g_latest_fused', 'net_g_best_fused')}
    return {'state': state, 'nets': nets, 'events': events(folder)}


def copy_home(home, name):  # noqa: F811
    """The same pictures and options in a folder of its own."""
    folder = home / name
    folder.mkdir()
    for part in ('train', 'val'):
        (folder / part).symlink_to(home / part)
    shutil.copy(home / 'train.yml', folder)
    return folder


def undisturbed(home, *arguments, ranks=1):  # noqa: F811
    folder = copy_home(home, 'undisturbed')
    begin = time.monotonic()
    processes = children.start(folder, *arguments, ranks=ranks)
    assert set(children.finish(processes)) == {0}, children.output(folder)
    return outcome(folder), time.monotonic() - begin


def go_on(folder, *arguments, ranks=1):
    codes = children.finish(children.start(folder, '--auto_resume', *arguments, ranks=ranks))
    assert set(codes) == {0}, children.output(folder)[-3000:]
    assert not list(folder.glob('*/*archived*')) and not list(folder.rglob('.*.part'))


def test_run_killed_at_any_moment_ends_as_if_it_had_not_been(long_home):
    expected, seconds = undisturbed(long_home)
    moments = random.Random(4)
    for k in range(4):
        folder = copy_home(long_home, f'killed{k}')
        for _ in range(2):
            (process,) = children.start(folder, '--auto_resume')
            process.join(moments.uniform(0.2, seconds))
            process.kill()
            process.join()
        go_on(folder)
        assert same(outcome(folder), expected), k


@pytest.mark.parametrize('call', random.Random(5).sample(range(1, 50), 6))
def test_run_killed_while_it_saves_ends_as_if_it_had_not_been(long_home, call):
    expected, _ = undisturbed(long_home)
    folder = copy_home(long_home, 'killed')
    assert children.finish(children.start(folder, '--auto_resume', die_at=call)) == [-signal.SIGKILL]
    go_on(folder)
    assert same(outcome(folder), expected)


def stop_after(folder, *arguments, ranks=1):
    """Train up to iteration 6 and no further, as a kill would: the last whole checkpoint is of iteration 4."""
    processes = children.start(folder, *arguments, ranks=ranks)
    deadline = time.monotonic() + 120
    while 'iter:       6' not in (children.output(folder) if (folder / 'out.txt').exists() else ''):
        assert time.monotonic() < deadline and any(p.is_alive() for p in processes), children.output(folder)[-3000:]
        time.sleep(0.005)
    for process in processes:
        process.kill()
    children.finish(processes)


BASICSR = dict(model_type='SRModel', datasets__train__type='PairedImageDataset', datasets__val__type='PairedImageDataset')


@pytest.mark.parametrize('kind', [{}, BASICSR], ids=['PairedCropDataset', 'PairedImageDataset'])
def test_killed_run_goes_on_alike_with_other_workers(long_home, kind):
    change(long_home, **kind)
    expected = copy_home(long_home, 'expected')
    assert children.finish(children.start(expected)) == [0]
    folder = copy_home(long_home, 'killed')
    change(folder, datasets__train__num_worker_per_gpu=2)
    stop_after(folder)
    change(folder, datasets__train__num_worker_per_gpu=1)
    go_on(folder)
    for name in ('net_g_latest', 'net_g_best'):
        assert same(load(folder, f'models/{name}.pth'), load(expected, f'models/{name}.pth'))
    assert events(folder) == events(expected)


def test_killed_run_of_two_ranks_goes_on_on_two_alike_and_on_one_within_rounding(long_home):
    expected, _ = undisturbed(long_home, ranks=2)
    folder = copy_home(long_home, 'killed')
    stop_after(folder, ranks=2)
    (folder / 'one').mkdir()
    for name in ('train', 'val', 'train.yml', 'experiments', 'tb_logger'):
        source = folder / name
        shutil.copytree(source, folder / 'one' / name) if source.is_dir() else shutil.copy(source, folder / 'one')
    go_on(folder, ranks=2)
    assert same(outcome(folder), expected)

    one = folder / 'one'
    change(one, datasets__train__batch_size_per_gpu=4)
    go_on(one)
    weights, known = outcome(one)['nets']['net_g_latest']['params'], expected['nets']['net_g_latest']['params']
    for key, value in weights.items():
        # Float32 sums in another order, eight steps on: a wrong sample shows at 1e-3 and more.
        torch.testing.assert_close(value, known[key], rtol=0, atol=2e-5)
    assert 'Changed setting datasets:train:batch_size_per_gpu: 2 in the checkpoint, 4 now; goes on with 4' in log(one)
