"""The options in effect are written next to the log, and their differences from the shipped file into it."""

import shutil

import pytest
import torch

from lkdn_basicsr.options import option_file
from lkdn_basicsr.options.diff import plain
from lkdn_basicsr.options.option_file import read_option_file
from tests.support.runs import log, reset_log, run, write


@pytest.fixture
def trained(home):
    torch.save({'params': network().state_dict()}, 'net.pth')
    for name in ('train', 'test'):
        options = read_option_file(f'{name}.yml').opt
        options['path'].update(pretrain_network_g='net.pth', param_key_g='params')
        write(f'{name}.yml', plain(options))
    reset_log()


def network():
    from basicsr.archs import build_network

    return build_network(read_option_file('train.yml').opt['network_g'])


@pytest.mark.parametrize('task, folder', [('train', 'experiments/run'), ('test', 'results/tested')])
def test_effective_options_are_next_to_the_log_and_start_the_same_run(home, monkeypatch, trained, task, folder):
    assert run(monkeypatch, task, '-opt', f'{task}.yml', '--force_yml', 'val:save_img=false') is None
    (path,) = home.glob(f'{folder}/*.log')
    written = read_option_file(path.with_suffix('.yml')).opt
    assert written['val']['save_img'] is False and written['manual_seed'] == 0
    assert written['val']['metrics']['psnr']['type'] == 'calculate_psnr'
    assert 'experiments_root' not in written['path']
    assert f'The options in effect are in {path.with_suffix(".yml").relative_to(home)}' in path.read_text().replace(
        f'{home}/', ''
    )
    assert 'No GPU found' in path.read_text() or torch.cuda.is_available() or written['num_gpu'] == 0
    shutil.copy(path.with_suffix('.yml'), 'again.yml')
    assert run(monkeypatch, task, '-opt', 'again.yml', '--check') == 0


def test_a_drawn_seed_is_written(home, monkeypatch):
    run(monkeypatch, 'train', '-opt', 'train.yml', '--force_yml', 'manual_seed=~', 'train:total_iter=1')
    written = read_option_file(next(home.glob('experiments/run/train_run_*.yml'))).opt
    assert isinstance(written['manual_seed'], int)


def test_differences_from_the_shipped_file_are_logged(home, monkeypatch):
    (home / 'shipped').mkdir()
    shutil.copy('train.yml', 'shipped')
    monkeypatch.setattr(option_file, 'SHIPPED_FOLDER', str(home / 'shipped'))
    run(monkeypatch, 'train', '-opt', 'train.yml', '--force_yml', 'train:total_iter=2')
    assert 'Differences from the shipped option file:\n\ttrain:total_iter: 2 (shipped: 7)\n' in log(home)
