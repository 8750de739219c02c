"""Runs of train and test on tiny images: option files and images to run on, and how to run in this process."""

import logging
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from basicsr.utils.logger import initialized_logger

from lkdn_basicsr import cli
from lkdn_basicsr.data import imresize

ROOT = Path(__file__).resolve().parents[2]


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


def dataset_options(folder, **more):
    return dict(
        name=folder,
        type='PairedCropDataset',
        dataroot_gt=f'{folder}/gt',
        dataroot_lq=f'{folder}/lq',
        io_backend=dict(type='disk'),
        **more,
    )


def write_run(folder):
    write_images(folder / 'train', 5)
    write_images(folder / 'val', 2)
    metrics = dict(psnr=dict(type='calculate_psnr', crop_border=2, test_y_channel=True))
    common = dict(
        model_type='ReparamSRModel',
        scale=2,
        num_gpu='auto',
        manual_seed=0,
        network_g=dict(
            type='LKDN',
            num_feat=8,
            num_atten=8,
            num_block=1,
            upscale=2,
            conv='BSConvU_rep',
            upsampler='pixelshuffle_rep',
        ),
    )
    write(
        folder / 'train.yml',
        dict(
            common,
            name='run',
            datasets=dict(
                train=dataset_options(
                    'train',
                    gt_size=16,
                    use_hflip=True,
                    use_rot=True,
                    num_worker_per_gpu=0,
                    batch_size_per_gpu=3,
                    dataset_enlarge_ratio=1,
                ),
                val=dataset_options('val'),
            ),
            path=dict(pretrain_network_g=None, strict_load_g=True, resume_state=None),
            train=dict(
                ema_decay=0.9,
                optim_g=dict(type='Adan', lr=5e-3, betas=[0.98, 0.92, 0.99]),
                total_iter=7,
                warmup_iter=-1,
                scheduler=dict(type='MultiStepLR', milestones=[100], gamma=0.5),
                pixel_opt=dict(type='L1Loss', loss_weight=1.0, reduction='mean'),
            ),
            val=dict(val_freq=4, save_img=False, metrics=metrics),
            logger=dict(print_freq=1, save_checkpoint_freq=4, use_tb_logger=True),
        ),
    )
    write(
        folder / 'test.yml',
        dict(
            common,
            name='tested',
            datasets=dict(test_1=dataset_options('val')),
            path=dict(pretrain_network_g='experiments/run/models/net_g_latest.pth', param_key_g='params_ema'),
            val=dict(save_img=True, metrics=metrics),
        ),
    )


def reset_log():
    """BasicSR opens its log file once in a process; each test has one of its own."""
    initialized_logger.clear()
    logger = logging.getLogger('basicsr')
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)


def write(path, options):
    Path(path).write_text(yaml.safe_dump(options, sort_keys=False))


def run(monkeypatch, task, *arguments):
    """``python -m lkdn_basicsr.<task>`` in this process: status and message of the exit, None at the end."""
    monkeypatch.setattr(sys, 'argv', [task, *map(str, arguments)])
    try:
        cli.run(task)
    except SystemExit as exit_:
        return exit_.code
    return None


def log(home, pattern='experiments/run/train_*.log'):
    return max(home.glob(pattern)).read_text()


def snapshot(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in sorted(folder.rglob('*'))}


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


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


def same(one, other):
    """Whether two trees of dicts, lists and tensors are equal, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
