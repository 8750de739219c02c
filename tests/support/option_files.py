"""A small training file, a small test file, and the images that they name."""

import copy
import sys

import numpy as np
import pytest
import torch
import yaml
from basicsr.archs.srresnet_arch import MSRResNet
from PIL import Image

from lkdn_basicsr.training.run import Run

TRAIN = """
name: small
model_type: SRModel
scale: 2
num_gpu: 0
manual_seed: 3
datasets:
  train:
    {name: Images, type: PairedImageDataset, dataroot_gt: ROOT/gt, dataroot_lq: ROOT/lq, filename_tmpl: '{}x2',
     io_backend: {type: disk}, gt_size: 16, use_hflip: true, use_rot: true, num_worker_per_gpu: 0,
     batch_size_per_gpu: 2, dataset_enlarge_ratio: 1, prefetch_mode: ~}
  val:
    {name: Validation, type: PairedImageDataset, dataroot_gt: ROOT/gt, dataroot_lq: ROOT/lq, filename_tmpl: '{}x2',
     io_backend: {type: disk}}
network_g: {type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 1, upscale: 2}
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  ema_decay: 0.9
  optim_g: {type: Adam, lr: !!float 2e-4, weight_decay: 0, betas: [0.9, 0.99]}
  scheduler: {type: MultiStepLR, milestones: [50, 80], gamma: 0.5}
  total_iter: 100
  warmup_iter: -1
  pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
val:
  {val_freq: !!float 5e1, save_img: false,
   metrics: {psnr: {type: calculate_psnr, crop_border: 2, test_y_channel: true, better: higher}}}
logger: {print_freq: 10, save_checkpoint_freq: !!float 5e1, use_tb_logger: true, wandb: {project: ~, resume_id: ~}}
dist_params: {backend: nccl, port: 29500}
"""


def write_pairs(root, count=4, gt_size=(24, 26), scale=2):
    """Write ``count`` pairs of random images below ``root``: gt/p0.png with lq/p0x2.png; sizes are (height, width)."""
    generator = np.random.default_rng(0)
    for folder, size, suffix in (('gt', gt_size, ''), ('lq', (gt_size[0] // scale, gt_size[1] // scale), f'x{scale}')):
        (root / folder).mkdir(exist_ok=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f'p{i}{suffix}.png')


def train_options(root):
    """Return the small training file as a dict, with its images below ``root``."""
    return yaml.safe_load(TRAIN.replace('ROOT', str(root)))


def small_network():
    torch.manual_seed(0)
    return MSRResNet(num_feat=4, num_block=1, upscale=2)


def test_options(root, checkpoint):
    """Return the small test file as a dict."""
    opt = train_options(root)
    benchmark = opt['datasets']['val']
    opt['datasets'] = {'test_1': benchmark, 'test_2': dict(copy.deepcopy(benchmark), name='Other')}
    opt['path'] = {'pretrain_network_g': str(checkpoint), 'param_key_g': 'params', 'strict_load_g': True}
    for key in ('train', 'logger', 'dist_params'):
        del opt[key]
    opt['val'] = {'save_img': True, 'suffix': None, 'metrics': opt['val']['metrics']}
    return opt


test_options.__test__ = False


def write_options(path, opt):
    """Write options to ``path``, as YAML if they are a dict; return the path as a string."""
    text = yaml.safe_dump(opt, sort_keys=False) if isinstance(opt, dict) else opt
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def parse_run(root_path, is_train, *argv):
    """Return the options of a run, as ``train`` and ``test`` parse them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, 'argv', ['x', '-opt', *map(str, argv)])
        run = Run()
        with run.held:
            return run.parse_options(str(root_path), is_train)[0]
