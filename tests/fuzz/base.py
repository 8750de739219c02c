"""The folder that each case gets a copy of: option files, data, networks, and what each command made of them."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from basicsr.archs.srresnet_arch import MSRResNet

from lkdn_basicsr import reparam
from lkdn_basicsr.data.prepare.store_writer import StoreWriter
from lkdn_basicsr.evaluate import complexity
from tests.fuzz.process import run_command
from tests.support.images import prepare
from tests.support.networks import save_checkpoint, small_lkdn
from tests.support.runs import BASICSR_DATASETS, change, write, write_run

VALIDATION = ['name=held', 'dataroot_gt=sets/held/GTmod2', 'dataroot_lq=sets/held/LRbicx2']
TRAIN = [f'datasets:val:{setting}' for setting in VALIDATION]
TRAIN += ['train:total_iter=3', 'val:val_freq=2', 'val:save_img=true', 'logger:save_checkpoint_freq=1']
TEST = [f'datasets:test_1:{setting}' for setting in VALIDATION]
TEST += ['path:pretrain_network_g=lkdn.pth', 'path:param_key_g=params']
RAW = ['datasets:train:dataroot_gt=raw/HR.lmdb', 'datasets:train:dataroot_lq=raw/LR_bicubic_X2.lmdb']
RAW += ['datasets:train:io_backend:type=raw', 'datasets:train:num_worker_per_gpu=1']
LMDB = ['datasets:train:dataroot_gt=png/HR_sub.lmdb', 'datasets:train:dataroot_lq=png/LR_bicubic_X2_sub.lmdb']
LMDB += ['datasets:train:io_backend:type=lmdb']
BASICSR = ['network_g={type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 1, upscale: 2}']
BASICSR += ['model_type=SRModel', 'path:pretrain_network_g=msrresnet.pth']
OPTION_FILES = {  # name: the file that it is made from, and settings
    'raw.yml': ('train.yml', RAW),
    'lmdb.yml': ('train.yml', LMDB),
    'pretrained.yml': ('train.yml', ['path:pretrain_network_g=lkdn.pth']),
    'basicsr.yml': ('train.yml', [*BASICSR, *BASICSR_DATASETS]),
    'basicsr_lmdb.yml': ('train.yml', [*BASICSR, *BASICSR_DATASETS, *LMDB]),
    'test_fused.yml': ('test.yml', ['path:pretrain_network_g=fused.pth', 'path:param_key_g=~']),
    'test_basicsr.yml': ('test.yml', [*BASICSR, 'datasets:test_1:type=PairedImageDataset']),
}

# Downloads fail at once; the user's home and GPUs do not matter.
ENVIRONMENT = dict(http_proxy='http://127.0.0.1:9', https_proxy='http://127.0.0.1:9', CUDA_VISIBLE_DEVICES='')
ENVIRONMENT |= dict(HOME='/nonexistent', TORCH_HOME='/nonexistent')


def build(folder: Path) -> None:
    """Fill ``folder``, which is the current one; needs a process of its own."""
    write_run(folder)
    (folder / 'sets').mkdir()
    (folder / 'val').rename(folder / 'sets/held')
    for old, new in (('gt', 'GTmod2'), ('lq', 'LRbicx2')):
        (folder / 'sets/held' / old).rename(folder / 'sets/held' / new)
    prepare('raw', 'train/gt', 'train/lq', scales=(2,))
    prepare('png', 'train/gt', 'train/lq', scales=(2,), format='png', crop_size=16, step=16)
    with patch.object(StoreWriter, 'finish', side_effect=KeyboardInterrupt), suppress(KeyboardInterrupt):
        prepare('interrupted', 'train/gt', 'train/lq', scales=(2,))

    network = small_lkdn(upscale=2, conv='BSConvU_rep', upsampler='pixelshuffle_rep')
    save_checkpoint(network, 'lkdn.pth')
    save_checkpoint(reparam.fuse(network), 'fused.pth', key=None)
    save_checkpoint(MSRResNet(num_feat=4, num_block=1, upscale=2), 'msrresnet.pth')

    change(folder, *TRAIN)
    change(folder, *TEST, file='test.yml')
    for name, (source, settings) in OPTION_FILES.items():
        shutil.copy(source, name)
        change(folder, *settings, file=name)
    write('derived.yml', dict(base='train.yml', datasets=dict(train=dict(gt_size=8), val=None)))
    (folder / 'table').mkdir()
    write('table/1_a.yml', dict(base='../train.yml', name='a'))


EARLIER_RUNS = (  # of commands, executed one after the other
    'train -opt train.yml --force_yml train:total_iter=2',
    'train -opt train.yml --force_yml train:total_iter=2 name=other',
    'test -opt test.yml',
    'study.__main__ table --iters 2 --out study',
    'compare --models lkdn.pth fused.pth --sets sets/held --scale 2 --out comparison',
)


def run(arguments: list[str]) -> None:
    """Run a command of ``lkdn_basicsr`` in this process, measuring networks for a small output."""
    os.environ |= ENVIRONMENT
    complexity.OUTPUT = (64, 96)  # 1280×720 takes a second on a CPU
    run_command(f'lkdn_basicsr.{arguments[0]}', arguments[1:])
