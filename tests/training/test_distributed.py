"""Several ranks under torchrun, against one process: same losses and metrics, one reason when something fails."""

import json
import math
import os
import re
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import torch
from basicsr.models.sr_model import SRModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from lkdn_basicsr import cli
from lkdn_basicsr.data import PairedCropDataset
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.training import validation
from lkdn_basicsr.training.distributed import Ranks
from lkdn_basicsr.training.launch import Launch
from lkdn_basicsr.training.model import RunModel, model_class
from lkdn_basicsr.training.run import Run
from lkdn_basicsr.training.validation import validate
from tests.support.runs import ROOT, change, reset_log, run, snapshot, train, write_images, write_run

# The ranks run the command, with a validation dataset that is slow on the first rank, metrics written by every rank,
# and a kill at an iteration that the test sets.
LAUNCH = """
import json, os, signal, sys, time

import lkdn_basicsr
from basicsr.utils.registry import DATASET_REGISTRY
from lkdn_basicsr import train
from lkdn_basicsr.data import PairedCropDataset
from lkdn_basicsr.models import ReparamSRModel

rank, attempt = os.environ['RANK'], os.environ['TORCHELASTIC_RESTART_COUNT']

@DATASET_REGISTRY.register()
class SlowDataset(PairedCropDataset):
    def __getitem__(self, index):
        if rank == '0' and attempt == '0':
            time.sleep(float(os.environ.get('SLOW', 0)))
        if rank == '1' and 'BAD' in os.environ:
            raise RuntimeError('a bug in the dataset')
        return super().__getitem__(index)

step, validation = ReparamSRModel.optimize_parameters, ReparamSRModel.validation

def optimize_parameters(self, current_iter):
    if [rank, attempt, current_iter] == ['1', '0', int(os.environ.get('DIE_AT', 0))]:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, current_iter)

def write_metrics(self, loader, current_iter, *arguments):
    validation(self, loader, current_iter, *arguments)
    with open(f'metrics.{rank}', 'a') as file:
        file.write(json.dumps([current_iter, self.metric_results]) + chr(10))

ReparamSRModel.optimize_parameters, ReparamSRModel.validation = optimize_parameters, write_metrics
train.main()
"""
ARGUMENTS = '-opt train.yml --force_yml name=two datasets:train:batch_size_per_gpu=2'


def torchrun(folder, arguments, restarts=0, **environment):
    """Run two ranks of the launch script with these arguments; return the finished process."""
    command = f'-m torch.distributed.run --nproc_per_node=2 --max-restarts={restarts} launch.py {arguments}'
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **environment}
    options = dict(capture_output=True, text=True, timeout=300)
    return subprocess.run([sys.executable, *command.split()], cwd=folder, env=env, **options)


def prepare(folder):
    """Set five validation images, global batches of four, and metrics whose mean would depend on their order."""
    (folder / 'launch.py').write_text(LAUNCH)
    for role in ('gt', 'lq'):  # the remaining training images suffice
        for path in sorted((folder / f'train/{role}').iterdir()):
            (folder / f'val/{role}/{path.name}').write_bytes(path.read_bytes())
    change(folder, 'datasets:train:batch_size_per_gpu=4', 'train:total_iter=6', 'val:val_freq=3', 'val:save_img=true')
    change(folder, 'val:metrics:ssim={type: calculate_ssim, crop_border: 2}', 'dist_params={backend: nccl, timeout: 5}')


def losses(text):
    return [float(value) for value in re.findall(r'l_pix: (\S+)', text)]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The same training by one process and by two ranks, of which one was slow, killed and restarted."""
    folder = tmp_path_factory.mktemp('ranks')
    write_run(folder)
    prepare(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        assert train(monkeypatch, '--force_yml', 'name=one') is None
    reset_log()
    arguments = f'--auto_resume --local-rank=0 {ARGUMENTS} datasets:val:type=SlowDataset'
    done = torchrun(folder, arguments, restarts=1, SLOW='2', DIE_AT='6')
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture
def logs(trained):
    """The logs of one process, of two ranks before the kill, and after it."""
    files = [*trained.glob('experiments/one/*.log'), *sorted(trained.glob('experiments/two/*.log'))]
    return [path.read_text() for path in files]


@pytest.mark.slow
class TestTwoRanks:
    def test_training_is_the_same(self, trained, logs):
        one, before, after = map(losses, logs)
        # The log prints five digits; the mean of four samples in another order differs in the seventh.
        np.testing.assert_allclose(before, one[:5], rtol=2e-4)
        np.testing.assert_allclose(after, one[4:], rtol=2e-4)
        networks = [torch.load(trained / f'experiments/{name}/models/net_g_latest.pth') for name in ('one', 'two')]
        for key, value in networks[0]['params_ema'].items():
            # Adan divides by running means, which lets rounding grow over the steps.
            torch.testing.assert_close(networks[1]['params_ema'][key], value, rtol=1e-2, atol=1e-4)

    def test_a_rank_that_is_killed_is_restarted_and_resumes(self, trained, logs):
        assert 'Resuming training from epoch' not in logs[1]
        assert re.search(r'Resuming training from epoch: \d+, iter: 4', logs[2])
        assert not list(trained.glob('experiments/two_archived*'))

    def test_every_rank_has_the_metrics_of_a_single_process(self, trained, logs):
        first, second = ((trained / f'metrics.{rank}').read_text() for rank in range(2))
        written = [json.loads(line) for line in first.splitlines()]
        assert first == second and [iteration for iteration, _ in written] == [3, 6]
        assert all(isinstance(value, float) and math.isfinite(value) for value in written[1][1].values())
        printed = [re.findall(r'(psnr|ssim): ([\d.]+)', text)[-2:] for text in (logs[0], logs[2])]
        for (metric, one), (same, two) in zip(*printed):
            assert metric == same and abs(float(one) - float(two)) < 0.02  # of networks that differ by rounding

    def test_a_validation_longer_than_the_timeout_does_not_end_the_run(self, logs):
        assert 'timeout: 5' in logs[1] and 'Validation val' in logs[1]  # the first rank needs 3 x 2 s

    def test_each_rank_saves_its_images(self, trained):
        for i in range(5):
            files = [trained / f'experiments/{name}/visualization/{i:02}/{i:02}_6.png' for name in ('one', 'two')]
            one, two = (cv2.imread(str(file)).astype(int) for file in files)
            assert one.shape == (32, 32, 3)
            assert np.abs(one - two).max() <= 2  # rounding of the training, as above


@pytest.mark.slow
@pytest.mark.parametrize(
    'forced, environment, reason',
    [
        ('datasets:train:dataroot_gt=nowhere', {}, 'datasets:train:dataroot_gt is nowhere'),
        ('datasets:val:type=SlowDataset', {'BAD': '1'}, 'RuntimeError: a bug in the dataset'),
    ],
)
def test_the_reason_of_a_failure_is_shown_once(home, forced, environment, reason):
    prepare(home)
    before = snapshot(home)
    done = torchrun(home, f'{ARGUMENTS} {forced}', **environment)
    assert done.returncode == 1
    own, _, report = done.stderr.partition('ChildFailedError')
    assert own.count(reason) == 1, own
    assert reason in report
    assert ('Traceback' in own.split('torch/distributed/elastic')[0]) is bool(environment)  # a bug keeps its traceback
    if not environment:
        assert snapshot(home) == before


@pytest.mark.slow
def test_a_rank_that_is_killed_leaves_no_traceback(home):
    prepare(home)
    done = torchrun(home, ARGUMENTS, DIE_AT='3')
    own, _, report = done.stderr.partition('torch/distributed/elastic')
    assert done.returncode == 1 and 'SIGKILL' in report.replace('Signal 9', 'SIGKILL')
    assert (
        'gloo' not in done.stderr and 'Traceback' not in own.split('Traceback (most recent call last):\n  File "<')[0]
    )


def test_restarted_ranks_resume(home, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '3')
    monkeypatch.setenv('GROUP_WORLD_SIZE', '2')  # where a first start cannot be distinguished from a restart
    assert '--auto_resume' in run(monkeypatch, 'train', '-opt', 'train.yml')
    monkeypatch.setenv('GROUP_WORLD_SIZE', '1')
    for count in '01':
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', count)
        monkeypatch.setattr(sys, 'argv', ['train', '-opt', 'train.yml'])
        run_ = Run()
        with run_.held:
            assert run_.parse_options(str(home))[0]['auto_resume'] is (count == '1')


def test_only_the_first_rank_reports_invalid_arguments(monkeypatch, capsys):
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        with pytest.raises(SystemExit):
            cli.build_parser().parse_args(['-opt'])
        assert ('expected one argument' in capsys.readouterr().err) is (rank == '0')


class Doubler(SRModel):
    """Enlarges by repeating pixels, and records which images it processed."""

    def __init__(self, metrics, is_train=False, suffix=None):
        self.opt = dict(is_train=is_train, name='x', dist=False, path={'visualization': '.'})
        self.opt['val'] = {'metrics': metrics, 'suffix': suffix}
        self.is_train, self.device, self.processed, self.ranks = False, torch.device('cpu'), [], Ranks()

    def feed_data(self, data):
        self.processed.append(data['lq_path'][0][-6:-4])
        self.lq, self.gt = data['lq'] / 255, data['gt'] / 255

    def test(self):
        self.output = self.lq.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def validate(self, *arguments):
        validate(self, self.ranks, *arguments)


METRICS = {'psnr': dict(type='calculate_psnr', crop_border=2), 'ssim': dict(type='calculate_ssim', crop_border=2)}


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / 'seven', 7)
    paths = dict(dataroot_gt='seven/gt', dataroot_lq='seven/lq', io_backend=dict(type='disk'))
    return torch.utils.data.DataLoader(PairedCropDataset(dict(name='seven', phase='val', scale=2, **paths)))


@pytest.mark.parametrize('world_size', [2, 3, 4, 9])
def test_uneven_shards_give_the_results_of_one_process(images, monkeypatch, world_size):
    single = Doubler(METRICS)
    single.validate(images, 1, None, False)
    shards, processed = [], []
    for rank in range(world_size):  # what each rank would contribute
        model = Doubler(METRICS)
        monkeypatch.setattr(validation, 'get_dist_info', lambda rank=rank: (rank, world_size))
        model.ranks.gather = lambda shard: shards.append(shard) or [[]] * world_size
        with pytest.raises(IndexError):
            model.validate(images, 1, None, False)
        processed += model.processed
    assert sorted(processed) == [f'{i:02}' for i in range(7)]
    model.ranks.gather = lambda shard: shards
    model.validate(images, 1, None, False)
    assert model.metric_results == single.metric_results  # to the last bit
    assert model.best_metric_results == single.best_metric_results
    assert {type(value) for value in single.metric_results.values()} == {float}


def test_restarted_ranks_do_not_read_the_store_of_an_earlier_start():
    """torchrun keeps its store over restarts; the ranks arrive in any order, at different times."""
    store, attempts = torch.distributed.HashStore(), []

    def agree(rank, names):
        names[rank] = Ranks(Launch('pytorch', rank, 3))._agree_on_attempt(store)

    for first in (0, 1, 0):
        names = {}
        threads = [threading.Thread(target=agree, args=(rank, names)) for rank in (first, 1 - first, 2)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        for thread in threads:
            thread.join(20)
        assert len(names) == 3 and len(set(names.values())) == 1
        attempts.append(names[0])
    assert len(set(attempts)) == 3


def test_a_model_with_its_own_validation_runs_it_on_the_first_rank(monkeypatch):
    calls = []

    class Other(SRModel):
        def __init__(self):
            pass

        def nondist_validation(self, *arguments):
            calls.append(arguments)

    for rank in range(2):
        monkeypatch.setattr('lkdn_basicsr.training.model.get_dist_info', lambda rank=rank: (rank, 2))
        started = Run()
        started.ranks.gather = lambda value: calls.append('waits')
        model_class(Other, started)().dist_validation('loader', 1, None, False)
    assert calls == [('loader', 1, None, False), 'waits', 'waits']


@pytest.mark.parametrize(
    'is_train, suffix, path',
    [(True, None, '03/03_5.png'), (False, None, 'seven/03_x.png'), (False, 'y', 'seven/03_y.png')],
)
def test_images_are_saved_where_basicsr_saves_them(images, is_train, suffix, path):
    Doubler(None, is_train, suffix).validate(images, 5, None, True)
    assert cv2.imread(path).shape == (32, 32, 3)


def test_nan_pixels_are_reported_with_the_image(images):
    model = Doubler(METRICS)
    feed = model.feed_data

    def feed_data(data):
        feed(data)
        if model.processed[-1] == '04':
            model.lq[0, 0, 3, 3] = math.nan

    model.feed_data = feed_data
    with pytest.raises(InputError, match='04 of seven'):
        model.validate(images, 1, None, False)


def test_failing_metric_is_reported_with_the_image(images, monkeypatch):
    wrong = {'psnr': dict(type='calculate_psnr', crop_border=2, input_order='WHC')}
    with pytest.raises(InputError, match='val:metrics:psnr.*00 of seven.*input_order'):
        Doubler(wrong).validate(images, 1, None, False)

    def flat(*arguments):
        raise np.linalg.LinAlgError('singular')

    warnings = []
    monkeypatch.setattr(validation, 'calculate_metric', flat)
    monkeypatch.setattr(validation.get_root_logger(), 'warning', warnings.append)
    model = Doubler({'niqe': dict(type='calculate_niqe', crop_border=0, better='lower')})
    model.validate(images, 1, None, False)
    assert len(warnings) == 7 and 'niqe of 06 of seven' in warnings[-1]
    assert math.isnan(model.metric_results['niqe']) and model.best_metric_results['seven']['niqe']['iter'] == -1


def test_the_last_training_batch_is_not_taken_for_ground_truth(images):
    model = Doubler({'niqe': dict(type='calculate_niqe', crop_border=0)})
    model.gt = torch.zeros(1, 3, 4, 4)
    model.feed_data = lambda data: setattr(model, 'lq', data['lq'] / 255)
    assert 'gt' not in validation.super_resolve(model, next(iter(images)), '')


def test_first_image_goes_to_tensorboard(images, tmp_path):
    with SummaryWriter(tmp_path / 'tb') as writer:
        for iteration in (5, 10):
            Doubler(METRICS).validate(images, iteration, writer, False)
    events = EventAccumulator(str(tmp_path / 'tb')).Reload()
    shown = events.Images('images/seven')
    assert [image.step for image in shown] == [5, 10]
    image = cv2.imdecode(np.frombuffer(shown[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    lq, gt = cv2.imread('seven/lq/00.png'), cv2.imread('seven/gt/00.png')
    assert np.array_equal(image[:, 64:], gt) and image.shape == (32, 96, 3)
    assert np.array_equal(image[:, 32:64], lq.repeat(2, 0).repeat(2, 1))
    assert [s.step for s in events.Scalars('metrics/seven/psnr')] == [5, 10]


def test_the_preview_of_a_large_image_is_cropped():
    lq = np.zeros((400, 300), np.uint8)
    assert validation.side_by_side(lq, np.zeros((1600, 1200, 3), np.uint8)).shape == (512, 1024, 3)


def test_losses_are_averaged_over_the_ranks_on_every_rank(monkeypatch):
    monkeypatch.setattr(torch.distributed, 'all_reduce', lambda values: values.mul_(2))  # the other rank has the same
    model = Doubler(None)
    model.opt.update(dist=True, world_size=2)
    model.run = Run()
    reduced = RunModel.reduce_loss_dict(model, {'l_pix': torch.tensor(0.25), 'l_x': torch.tensor(3.0)})
    assert reduced == {'l_pix': 0.25, 'l_x': 3.0}
