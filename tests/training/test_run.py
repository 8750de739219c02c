"""Training and testing from option files, as a user starts them, on tiny images."""

import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.data import build_dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.data.prepare.stores import StoreOptions, prepare_folder
from lkdn_basicsr.data.sampler import SeededDataset
from lkdn_basicsr.errors import printable
from lkdn_basicsr.options import option_file
from tests.support.images import edit_png, flipped, missing_rows
from tests.support.runs import BASICSR, ROOT, change, damage, log, reset_log, run, snapshot, train, write, write_run
from tests.support.system import as_nobody, disk


def test_training_runs_exactly_total_iter_iterations_and_ends_with_a_fused_network(home, monkeypatch):
    # Five images in batches of three: BasicSR's own loop stops at iteration 4 of 7, and validates "at" 8.
    assert train(monkeypatch) is None
    assert re.findall(r'iter: +(\d+)', log(home))[-7:] == list('1234567')
    events = EventAccumulator(str(home / 'tb_logger/run')).Reload()
    assert [event.step for event in events.Scalars('metrics/val/psnr')] == [4, 7]
    models = {path.name for path in (home / 'experiments/run/models').iterdir()}
    names = ('net_g_4', 'net_g_7', 'net_g_best', 'net_g_latest')
    assert models == {f'{name}{form}.pth' for name in names for form in ('', '_fused')}


def test_training_form_and_fused_give_the_same_result(home, monkeypatch):
    train(monkeypatch)
    assert run(monkeypatch, 'test', '-opt', 'test.yml') is None
    fused = ['name=fused', 'network_g:conv=BSConvU', 'network_g:upsampler=pixelshuffledirect']
    fused += ['path:param_key_g=params', 'path:pretrain_network_g=experiments/run/models/net_g_latest_fused.pth']
    assert run(monkeypatch, 'test', '-opt', 'test.yml', '--force_yml', *fused) is None
    images = [cv2.imread(f'results/{name}/visualization/val/00_{name}.png') for name in ('tested', 'fused')]
    assert np.array_equal(*images) and images[0].shape == (32, 32, 3)


def python(home, code, *arguments):
    """Run a script of a user in a process of its own; return what it prints."""
    (home / 'launch.py').write_text(code)
    options = dict(capture_output=True, text=True, timeout=300, env={'PATH': '', 'PYTHONPATH': str(ROOT)})
    done = subprocess.run([sys.executable, 'launch.py', *arguments], cwd=home, **options)
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
def test_train_pipeline_in_a_launcher_of_a_user_that_spawns_workers(home):
    more = ['datasets:train:num_worker_per_gpu=1', 'datasets:train:dataset_enlarge_ratio=9']  # one epoch
    python(home, LAUNCHER.format(package='lkdn_basicsr'), '-opt', 'train.yml', '--force_yml', *more)
    assert re.findall(r'iter: +(\d+)', log(home))[-1] == '7'
    assert (home / 'experiments/run/training_states/7.state').exists()


@pytest.mark.slow
@pytest.mark.parametrize('classes', [BASICSR, []], ids=['SRModel', 'ReparamSRModel'])
def test_basicsrs_own_pipeline_trains_with_its_own_behavior(home, classes):
    """``basicsr.train.train_pipeline`` with our network, optimizer, dataset and model class."""
    change(home, *classes, 'datasets:val:num_worker_per_gpu=0', 'datasets:val:batch_size_per_gpu=3')
    python(home, LAUNCHER.format(package='basicsr.train'), '-opt', 'train.yml')
    # Five images in batches of three: BasicSR counts two iterations per epoch, does one, and stops at the fifth of 7.
    assert re.findall(r'iter: +(\d+), lr', log(home)) == list('12345')
    saved = torch.load('experiments/run/models/net_g_latest.pth', weights_only=True)
    assert {'params', 'params_ema'} <= saved.keys()
    assert set(torch.load('experiments/run/training_states/4.state')) == {'epoch', 'iter', 'optimizers', 'schedulers'}
    assert (home / 'experiments/run/models/net_g_latest_fused.pth').exists() is (not classes)


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


@pytest.mark.slow
def test_import_replaces_three_names_in_basicsr(home):
    """Each is in ``compat.py`` with its reason; everything else belongs to a ``Run``."""
    assert eval(python(home, REPLACED)) == [
        'basicsr.models.base_model.BaseModel.get_optimizer',
        'basicsr.models.base_model.BaseModel.model_to_device',
        'basicsr.utils.dist_util._init_dist_pytorch',
    ]


@pytest.mark.slow
def test_provided_modules_have_the_contents_of_the_real_ones(home):
    code = """
import lkdn_basicsr
from scipy.ndimage.filters import convolve, gaussian_filter
from torchvision.transforms.functional_tensor import convert_image_dtype, rgb_to_grayscale
import scipy.ndimage
print(gaussian_filter is scipy.ndimage.gaussian_filter)
"""
    assert python(home, code) == 'True\n'


@pytest.mark.slow
def test_basicsr_dataset_reaches_a_process_that_has_imported_nothing(home):
    """As a spawned worker of a launcher that imports this package below ``if __name__ == '__main__'``."""
    options = yaml.safe_load((home / 'train.yml').read_text())['datasets']['val']
    dataset = build_dataset(options | dict(type='PairedImageDataset', scale=2, phase='val'))
    (home / 'pickled').write_bytes(pickle.dumps(SeededDataset(dataset)))
    assert python(home, 'import pickle; print(len(pickle.load(open("pickled", "rb"))))') == '2\n'


@pytest.mark.slow
def test_help():
    command = [sys.executable, '-m', 'lkdn_basicsr.train', '--help']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and '--auto_resume' in done.stdout and done.stderr == ''


def check_refused(home, monkeypatch, task, file, message):
    (home / 'experiments/run').mkdir(parents=True)  # an earlier run, which is not moved
    before = snapshot(home)
    status = run(monkeypatch, task, '-opt', file)
    assert isinstance(status, str) and '\n' not in status  # sys.exit(message): on stderr, status 1
    assert re.search(message, status), status
    assert snapshot(home) == before


@pytest.mark.parametrize('file', ['none.yml', 'empty.yml', 'train/gt/00.png'])
def test_invalid_option_file_is_reported_in_one_line(home, monkeypatch, file):
    (home / 'empty.yml').touch()
    check_refused(home, monkeypatch, 'train', file, file)


@pytest.mark.parametrize(
    'task, changes, message',
    [
        ('train', ['network_g:type=LKDM'], 'LKDM.*LKDN'),
        ('train', ['model_type=ReparamSRmodel'], 'ReparamSRmodel.*ReparamSRModel'),
        ('train', ['datasets:train:type=PairedCropDataSet'], 'PairedCropDataSet.*PairedCropDataset'),
        ('train', ['network_g:num_fea=8'], 'num_fea.*num_feat'),
        ('train', ['train:optim_g:beta=[0.9, 0.9, 0.9]'], 'beta.*betas'),
        ('train', ['datasets:train:dataroot_gt=nowhere'], 'nowhere'),
        ('train', ['datasets:train:dataroot_gt=empty', 'datasets:train:dataroot_lq=empty'], 'empty'),
        ('train', ['datasets:train:dataroot_lq=val/lq'], 'train|val'),
        ('train', ['datasets:train:dataroot_lq=train/gt'], '32'),
        ('train', ['datasets:train:gt_size=64'], 'gt_size'),
        ('train', ['datasets:train:batch_size_per_gpu=6'], 'batch_size_per_gpu'),
        ('train', ['path:pretrain_network_g=none.pth'], 'none.pth'),
        ('train', ['path:pretrain_network_g=short.pth'], 'short.pth'),
        ('train', ['path:pretrain_network_g=other.pth'], 'other.pth'),
        ('train', ['path:pretrain_network_g=nan.pth'], 'nan.pth.*B1.c4.pw.weight.*NaN'),
        ('test', ['path:pretrain_network_g=nan.pth'], 'nan.pth.*B1.c4.pw.weight.*NaN'),
        ('test', ['path:pretrain_network_g=other.pth'], 'other.pth'),
        ('test', ['path:pretrain_network_g=damaged.pth'], 'damaged.pth'),
        ('test', ['path:pretrain_network_g=~'], 'pretrain_network_g'),
    ],
)
def test_invalid_option_is_reported_in_one_line(home, monkeypatch, task, changes, message):
    (home / 'empty').mkdir()
    torch.save({'params': torch.nn.Conv2d(3, 3, 1).state_dict()}, 'other.pth')
    weights = build_network(yaml.safe_load(Path('train.yml').read_text())['network_g']).state_dict()
    weights['B1.c4.pw.weight'][3] = float('nan')
    torch.save({'params': weights}, 'nan.pth')
    (home / 'short.pth').write_bytes((home / 'other.pth').read_bytes()[:500])
    torch.save({'params': {'w': torch.zeros(5000)}}, 'damaged.pth')
    damage(home / 'damaged.pth')
    change(home, *changes, file=f'{task}.yml')
    check_refused(home, monkeypatch, task, f'{task}.yml', message)


def test_flat_checkpoint_starts_a_training_of_srmodel_with_ema(home, monkeypatch):
    weights = build_network(yaml.safe_load(Path('train.yml').read_text())['network_g']).state_dict()
    torch.save(weights, 'flat.pth')
    change(home, 'path:pretrain_network_g=flat.pth', 'path:param_key_g=~', *BASICSR, 'train:total_iter=1')
    change(home, 'train:optim_g:lr=1.0e-30')
    assert train(monkeypatch) is None
    saved = torch.load('experiments/run/models/net_g_latest.pth', weights_only=True)
    for key in ('params', 'params_ema'):
        torch.testing.assert_close(saved[key], weights, rtol=1e-6, atol=1e-20)  # float32


@pytest.mark.parametrize('contents', [b'not an image', b'', None], ids=['text', 'empty', 'flipped byte'])
@pytest.mark.parametrize('role', ['gt', 'lq'])
def test_damaged_image_is_reported_in_one_line(home, monkeypatch, contents, role):
    path = home / 'train' / role / '03.png'
    damage(path) if contents is None else path.write_bytes(contents)
    check_refused(home, monkeypatch, 'train', 'train.yml', '03.png')


OUTPUTS = [('train', 'experiments'), ('train', 'tb_logger'), ('test', 'results')]


def check_not_writable(home, monkeypatch, task, message, *arguments):
    """Check that a run is refused with a message, and that nothing is changed."""
    before = snapshot(home)
    for check in ([], ['--check']):
        assert run(monkeypatch, task, '-opt', f'{task}.yml', *check, *arguments) == message
        assert snapshot(home) == before


@pytest.mark.parametrize('task, folder', OUTPUTS)
def test_file_in_place_of_a_folder_is_refused(home, monkeypatch, task, folder):
    (home / 'experiments/run').mkdir(parents=True) if folder == 'tb_logger' else None  # would be moved aside
    (home / folder).touch()
    reason = 'a part of this path is a file, not a folder; rename that file, or use another path'
    check_not_writable(home, monkeypatch, task, f'python -m lkdn_basicsr.{task}: error: {home}/{folder}: {reason}')


@pytest.mark.parametrize('task, folder', OUTPUTS)
def test_folder_of_another_user_is_refused(monkeypatch, task, folder):
    with tempfile.TemporaryDirectory() as home:  # pytest's folders are closed to other users
        write_run(Path(home))
        os.chmod(home, 0o755)
        monkeypatch.chdir(home)
        run(monkeypatch, 'train', '-opt', 'train.yml', '--check')  # imports what the other user may not read
        Path('experiments').mkdir(mode=0o777)
        Path('experiments').chmod(0o777)  # so that an earlier run could be moved aside
        Path('experiments/run/models').mkdir(parents=True)
        Path(folder).mkdir(exist_ok=True)
        Path(folder).chmod(0o755)
        message = f'python -m lkdn_basicsr.{task}: error: {home}/{folder}'
        reason = 'permission denied; change its permissions, or use another path'
        with as_nobody():
            check_not_writable(Path(home), monkeypatch, task, f'{message}: {reason}')
            if folder == 'experiments':
                check_not_writable(Path(home), monkeypatch, task, f'{message}/run/models: {reason}', '--auto_resume')


@pytest.mark.parametrize(
    'options, reason',
    [('ro', 'the file system is read-only; use another path'), ('size=4k', 'the disk is full; free some space')],
)
@pytest.mark.parametrize('task, folder', OUTPUTS)
def test_disk_that_cannot_be_written_to_is_refused(home, monkeypatch, task, folder, options, reason):
    with disk(home / folder, options):
        if options != 'ro':
            (home / folder / 'full').write_bytes(bytes(4096))
        check_not_writable(home, monkeypatch, task, f'python -m lkdn_basicsr.{task}: error: {home}/{folder}: {reason}')


@pytest.mark.parametrize('folder, file', [('tb_logger', 'run'), ('experiments', 'run/models/net_g_4.pth')])
def test_disk_that_fills_up_ends_a_training_in_one_line(home, monkeypatch, capfd, folder, file):
    with disk(home / folder, 'size=8k' if folder == 'tb_logger' else 'size=60k'):
        status = train(monkeypatch)
        assert status == (
            f'python -m lkdn_basicsr.train: error: {home}/{folder}/{file}: the disk is full; free some space, then '
            'resume with --auto_resume: earlier checkpoints are intact'
        )
        reset_log()
    assert 'Traceback' not in capfd.readouterr().err


def test_disk_that_fills_up_with_the_log_ends_a_test_in_one_line(home, monkeypatch, capfd):
    train(monkeypatch)
    reset_log()
    with disk(home / 'results', 'size=8k'):
        status = run(monkeypatch, 'test', '-opt', 'test.yml')
        reset_log()
    assert re.search(r'error: \S+/results/tested/test_tested_\d+_\d+\.log: the disk is full; free some space$', status)
    assert 'Logging error' not in capfd.readouterr().err


def test_files_that_may_not_be_read_are_reported(monkeypatch):
    with tempfile.TemporaryDirectory() as home:
        write_run(Path(home))
        os.chmod(home, 0o777)
        monkeypatch.chdir(home)
        run(monkeypatch, 'train', '-opt', 'train.yml', '--check')  # imports what the other user may not read
        torch.save({'params': {}}, 'net.pth')
        for folder in ('models', 'training_states'):
            Path('experiments/run', folder).mkdir(parents=True)
        for folder in ('experiments', 'experiments/run', 'experiments/run/models'):
            Path(folder).chmod(0o777)
        for path, arguments in (
            ('train.yml', []),
            ('net.pth', ['--force_yml', 'path:pretrain_network_g=net.pth']),
            ('train', []),
            ('train/gt', []),
            ('train/gt/00.png', []),
            ('experiments/run', ['--auto_resume']),  # would be moved aside
            ('experiments/run/training_states', ['--auto_resume']),
        ):
            mode = os.stat(path).st_mode
            os.chmod(path, 0)
            with as_nobody():
                status = run(monkeypatch, 'train', '-opt', 'train.yml', *arguments)
            os.chmod(path, mode)
            assert path in status and re.search('permission denied|Permission denied', status), status


def test_option_file_of_any_name(home, monkeypatch):
    for number, name in enumerate((os.fsdecode(b'a\xff\nb.yml'), 'n' * 251 + '.yml')):
        shutil.copy('train.yml', name)
        reset_log()
        assert run(monkeypatch, 'train', '-opt', name, '--force_yml', f'name=run{number}', 'train:total_iter=1') is None
        copy = (home / f'experiments/run{number}' / name).read_text()
        assert f'\n# train -opt {printable(name)} --force_yml' in copy
        assert yaml.safe_load(copy)['name'] == 'run'


@pytest.mark.parametrize('task, folder', [('train', 'experiments/run'), ('test', 'results/tested')])
def test_effective_options_are_next_to_the_log_and_start_the_same_run(home, monkeypatch, capsys, task, folder):
    """They do not need the base of the option file."""
    if task == 'test':
        train(monkeypatch)
    (home / 'options').mkdir()
    changes = dict(train=dict(total_iter=2)) if task == 'train' else dict(val=dict(save_img=False))
    write(home / 'options/variant.yml', dict(base=f'../{task}.yml', **changes))
    assert run(monkeypatch, task, '-opt', 'options/variant.yml', '--check') == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'No problems found.'
    reset_log()
    assert run(monkeypatch, task, '-opt', 'options/variant.yml', '--force_yml', 'manual_seed=3') is None
    (effective,) = home.glob(f'{folder}/{task}_*.yml')
    text = effective.with_suffix('.log').read_text().replace(f'{home}/', '')
    assert f'The options in effect are in {effective.relative_to(home)}' in text
    written = option_file.read_option_file(str(effective)).opt
    assert written['manual_seed'] == 3 and written['val']['metrics']['psnr']['type'] == 'calculate_psnr'
    assert 'experiments_root' not in written['path']
    for k, copy in enumerate([effective] + ([home / folder / 'variant.yml'] if task == 'train' else [])):
        assert 'base:' not in shutil.copy(copy, home / 'copy.yml').read_text()
        reset_log()
        assert run(monkeypatch, task, '-opt', 'copy.yml', '--force_yml', f'name=copy{k}') is None
        if task == 'train':
            assert 'total_iter: 2\n' in log(home, f'experiments/copy{k}/train_*.log')


def test_differences_from_the_shipped_file_are_logged(home, monkeypatch):
    (home / 'shipped').mkdir()
    shutil.copy('train.yml', 'shipped')
    monkeypatch.setattr(option_file, 'SHIPPED_FOLDER', str(home / 'shipped'))
    train(monkeypatch, '--force_yml', 'train:total_iter=2')
    assert 'Differences from the shipped option file:\n\ttrain:total_iter: 2 (shipped: 7)\n' in log(home)


@pytest.mark.parametrize('kind', ['raw', 'png', 'folder'])
def test_a_run_ends_with_the_name_of_a_damaged_image_that_no_check_decoded(home, monkeypatch, kind):
    monkeypatch.setattr('lkdn_basicsr.options.check_data.DECODE_BELOW', 0)
    monkeypatch.setattr(
        'lkdn_basicsr.data.raw_store.run_in_background', lambda function, *arguments: function(*arguments)
    )
    train_options = dict(dataroot_gt='train/gt', dataroot_lq='train/lq', io_backend=dict(type='disk'))
    if kind != 'folder':
        options = StoreOptions(scales=(2,), workers=1, format=kind, crop_size=32, step=32)
        gt, lq = prepare_folder('stores', 'train/gt', options=options)
        train_options = dict(dataroot_gt=gt, dataroot_lq=lq, io_backend=dict(type='lmdb'))
        key = b'00000003' if kind == 'raw' else b'03_s001'
        begin, size = locate(f'{gt}/data.mdb')[0][key]
        Path(gt, 'data.mdb').write_bytes(flipped(Path(gt, 'data.mdb').read_bytes(), begin + size // 2))
    else:
        Path('train/gt/03.png').write_bytes(edit_png(Path('train/gt/03.png').read_bytes(), missing_rows))
    if kind != 'raw':
        change(home, model_type='SRModel', datasets__val__type='PairedImageDataset')
    train_options['type'] = 'PairedCropDataset' if kind == 'raw' else 'PairedImageDataset'
    change(home, **{f'datasets__train__{key}': value for key, value in train_options.items()}, manual_seed=1)
    status = train(monkeypatch)
    assert '\n' not in status and re.search('Image 3 .03. of|03_s001 of the dataset|gt/03.png is damaged', status)
