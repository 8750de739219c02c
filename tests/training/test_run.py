"""Training and testing from option files, as a user starts them, on tiny images."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.data import build_dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lkdn_basicsr import archs
from lkdn_basicsr.data.sampler import SeededDataset
from tests.support.runs import ROOT, damage, dataset_options, log, reset_log, run, snapshot, write


def test_training_runs_exactly_total_iter_iterations_and_ends_with_a_fused_network(home, monkeypatch):
    # Five images in batches of three: BasicSR's own loop stops at iteration 4 of 7, and validates "at" 8.
    assert run(monkeypatch, 'train', '-opt', 'train.yml') is None
    text = log(home)
    assert re.findall(r'iter: +(\d+)', text)[-7:] == list('1234567')
    events = EventAccumulator(str(home / 'tb_logger/run')).Reload()
    assert [event.step for event in events.Scalars('metrics/val/psnr')] == [4, 7]
    models = {path.name for path in (home / 'experiments/run/models').iterdir()}
    names = ('net_g_4', 'net_g_7', 'net_g_best', 'net_g_latest')
    assert models == {f'{name}{form}.pth' for name in names for form in ('', '_fused')}


def test_training_form_and_fused_give_the_same_result(home, monkeypatch):
    run(monkeypatch, 'train', '-opt', 'train.yml')
    assert run(monkeypatch, 'test', '-opt', 'test.yml') is None
    fused = [
        'name=fused',
        'network_g:conv=BSConvU',
        'network_g:upsampler=pixelshuffledirect',
        'path:param_key_g=params',
        'path:pretrain_network_g=experiments/run/models/net_g_latest_fused.pth',
    ]
    assert run(monkeypatch, 'test', '-opt', 'test.yml', '--force_yml', *fused) is None
    images = [cv2.imread(f'results/{name}/visualization/val/00_{name}.png') for name in ('tested', 'fused')]
    assert np.array_equal(*images) and images[0].shape == (32, 32, 3)


def test_training_resumes_exactly(home, monkeypatch):
    run(monkeypatch, 'train', '-opt', 'train.yml')
    complete = torch.load('experiments/run/models/net_g_latest.pth', weights_only=True)
    (home / 'experiments/run/training_states/7.state').unlink()
    assert run(monkeypatch, 'train', '-opt', 'train.yml', '--auto_resume') is None
    resumed = torch.load('experiments/run/models/net_g_latest.pth', weights_only=True)
    for key in ('params', 'params_ema'):
        assert all(torch.equal(value, complete[key][name]) for name, value in resumed[key].items())
    assert not list((home / 'experiments').glob('*archived*'))


def python(home, code, *arguments):
    """Run a script of a user in a process of its own; return what it prints."""
    (home / 'launch.py').write_text(code)
    done = subprocess.run(
        [sys.executable, 'launch.py', *arguments],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        env={'PATH': '', 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


LAUNCHER = """
import multiprocessing

import lkdn_basicsr
import basicsr.train

if __name__ == '__main__':
    multiprocessing.set_start_method('spawn')
    {package}.train_pipeline('.')
"""


@pytest.mark.slow
def test_own_launcher_gets_all_guarantees(home):
    """``lkdn_basicsr.train_pipeline``, with workers that are spawned."""
    more = ['datasets:train:num_worker_per_gpu=1', 'datasets:train:dataset_enlarge_ratio=9']  # one epoch
    python(home, LAUNCHER.format(package='lkdn_basicsr'), '-opt', 'train.yml', '--force_yml', *more)
    assert re.findall(r'iter: +(\d+)', log(home))[-1] == '7'
    assert (home / 'experiments/run/training_states/7.state').exists()


@pytest.mark.slow
@pytest.mark.parametrize('model, data', [('SRModel', 'PairedImageDataset'), ('ReparamSRModel', 'PairedCropDataset')])
def test_basicsrs_own_pipeline_trains_with_its_own_behavior(home, model, data):
    """``basicsr.train.train_pipeline`` with our network, optimizer, dataset and model class."""
    options = yaml.safe_load((home / 'train.yml').read_text())
    options.update(model_type=model)
    for phase in ('train', 'val'):
        options['datasets'][phase].update(type=data, num_worker_per_gpu=0, batch_size_per_gpu=3)
    write(home / 'train.yml', options)
    python(home, LAUNCHER.format(package='basicsr.train'), '-opt', 'train.yml')
    # Five images in batches of three: BasicSR counts two iterations per epoch, does one, and stops at the fifth of 7.
    assert re.findall(r'iter: +(\d+), lr', log(home)) == list('12345')
    saved = torch.load('experiments/run/models/net_g_latest.pth', weights_only=True)
    assert {'params', 'params_ema'} <= saved.keys()
    assert set(torch.load('experiments/run/training_states/4.state')) == {'epoch', 'iter', 'optimizers', 'schedulers'}
    assert (home / 'experiments/run/models/net_g_latest_fused.pth').exists() is (model == 'ReparamSRModel')


REPLACED = """
import importlib, inspect, sys, types
import torchvision.transforms._functional_tensor as functional_tensor
sys.modules['torchvision.transforms.functional_tensor'] = functional_tensor  # without it, BasicSR does not import
import basicsr

def names():
    found = {}
    for module in [value for name, value in sys.modules.items() if name.split('.')[0] == 'basicsr']:
        for key, value in vars(module).items():
            found[f'{module.__name__}.{key}'] = value
            if inspect.isclass(value) and value.__module__ == module.__name__:
                found.update({f'{module.__name__}.{key}.{name}': entry for name, entry in vars(value).items()})
    return found

before = names()
import lkdn_basicsr
after = names()
print(sorted(name for name in before if after.get(name) is not before[name] and not name.endswith('__')))
"""


def test_import_replaces_three_names_in_basicsr(home):
    """Each is in ``compat.py`` with its reason; everything else belongs to a ``Run``."""
    assert eval(python(home, REPLACED)) == [
        'basicsr.models.base_model.BaseModel.get_optimizer',
        'basicsr.models.base_model.BaseModel.model_to_device',
        'basicsr.utils.dist_util._init_dist_pytorch',
    ]


def test_provided_modules_have_the_contents_of_the_real_ones(home):
    code = """
import lkdn_basicsr
from scipy.ndimage.filters import convolve, gaussian_filter
from torchvision.transforms.functional_tensor import convert_image_dtype, rgb_to_grayscale
import scipy.ndimage
print(gaussian_filter is scipy.ndimage.gaussian_filter)
"""
    assert python(home, code) == 'True\n'


def test_basicsr_dataset_reaches_a_process_that_has_imported_nothing(home):
    """As a spawned worker of a launcher that imports this package below ``if __name__ == '__main__'``."""
    options = dataset_options('val', scale=2, phase='val')
    options['type'] = 'PairedImageDataset'
    (home / 'pickled').write_bytes(pickle.dumps(SeededDataset(build_dataset(options))))
    assert python(home, 'import pickle; print(len(pickle.load(open("pickled", "rb"))))') == '2\n'


def test_help(home):
    done = subprocess.run(
        [sys.executable, '-m', 'lkdn_basicsr.train', '--help'], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and '--auto_resume' in done.stdout and done.stderr == ''


@pytest.mark.parametrize(
    'task, arguments, names',
    [
        ('train', ['-opt', 'none.yml'], 'none.yml'),
        ('train', ['-opt', 'empty.yml'], 'empty.yml'),
        ('train', ['-opt', 'train/gt/00.png'], '00.png'),
        ('train', ['network_g:type=LKDM'], 'LKDM.*LKDN'),
        ('train', ['model_type=ReparamSRmodel'], 'ReparamSRmodel.*ReparamSRModel'),
        ('train', ['train:optim_g:type=Adann'], 'Adann.*Adan'),
        ('train', ['train:pixel_opt:type=L1loss'], 'L1loss.*L1Loss'),
        ('train', ['val:metrics:psnr:type=calculate_psnrr'], 'calculate_psnrr.*calculate_psnr'),
        ('train', ['datasets:train:type=PairedCropDataSet'], 'PairedCropDataSet.*PairedCropDataset'),
        ('train', ['network_g:num_fea=8'], 'num_fea.*num_feat'),
        ('train', ['train:optim_g:beta=[0.9, 0.9, 0.9]'], 'beta.*betas'),
        ('train', ['datasets:train:dataroot_gt=nowhere'], 'nowhere'),
        ('train', ['datasets:train:dataroot_gt=empty', 'datasets:train:dataroot_lq=empty'], 'empty'),
        ('train', ['datasets:train:dataroot_lq=val/lq'], 'train|val'),
        ('train', ['datasets:train:dataroot_lq=train/gt'], '32'),
        ('train', ['datasets:train:gt_size=64'], 'gt_size'),
        ('train', ['datasets:train:gt_size=15'], 'gt_size'),
        ('train', ['datasets:train:batch_size_per_gpu=6'], 'batch_size_per_gpu'),
        ('train', ['path:pretrain_network_g=none.pth'], 'none.pth'),
        ('train', ['path:pretrain_network_g=short.pth'], 'short.pth'),
        ('train', ['path:pretrain_network_g=other.pth'], 'other.pth'),
        (
            'train',
            [
                'path:pretrain_network_g=flat.pth',
                'path:param_key_g=~',
                'model_type=SRModel',
                'datasets:train:type=PairedImageDataset',
                'datasets:val:type=PairedImageDataset',
            ],
            'flat.*ReparamSRModel',
        ),
        ('test', ['path:pretrain_network_g=other.pth'], 'other.pth'),
        ('test', ['path:pretrain_network_g=damaged.pth'], 'damaged.pth'),
        ('test', ['path:pretrain_network_g=~'], 'pretrain_network_g'),
    ],
)
def test_invalid_input_is_one_line_and_changes_nothing(home, monkeypatch, capsys, task, arguments, names):
    (home / 'empty.yml').touch()
    (home / 'empty').mkdir()
    torch.save({'params': torch.nn.Conv2d(3, 3, 1).state_dict()}, 'other.pth')
    torch.save(
        archs.LKDN(
            num_feat=8, num_atten=8, num_block=1, upscale=2, conv='BSConvU_rep', upsampler='pixelshuffle_rep'
        ).state_dict(),
        'flat.pth',
    )
    data = (home / 'other.pth').read_bytes()
    (home / 'short.pth').write_bytes(data[: len(data) // 2])
    torch.save({'params': {'w': torch.zeros(5000)}}, 'damaged.pth')
    damage(home / 'damaged.pth')
    (home / 'experiments/run').mkdir(parents=True)  # an earlier run, which must stay where it is
    before = snapshot(home)

    if '-opt' not in arguments:
        # A key must be there to be set by --force_yml; the others are written into the file.
        options = yaml.safe_load(Path(f'{task}.yml').read_text())
        for argument in arguments:
            keys, value = argument.split('=', 1)
            *parents, last = keys.split(':')
            block = options
            for key in parents:
                block = block[key]
            block[last] = yaml.safe_load(value)
        write('wrong.yml', options)
        before = snapshot(home)
        arguments = ['-opt', 'wrong.yml']
    status = run(monkeypatch, task, *arguments)
    assert isinstance(status, str) and status.count('\n') == 0  # sys.exit(message): on stderr, status 1
    assert re.search(names, status), status
    assert snapshot(home) == before


@pytest.mark.parametrize('how', ['junk', 'cut short', 'flipped byte', 'zero bytes'])
@pytest.mark.parametrize('role', ['gt', 'lq'])
def test_damaged_image_is_named(home, monkeypatch, how, role):
    path = home / 'train' / role / '03.png'
    data = path.read_bytes()
    if how == 'flipped byte':
        damage(path)
    else:
        path.write_bytes({'junk': b'not an image', 'cut short': data[:-20], 'zero bytes': b''}[how])
    before = snapshot(home)
    status = run(monkeypatch, 'train', '-opt', 'train.yml')
    assert '03.png' in status and snapshot(home) == before


@pytest.mark.parametrize('task, folder', [('train', 'experiments/run'), ('test', 'results/tested')])
def test_option_file_with_a_base(home, monkeypatch, capsys, task, folder):
    """The merged options next to the log start the same run without the base."""
    if task == 'test':
        run(monkeypatch, 'train', '-opt', 'train.yml')
        reset_log()
    (home / 'options').mkdir()
    changes = dict(train=dict(total_iter=2)) if task == 'train' else dict(val=dict(save_img=False))
    write(home / 'options/variant.yml', dict(base=f'../{task}.yml', **changes))
    assert run(monkeypatch, task, '-opt', 'options/variant.yml', '--check') == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'nothing is wrong'
    reset_log()
    assert run(monkeypatch, task, '-opt', 'options/variant.yml') is None
    (effective,) = home.glob(f'{folder}/{task}_*.yml')
    copies = [effective] + ([home / folder / 'variant.yml'] if task == 'train' else [])
    for k, copy in enumerate(copies):
        text = copy.read_text()
        assert 'base:' not in text
        (home / 'copy.yml').write_text(text)
        reset_log()
        assert run(monkeypatch, task, '-opt', 'copy.yml', '--force_yml', f'name=copy{k}') is None
        if task == 'train':
            assert 'total_iter: 2\n' in log(home, f'experiments/copy{k}/train_*.log')
