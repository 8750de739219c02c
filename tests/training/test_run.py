"""Training and testing from option files, as a user starts them, on tiny pictures."""

import logging
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
from basicsr.utils.logger import initialized_logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lkdn_basicsr import archs, cli
from lkdn_basicsr.data import imresize

ROOT = Path(__file__).resolve().parents[2]


def make_pictures(folder, count, size=32):
    """Pairs at ×2 with some structure: ``gt`` and ``lq`` below ``folder``."""
    rng = np.random.default_rng(0)
    for name in ('gt', 'lq'):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        coarse = rng.integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8)
        gt = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'gt/{i:02}.png'), gt)
        cv2.imwrite(str(folder / f'lq/{i:02}.png'), imresize(gt, 1 / 2))


def data_set(folder, **more):
    return dict(
        name=folder,
        type='PairedCropDataset',
        dataroot_gt=f'{folder}/gt',
        dataroot_lq=f'{folder}/lq',
        io_backend=dict(type='disk'),
        **more,
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder to run in, with pictures and option files to train and to test."""
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    forget_the_log()
    yield tmp_path
    forget_the_log()


def furnish(folder):
    make_pictures(folder / 'train', 5)
    make_pictures(folder / 'val', 2)
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
                train=data_set(
                    'train',
                    gt_size=16,
                    use_hflip=True,
                    use_rot=True,
                    num_worker_per_gpu=0,
                    batch_size_per_gpu=3,
                    dataset_enlarge_ratio=1,
                ),
                val=data_set('val'),
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
            datasets=dict(test_1=data_set('val')),
            path=dict(pretrain_network_g='experiments/run/models/net_g_latest.pth', param_key_g='params_ema'),
            val=dict(save_img=True, metrics=metrics),
        ),
    )


def forget_the_log():
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


def test_training_runs_exactly_total_iter_iterations_and_ends_with_a_fused_network(home, monkeypatch):
    # Five pictures in batches of three: BasicSR's own loop stops at iteration 4 of 7, and validates "at" 8.
    assert run(monkeypatch, 'train', '-opt', 'train.yml') is None
    text = log(home)
    assert re.findall(r'iter: +(\d+)', text)[-7:] == list('1234567')
    events = EventAccumulator(str(home / 'tb_logger/run')).Reload()
    assert [event.step for event in events.Scalars('metrics/val/psnr')] == [4, 7]
    models = {path.name for path in (home / 'experiments/run/models').iterdir()}
    names = ('net_g_4', 'net_g_7', 'net_g_best', 'net_g_latest')
    assert models == {f'{name}{form}.pth' for name in names for form in ('', '_fused')}


def test_trained_network_is_tested_in_either_form_with_one_result(home, monkeypatch):
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
    pictures = [cv2.imread(f'results/{name}/visualization/val/00_{name}.png') for name in ('tested', 'fused')]
    assert np.array_equal(*pictures) and pictures[0].shape == (32, 32, 3)


def test_training_goes_on_where_it_was_left(home, monkeypatch):
    run(monkeypatch, 'train', '-opt', 'train.yml')
    whole = torch.load('experiments/run/models/net_g_latest.pth', weights_only=True)
    (home / 'experiments/run/training_states/7.state').unlink()
    assert run(monkeypatch, 'train', '-opt', 'train.yml', '--auto_resume') is None
    resumed = torch.load('experiments/run/models/net_g_latest.pth', weights_only=True)
    for key in ('params', 'params_ema'):
        assert all(torch.equal(value, whole[key][name]) for name, value in resumed[key].items())
    assert not list((home / 'experiments').glob('*archived*'))


@pytest.mark.parametrize('model, data', [('SRModel', 'PairedImageDataset'), ('ReparamSRModel', 'PairedCropDataset')])
def test_launcher_of_ones_own_gets_the_same(home, model, data):
    """BasicSR's ``train_pipeline`` after ``import lkdn_basicsr``, in workers that are spawned."""
    (home / 'launch.py').write_text("""
import multiprocessing
import sys

import lkdn_basicsr  # noqa: F401
from basicsr.train import train_pipeline

if __name__ == '__main__':
    multiprocessing.set_start_method('spawn')
    train_pipeline('.')
""")
    command = [
        sys.executable,
        'launch.py',
        '-opt',
        'train.yml',
        '--force_yml',
        f'model_type={model}',
        f'datasets:train:type={data}',
        f'datasets:val:type={data}',
        'datasets:train:num_worker_per_gpu=1',
        'datasets:train:dataset_enlarge_ratio=9',
    ]  # one epoch: each starts its workers anew, which takes seconds
    done = subprocess.run(
        command, cwd=home, capture_output=True, text=True, timeout=300, env={'PATH': '', 'PYTHONPATH': str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.findall(r'iter: +(\d+)', log(home))[-1] == '7'


def test_basicsr_data_set_reaches_a_process_that_has_imported_nothing(home):
    """As a spawned worker of a launcher that imports this package below ``if __name__ == '__main__'``."""
    options = data_set('val', scale=2, phase='val')
    options['type'] = 'PairedImageDataset'
    (home / 'pickled').write_bytes(pickle.dumps(build_dataset(options)))
    code = 'import pickle; print(len(pickle.load(open("pickled", "rb"))))'
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=300,
        env={'PATH': '', 'PYTHONPATH': str(ROOT)},
    )
    assert done.stdout == '2\n', done.stderr[-2000:]


def test_help_does_not_wait_for_torch():
    command = [sys.executable, '-X', 'importtime', '-m', 'lkdn_basicsr.train', '--help']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and '--auto_resume' in done.stdout
    assert not re.search(r'\b(torch|numpy|cv2|basicsr)\b$', done.stderr, re.MULTILINE)


def snapshot(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in sorted(folder.rglob('*'))}


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


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
def test_bad_input_is_one_sentence_and_changes_nothing(home, monkeypatch, capsys, task, arguments, names):
    (home / 'empty.yml').touch()
    (home / 'empty').mkdir()
    torch.save({'params': torch.nn.Conv2d(3, 3, 1).state_dict()}, 'other.pth')
    torch.save(
        archs.LKDN(
            num_feat=8, num_atten=8, num_block=1, upscale=2, conv='BSConvU_rep', upsampler='pixelshuffle_rep'
        ).state_dict(),
        'flat.pth',
    )
    whole = (home / 'other.pth').read_bytes()
    (home / 'short.pth').write_bytes(whole[: len(whole) // 2])
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
    assert isinstance(status, str) and status.count('\n') == 0  # sys.exit(sentence): on stderr, status 1
    assert re.search(names, status), status
    assert snapshot(home) == before


@pytest.mark.parametrize('how', ['junk', 'cut short', 'flipped byte', 'zero bytes'])
@pytest.mark.parametrize('role', ['gt', 'lq'])
def test_corrupt_picture_is_named(home, monkeypatch, how, role):
    path = home / 'train' / role / '03.png'
    data = path.read_bytes()
    if how == 'flipped byte':
        damage(path)
    else:
        path.write_bytes({'junk': b'not a picture', 'cut short': data[:-20], 'zero bytes': b''}[how])
    before = snapshot(home)
    status = run(monkeypatch, 'train', '-opt', 'train.yml')
    assert '03.png' in status and snapshot(home) == before


@pytest.mark.parametrize('task, folder', [('train', 'experiments/run'), ('test', 'results/tested')])
def test_option_file_with_a_base(home, monkeypatch, capsys, task, folder):
    """Run from a file in a folder of its own; what is left beside the log stands alone, and starts the same run."""
    if task == 'test':
        run(monkeypatch, 'train', '-opt', 'train.yml')
        forget_the_log()
    (home / 'options').mkdir()
    changes = dict(train=dict(total_iter=2)) if task == 'train' else dict(val=dict(save_img=False))
    write(home / 'options/row.yml', dict(base=f'../{task}.yml', **changes))
    assert run(monkeypatch, task, '-opt', 'options/row.yml', '--check') == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'nothing is wrong'
    forget_the_log()
    assert run(monkeypatch, task, '-opt', 'options/row.yml') is None
    (effective,) = home.glob(f'{folder}/{task}_*.yml')
    copies = [effective] + ([home / folder / 'row.yml'] if task == 'train' else [])
    for k, copy in enumerate(copies):
        text = copy.read_text()
        assert 'base:' not in text
        (home / 'copy.yml').write_text(text)
        forget_the_log()
        assert run(monkeypatch, task, '-opt', 'copy.yml', '--force_yml', f'name=copy{k}') is None
        if task == 'train':
            assert 'total_iter: 2\n' in log(home, f'experiments/copy{k}/train_*.log')
