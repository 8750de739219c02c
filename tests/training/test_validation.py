"""Validation: the same network on every rank, out of memory, exact arithmetic."""

import hashlib
import json
import os

import pytest
import torch
import yaml
from PIL import Image

from lkdn_basicsr import checkpoints
from lkdn_basicsr.archs import LKDN
from lkdn_basicsr.models import ReparamSRModel
from lkdn_basicsr.training import model as training_model
from lkdn_basicsr.training.distributed import Ranks
from lkdn_basicsr.training.launch import read_launch
from lkdn_basicsr.training.run import Run
from tests.support import processes, runs
from tests.support.images import NAMES


def digest(state):
    return hashlib.sha256(b''.join(value.numpy().tobytes() for value in state.values())).hexdigest()


def train_with_batch_norm(folder):
    """Train on other images than the other rank; write digests of the network before and after saving, validating."""
    run, digests = Run(), []
    run.ranks = Ranks(read_launch())
    run.ranks.rendezvous()
    run.ranks.init_process_group(num_gpu=0)
    run.save_state = run.finish_validation = lambda *_: None
    training_model.validate = lambda model, *_: digests.append(digest(model._validation_network.state_dict()))
    rank = run.ranks.launch.rank
    opt = yaml.safe_load(runs.TRAIN)
    opt['network_g'].update(conv='BSConvU_dbb')
    opt.update(num_gpu=0, is_train=True, dist=True, rank=rank, world_size=2, path=dict(models=str(folder)))
    model = training_model.model_class(ReparamSRModel, run)(opt)
    generator = torch.Generator().manual_seed(rank)
    for save_or_validate in (lambda: model.save(0, 1), lambda: model.validation(None, 2, None)):
        sizes = dict(lq=8, gt=16).items()
        model.feed_data({key: torch.rand(2, 3, size, size, generator=generator) for key, size in sizes})
        model.optimize_parameters(1)
        digests.append(digest(model.fused_network().state_dict()))
        save_or_validate()
        digests.append(digest(model.fused_network().state_dict()))
    (folder / f'{rank}.json').write_text(json.dumps(digests))
    run.ranks.leave()


@pytest.mark.slow
def test_batch_norm_has_the_buffers_of_the_first_rank(tmp_path):
    assert processes.finish(processes.start_ranks(2, lambda _: (train_with_batch_norm, tmp_path))) == [0, 0]
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2))
    assert [one == other for one, other in zip(first, second)] == [False, True, False, True, True]
    assert first[1] == digest(checkpoints.load(tmp_path / 'net_g_1_fused.pth')['params'])
    assert first[0] == first[1] and first[2] == first[3] == first[4]


@pytest.mark.parametrize(
    'error',
    [
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 15.77 GiB.'),
        torch.OutOfMemoryError('Caught OutOfMemoryError in replica 0.\n\ntorch.OutOfMemoryError: CUDA out of'),
        RuntimeError('[enforce fail] DefaultCPUAllocator: not enough memory'),
    ],
)
def test_out_of_memory_is_one_line(home, monkeypatch, error):
    def forward(self, x):
        if x.shape == shape:
            raise error
        return forwards(self, x)

    forwards, reason = LKDN.forward, str(error).rpartition('Error: ')[2].rstrip('.')
    monkeypatch.setattr(LKDN, 'forward', forward)
    shape = (3, 3, 8, 8)
    message = runs.train(monkeypatch)
    assert 'iteration 1 with datasets:train:batch_size_per_gpu 3 and gt_size 16' in message
    assert f'({reason})' in message and '\n' not in message
    shape = (1, 3, 16, 16)
    message = runs.train(monkeypatch)
    assert f'image 00 of val, LR of 16×16 pixels ({reason}): crop' in message and '\n' not in message


def test_validation_and_test_are_exact_and_training_is_not(home, monkeypatch, tf32):
    def forward(self, x):
        flags.setdefault(tuple(x.shape), set()).add((cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32))
        return forwards(self, x)

    cudnn, matmul, forwards, flags = torch.backends.cudnn, torch.backends.cuda.matmul, LKDN.forward, {}
    monkeypatch.setattr(LKDN, 'forward', forward)
    monkeypatch.setattr(cudnn, 'benchmark', False)  # True in BasicSR's pipelines
    assert runs.train(monkeypatch) is None  # 7 iterations, with validation after the fourth
    assert flags.pop((2, 3, 8, 8)) == {(False, True, True)}  # of the dry run
    assert flags == {(3, 3, 8, 8): {(True, True, True)}, (1, 3, 16, 16): {(False, False, False)}}
    assert runs.run(monkeypatch, 'test', '-opt', 'test.yml') is None
    assert flags[1, 3, 16, 16] == {(False, False, False)}


@pytest.mark.parametrize('names', [NAMES[:2], NAMES[2:]])
def test_images_of_any_name_are_saved(home, monkeypatch, names):
    """OpenCV's imwrite ends the process where a name is not UTF-8."""
    for folder in ('gt', 'lq'):
        for old, new in zip(('00', '01'), names):
            os.rename(f'val/{folder}/{old}.png', f'val/{folder}/{new}.png')
    runs.change(home, 'val:save_img=true', 'train:total_iter=4')
    assert runs.train(monkeypatch) is None
    runs.reset_log()
    assert runs.run(monkeypatch, 'test', '-opt', 'test.yml') is None
    for name in names:
        for path in (
            f'experiments/run/visualization/{name}/{name}_4',
            f'results/tested/visualization/val/{name}_tested',
        ):
            assert Image.open(f'{path}.png').size == (32, 32)


def test_images_whose_saved_name_would_be_too_long_are_refused(home, monkeypatch):
    name = 'n' * 250
    for folder in ('gt', 'lq'):
        os.rename(f'val/{folder}/00.png', f'val/{folder}/{name}.png')
    runs.change(home, 'val:save_img=true')
    assert f'val:save_img is true, but {name}_7.png has more than the 255 bytes' in runs.train(monkeypatch, '--check')
    runs.change(home, 'val:save_img=false')
    assert runs.train(monkeypatch, '--check') == 0


def test_no_progress_bar_without_a_terminal(home, monkeypatch, capfd):
    runs.change(home, val=dict(val_freq=7, save_img=False, pbar=True))
    assert runs.train(monkeypatch) is None
    assert '2/2' not in capfd.readouterr().err
