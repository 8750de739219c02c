"""Training, measuring and resuming on GPUs; ``pytest -m gpu`` runs these, on one GPU or more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lkdn_basicsr.archs import LKDN
from lkdn_basicsr.devices import exact_arithmetic
from lkdn_basicsr.evaluate.benchmarks import read_benchmark
from lkdn_basicsr.evaluate.measure import measure
from tests.support.runs import ROOT, change, log, same, train

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def run_training(monkeypatch, name, *options):
    """Train and return the losses of all iterations."""
    assert train(monkeypatch, '--force_yml', f'name={name}', *options) is None
    return [float(loss) for loss in re.findall(r'l_pix: (\S+)', log(Path(), f'experiments/{name}/train_*.log'))]


@pytest.fixture
def gpu_home(home):
    change(home, 'num_gpu=1', 'datasets:train:dataset_enlarge_ratio=4', 'train:total_iter=8')
    return home


def python(home, *arguments):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, *arguments], cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_twenty_iterations_have_the_losses_of_a_cpu(gpu_home, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    change(gpu_home, 'train:total_iter=20', 'train:optim_g:lr=0.0005')
    cpu, gpu = (run_training(monkeypatch, f'on{number}', f'num_gpu={number}') for number in (0, 1))
    assert len(cpu) == len(gpu) == 20
    np.testing.assert_allclose(gpu[0], cpu[0], rtol=2e-4)  # the log prints five digits
    np.testing.assert_allclose(gpu, cpu, rtol=1e-2)  # Adan divides by running means, which lets rounding grow


def test_scores_on_set5_are_those_of_the_readme(shared, tmp_path):
    benchmark = read_benchmark(shared / 'data/Set5', 4)
    result = measure(str(shared / 'official/LKDN_x4.pth'), [benchmark], 4, str(tmp_path))
    # Rounding to 8 bits hides most differences in the arithmetic; TF32 changes the third digit.
    assert result.scores['Set5'].mean_psnr == pytest.approx(32.3948, abs=1e-4)
    assert result.scores['Set5'].mean_ssim == pytest.approx(0.8980, abs=1e-4)
    assert 0 < result.latency < 10


def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(gpu_home, monkeypatch):
    # cuDNN selects its algorithms by timing them, and some of them add in any order.
    monkeypatch.setattr(torch.backends.cudnn, 'enabled', False)
    run_training(monkeypatch, 'once')
    run_training(monkeypatch, 'twice', 'train:total_iter=4')
    assert train(monkeypatch, '--auto_resume', '--force_yml', 'name=twice') is None
    networks = [torch.load(f'experiments/{name}/models/net_g_8.pth', weights_only=True) for name in ('once', 'twice')]
    assert same(*networks)


def test_a_run_resumes_on_the_cpu_and_back(gpu_home, monkeypatch):
    for iterations, num_gpu in ((2, 1), (4, 0), (6, 1)):
        options = [f'train:total_iter={iterations}', f'num_gpu={num_gpu}']
        assert train(monkeypatch, '--auto_resume', '--force_yml', *options) is None
    assert (gpu_home / 'experiments/run/training_states/6.state').exists()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_dataparallel_has_the_losses_of_one_gpu_with_the_same_global_batch(gpu_home, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    batch = 'datasets:train:batch_size_per_gpu'
    one, two = (run_training(monkeypatch, f'on{n}', f'num_gpu={n}', f'{batch}={4 // n}') for n in (1, 2))
    np.testing.assert_allclose(two, one, rtol=1e-2)


def test_one_rank_with_nccl(gpu_home):
    python(gpu_home, *'-m torch.distributed.run --nproc_per_node=1 -m lkdn_basicsr.train -opt train.yml'.split())
    assert (gpu_home / 'experiments/run/training_states/8.state').exists()


def test_prefetching_to_the_gpu_does_not_change_the_batches(gpu_home, monkeypatch):
    direct = run_training(monkeypatch, 'direct')
    change(gpu_home, 'datasets:train:prefetch_mode=cuda', 'datasets:train:pin_memory=true')
    prefetched = run_training(monkeypatch, 'prefetched')
    np.testing.assert_allclose(prefetched, direct, rtol=1e-2)


@pytest.mark.parametrize('in_training, advice', [(True, 'batch_size_per_gpu'), (False, '00 of val')])
def test_out_of_memory_is_reported_in_one_line(gpu_home, monkeypatch, in_training, advice):
    forward = LKDN.forward

    def allocate(network, x):
        if x.is_cuda and torch.is_grad_enabled() == in_training:
            torch.empty(1 << 50, device=x.device)
        return forward(network, x)

    monkeypatch.setattr(LKDN, 'forward', allocate)
    status = train(monkeypatch)
    assert isinstance(status, str) and '\n' not in status and advice in status and 'memory' in status


def test_validation_is_exact_and_restores_the_settings_of_the_training(gpu_home, monkeypatch, tf32):
    cudnn, matmul, forward = torch.backends.cudnn, torch.backends.cuda.matmul, LKDN.forward
    monkeypatch.setattr(cudnn, 'allow_tf32', True)
    settings = set()

    def record(network, x):
        if x.is_cuda:
            settings.add((torch.is_grad_enabled(), cudnn.allow_tf32, matmul.allow_tf32))
        return forward(network, x)

    monkeypatch.setattr(LKDN, 'forward', record)
    run_training(monkeypatch, 'exact')
    assert settings == {(True, True, True), (False, False, False)}


def test_exact_arithmetic_is_exact():
    values = torch.rand(256, 256, generator=torch.Generator().manual_seed(0))
    with exact_arithmetic():
        product = (values.cuda() @ values.cuda()).cpu()
    torch.testing.assert_close(product, values @ values, rtol=1e-5, atol=0)  # TF32 has 10 bits: 1e-3


def test_a_run_on_the_cpu_does_not_initialize_cuda(gpu_home):
    code = 'import sys, torch; from lkdn_basicsr import train; train.main(); sys.exit(torch.cuda.is_initialized())'
    python(gpu_home, '-c', code, '-opt', 'train.yml', '--force_yml', 'num_gpu=0')
