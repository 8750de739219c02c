"""``--check``, the effective options beside the log, and the differences from the shipped file."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lkdn_basicsr import checkpoints
from lkdn_basicsr.options import diff as effective
from lkdn_basicsr.options.option_file import load_yaml
from tests.training.test_run import forget_the_log, home, log, run, snapshot, write  # noqa: F401

pytestmark = pytest.mark.usefixtures('home')


@pytest.fixture
def trained(monkeypatch):
    torch.save({'params': network().state_dict()}, 'net.pth')
    for name in ('train', 'test'):
        options = load_yaml(f'{name}.yml')
        options['path'].update(pretrain_network_g='net.pth', param_key_g='params')
        write(f'{name}.yml', plain(options))
    forget_the_log()


def network():
    from basicsr.archs import build_network

    return build_network(load_yaml('train.yml')['network_g'])


def plain(options):
    return {k: plain(v) for k, v in options.items()} if isinstance(options, dict) else options


@pytest.mark.parametrize('task', ['train', 'test'])
def test_check_tells_what_there_is_and_changes_nothing(home, monkeypatch, capsys, trained, task):  # noqa: F811
    (home / f'{"experiments/run" if task == "train" else "results/tested"}').mkdir(parents=True)
    before = snapshot(home)
    assert run(monkeypatch, task, '-opt', f'{task}.yml', '--check') == 0
    lines = capsys.readouterr().out.splitlines()
    count = sum(parameter.numel() for parameter in network().parameters())
    assert f'network_g: LKDN, {count:,d} parameters' in lines and lines[-1] == 'nothing is wrong'
    if task == 'train':
        assert 'datasets:train: train, 5 pictures; a sample is lq 3x8x8, gt 3x16x16' in lines
    assert any(
        re.match(r'datasets:(val|test_1): val, 2 pictures; a sample is lq 3x16x16, gt 3x32x32', line) for line in lines
    )
    assert snapshot(home) == before


def test_check_of_something_wrong_is_a_sentence(home, monkeypatch, capsys):  # noqa: F811
    before = snapshot(home)
    status = run(monkeypatch, 'train', '-opt', 'train.yml', '--check', '--force_yml', 'datasets:train:gt_size=64')
    assert 'gt_size' in status and 'nothing is wrong' not in capsys.readouterr().out
    assert snapshot(home) == before


def test_check_fetches_no_weights(home, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(checkpoints, 'ensure', lambda path: pytest.fail('this would download'))
    before = snapshot(home)
    assert (
        run(monkeypatch, 'test', '-opt', 'test.yml', '--check', '--force_yml', 'path:pretrain_network_g=LKDN_x2.pth')
        == 0
    )
    assert 'LKDN_x2.pth is not there and will be downloaded' in capsys.readouterr().out
    assert snapshot(home) == before


@pytest.mark.parametrize('task, folder', [('train', 'experiments/run'), ('test', 'results/tested')])
def test_options_in_effect_are_beside_the_log_and_start_the_same_run(home, monkeypatch, trained, task, folder):  # noqa: F811
    assert run(monkeypatch, task, '-opt', f'{task}.yml', '--force_yml', 'val:save_img=false') is None
    (path,) = home.glob(f'{folder}/*.log')
    written = load_yaml(path.with_suffix('.yml'))
    assert written['val']['save_img'] is False and written['manual_seed'] == 0
    assert written['val']['metrics']['psnr']['type'] == 'calculate_psnr'
    assert 'experiments_root' not in written['path']
    assert f'The options in effect are in {path.with_suffix(".yml").relative_to(home)}' in path.read_text().replace(
        f'{home}/', ''
    )
    assert 'No GPU found' in path.read_text() or torch.cuda.is_available() or written['num_gpu'] == 0
    shutil.copy(path.with_suffix('.yml'), 'again.yml')
    assert run(monkeypatch, task, '-opt', 'again.yml', '--check') == 0


def test_a_seed_that_was_drawn_is_written_down(home, monkeypatch):  # noqa: F811
    run(monkeypatch, 'train', '-opt', 'train.yml', '--force_yml', 'manual_seed=~', 'train:total_iter=1')
    written = load_yaml(next(home.glob('experiments/run/train_run_*.yml')))
    assert isinstance(written['manual_seed'], int)


def test_differences_from_the_shipped_file_are_logged(home, monkeypatch):  # noqa: F811
    (home / 'shipped').mkdir()
    options = yaml.safe_load(Path('train.yml').read_text())
    options['train']['total_iter'] = 1000
    options['train']['optim_g']['lr'] = 1e-3
    del options['manual_seed']
    options['logger'].pop('print_freq')
    write('shipped/train.yml', options)
    monkeypatch.setattr(effective, 'SHIPPED', home / 'shipped')
    run(monkeypatch, 'train', '-opt', 'train.yml', '--force_yml', 'train:total_iter=2')
    text = log(home)
    listed = re.search(r'Differences from the shipped option file:\n((?:\t.*\n)+)', text)[1].splitlines()
    assert listed == [
        '\tmanual_seed: 0 (shipped: null)',
        '\ttrain:optim_g:lr: 0.005 (shipped: 0.001)',
        '\ttrain:total_iter: 2 (shipped: 1000)',
        '\tlogger:print_freq: 1 (shipped: 100)',
    ]


def test_the_shipped_files_do_not_differ_from_themselves():
    from lkdn_basicsr.options.check_schema import check_schema
    from lkdn_basicsr.options.option_file import read_option_file

    files = sorted(effective.SHIPPED.glob('*.yml'))
    assert files
    for path in files:
        source = read_option_file(path)
        check_schema(source, 'train' in source.opt)
        assert effective.differences_from_shipped(source, 'train' in source.opt) == []
