"""Runs of train and test on tiny images: option files and images to run on, and how to run in this process."""

import functools
import logging
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from basicsr.utils.logger import initialized_logger

from lkdn_basicsr import test as test_command
from lkdn_basicsr import train as train_command
from lkdn_basicsr.data import imresize

ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
name: run
model_type: ReparamSRModel
scale: 2
num_gpu: auto
manual_seed: 0
datasets:
  train: {name: train, type: PairedCropDataset, dataroot_gt: train/gt, dataroot_lq: train/lq, io_backend: {type: disk},
          gt_size: 16, use_hflip: true, use_rot: true, num_worker_per_gpu: 0, batch_size_per_gpu: 3,
          dataset_enlarge_ratio: 1}
  val: {name: val, type: PairedCropDataset, dataroot_gt: val/gt, dataroot_lq: val/lq, io_backend: {type: disk}}
network_g:
  {type: LKDN, num_feat: 8, num_atten: 8, num_block: 1, upscale: 2, conv: BSConvU_rep, upsampler: pixelshuffle_rep}
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  ema_decay: 0.9
  optim_g: {type: Adan, lr: 0.005, betas: [0.98, 0.92, 0.99]}
  total_iter: 7
  warmup_iter: -1
  scheduler: {type: MultiStepLR, milestones: [100], gamma: 0.5}
  pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
val: {val_freq: 4, save_img: false, metrics: {psnr: {type: calculate_psnr, crop_border: 2, test_y_channel: true}}}
logger: {print_freq: 1, save_checkpoint_freq: 4, use_tb_logger: true}
"""
# Changes of these options to classes of BasicSR.
BASICSR_DATASETS = ['datasets:train:type=PairedImageDataset', 'datasets:val:type=PairedImageDataset']
BASICSR = ['model_type=SRModel', *BASICSR_DATASETS]


def write_images(folder, count, size=32):
    """Pairs at ×2 with some structure: ``gt`` and ``lq`` below ``folder``."""
    rng = np.random.default_rng(0)
    for name in ('gt', 'lq'):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        coarse = rng.integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
        gt = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'gt/{i:02}.png'), gt)
        cv2.imwrite(str(folder / f'lq/{i:02}.png'), imresize(gt, 1 / 2))


def write_run(folder):
    """Write ``train.yml`` and ``test.yml``, and the images of both."""
    write_images(folder / 'train', 5)
    write_images(folder / 'val', 2)
    options = yaml.safe_load(TRAIN)
    write(folder / 'train.yml', options)
    test = {key: options[key] for key in ('model_type', 'scale', 'num_gpu', 'manual_seed', 'network_g')}
    test |= dict(name='tested', datasets=dict(test_1=options['datasets']['val']))
    test['path'] = dict(pretrain_network_g='experiments/run/models/net_g_latest.pth', param_key_g='params_ema')
    test['val'] = dict(save_img=True, metrics=options['val']['metrics'])
    write(folder / 'test.yml', test)


def reset_log():
    """BasicSR opens its log file once in a process; each test has one of its own."""
    initialized_logger.clear()
    logger = logging.getLogger('basicsr')
    while logger.handlers:
        logger.handlers.pop().close()


def write(path, options):
    Path(path).write_text(yaml.safe_dump(options, sort_keys=False))


def change(folder, *changes, file='train.yml', **values):
    """Change options of a file: ``'train:total_iter=9'`` with a value in YAML, ``train__total_iter=9`` in Python."""
    options = yaml.safe_load(Path(folder, file).read_text())
    values |= {keys: yaml.safe_load(text) for keys, _, text in (entry.partition('=') for entry in changes)}
    for keys, value in values.items():
        *parents, last = keys.replace('__', ':').split(':')
        functools.reduce(dict.__getitem__, parents, options)[last] = value
    write(Path(folder, file), options)


def run(monkeypatch, task, *arguments):
    """``python -m lkdn_basicsr.<task>`` in this process: status and message of the exit, None at the end."""
    monkeypatch.setattr(sys, 'argv', [task, *map(str, arguments)])
    try:
        {'train': train_command, 'test': test_command}[task].main()
    except SystemExit as exit_:
        return exit_.code


def train(monkeypatch, *arguments):
    """Run ``train -opt train.yml`` in this process, with a log of its own; return the exit status."""
    reset_log()
    return run(monkeypatch, 'train', '-opt', 'train.yml', *arguments)


def log(home, pattern='experiments/run/train_*.log'):
    return max(home.glob(pattern)).read_text()


def snapshot(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in sorted(folder.rglob('*'))}


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def same(one, other):
    """Whether two trees of dicts, lists and tensors are equal, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
