import json
import os
import socket
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import basicsr.utils.options as basicsr_options
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.option_file import dump_yaml, read_option_file
from lkdn_basicsr.training.run import Run
from tests.support.option_files import (
    TRAIN,
    parse_run,
    small_network,
    test_options,
    train_options,
    write_options,
    write_pairs,
)

ROOT = Path(__file__).resolve().parents[2]


def parse(tmp_path, opt, *arguments, is_train=True):
    return parse_run(str(tmp_path), is_train, ['-opt', write_options(tmp_path / 'x.yml', opt), *arguments])[0]


def unordered(opt):
    return {key: unordered(value) for key, value in opt.items()} if isinstance(opt, dict) else opt


@pytest.mark.parametrize('is_train', [True, False])
def test_gives_what_basicsr_gives(tmp_path, monkeypatch, is_train):
    write_pairs(tmp_path)
    torch.save({'params': small_network().state_dict()}, tmp_path / 'net.pth')
    opt = TRAIN.replace('ROOT', str(tmp_path)) if is_train else test_options(tmp_path, tmp_path / 'net.pth')
    monkeypatch.setattr(sys, 'argv', ['x', '-opt', write_options(tmp_path / 'x.yml', opt)])
    expected, args = basicsr_options.parse_options(str(tmp_path), is_train)
    random_numbers = torch.rand(3)
    found, found_args = Run().parse_options(str(tmp_path), is_train)
    assert torch.equal(random_numbers, torch.rand(3))  # the same seed was set
    assert isinstance(found, OrderedDict)
    assert vars(args).items() <= vars(found_args).items()
    if not is_train:  # defaults that BasicSR does not fill in
        found.pop('logger')
        found['val'].pop('val_freq')
    else:
        found['val'].pop('suffix')
    assert unordered(found) == unordered(expected)


def test_numbers_written_as_floats_become_whole(tmp_path):
    write_pairs(tmp_path)
    opt = train_options(tmp_path)
    opt['train'].update(total_iter=1e2)
    opt['train']['scheduler']['milestones'] = [5e1, 80]
    opt = parse(tmp_path, opt)
    values = [opt['train']['total_iter'], opt['val']['val_freq'], *opt['train']['scheduler']['milestones']]
    assert values == [100, 50, 50, 80] and all(type(value) is int for value in values)


def test_defaults(tmp_path):
    write_pairs(tmp_path)
    opt = train_options(tmp_path)
    opt['val'] = {}
    for key in ('logger', 'num_gpu', 'manual_seed', 'path', 'dist_params'):
        del opt[key]
    for key in ('use_hflip', 'use_rot', 'prefetch_mode', 'dataset_enlarge_ratio'):
        del opt['datasets']['train'][key]
    opt = parse(tmp_path, opt)
    assert opt['logger'] == {'print_freq': 100, 'save_checkpoint_freq': 5000, 'use_tb_logger': False}
    assert opt['val'] == {'val_freq': 5000, 'save_img': False, 'suffix': None}
    assert opt['num_gpu'] == torch.cuda.device_count() and 1 <= opt['manual_seed'] <= 10000
    assert opt['datasets']['train']['use_hflip'] is opt['datasets']['train']['use_rot'] is True


def test_a_test_without_val_section(tmp_path):
    write_pairs(tmp_path)
    torch.save({'params': small_network().state_dict()}, tmp_path / 'net.pth')
    opt = test_options(tmp_path, tmp_path / 'net.pth')
    del opt['val']
    opt = parse(tmp_path, opt, is_train=False)
    assert opt['val']['save_img'] is False and opt['val']['suffix'] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason='there are GPUs to use')
def test_without_gpus_the_run_is_on_the_cpu(tmp_path):
    write_pairs(tmp_path)
    opt = train_options(tmp_path)
    opt['num_gpu'] = 2
    opt['datasets']['train'].update(prefetch_mode='cuda', pin_memory=True)
    opt = parse(tmp_path, opt)
    train = opt['datasets']['train']
    assert opt['num_gpu'] == 0 and train['prefetch_mode'] is None and train['pin_memory'] is False
    assert opt.notes == ['No GPU found: this runs on the CPU (num_gpu: 2).']


def test_the_template_of_an_official_file_is_corrected(tmp_path):
    write_pairs(tmp_path)
    opt = train_options(tmp_path)
    opt['datasets']['val']['filename_tmpl'] = '{x2}'
    opt = parse(tmp_path, opt)
    assert opt['datasets']['val']['filename_tmpl'] == '{}x2'
    assert "datasets:val:filename_tmpl is '{x2}'" in opt.notes[0]


def test_forced_keys_count_before_the_seed_is_set(tmp_path):
    write_pairs(tmp_path)
    parse(tmp_path, train_options(tmp_path), '--force_yml', 'manual_seed=7', 'train:optim_g:lr=1e-5')
    forced = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(forced, torch.rand(3))


def test_a_forced_null_leaves_a_dataset_out(tmp_path):
    write_pairs(tmp_path)
    torch.save({'params': small_network().state_dict()}, tmp_path / 'net.pth')
    opt = test_options(tmp_path, tmp_path / 'net.pth')
    opt['datasets']['test_2']['dataroot_gt'] = 'nowhere'
    opt = parse(tmp_path, opt, '--force_yml', 'datasets:test_2=~', is_train=False)
    assert list(opt['datasets']) == ['test_1']


@pytest.mark.parametrize(
    'name, arguments, debug',
    [('small', ['--debug'], True), ('debug_x', [], True), ('debug_x', ['--debug'], True), ('no_debug_run', [], False)],
)
def test_debug(tmp_path, name, arguments, debug):
    write_pairs(tmp_path)
    opt = parse(tmp_path, dict(train_options(tmp_path), name=name), *arguments)
    assert opt['name'] == ('debug_small' if name == 'small' else name)
    assert (opt['logger']['print_freq'], opt['val']['val_freq']) == ((1, 8) if debug else (10, 50))


def test_arguments_cannot_be_abbreviated(tmp_path, capsys):
    write_pairs(tmp_path)
    with pytest.raises(SystemExit):
        parse(tmp_path, train_options(tmp_path), '--auto')
    assert 'unrecognized arguments: --auto' in capsys.readouterr().err


def test_launcher_that_did_not_launch(tmp_path, monkeypatch):
    write_pairs(tmp_path)
    monkeypatch.delenv('RANK', raising=False)
    for launcher, name in (('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID')):
        with pytest.raises(InputError, match=f'--launcher {launcher} needs {name}'):
            parse(tmp_path, train_options(tmp_path), '--launcher', launcher)


def test_the_effective_options_start_the_same_run(tmp_path):
    write_pairs(tmp_path)
    opt = parse(tmp_path, train_options(tmp_path), '--force_yml', 'train:optim_g:lr=1e-7')
    again = parse(tmp_path, dump_yaml(opt))
    assert again == opt
    assert 'rank' not in read_option_file(tmp_path / 'x.yml').opt


def test_classes_registered_by_others_stay_open(tmp_path):
    write_pairs(tmp_path)

    class TheirNet(torch.nn.Module):
        def __init__(self, width=4, **rest):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, width + rest.get('more', 0), 3)

    class TheirLoss(torch.nn.Module):
        def __init__(self, strength):
            super().__init__()

    class TheirModel:
        pass

    class TheirData(torch.utils.data.Dataset):
        def __init__(self, opt):
            pass

    registries = (ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY, DATASET_REGISTRY)
    classes = (TheirNet, TheirLoss, TheirModel, TheirData)
    for registry, cls in zip(registries, classes, strict=True):
        registry.register(cls)
    try:
        opt = train_options(tmp_path)
        opt['network_g'] = {'type': 'TheirNet', 'more': 1}
        opt['train']['pixel_opt'] = {'type': 'TheirLoss', 'strength': 3}
        parse(tmp_path, opt)
        opt['network_g'] = {'type': 'TheirNet', 'widht': 1}
        with pytest.raises(InputError, match='network_g:widht is not an argument of TheirNet; did you mean width'):
            parse(tmp_path, opt)
        opt['network_g'] = {'type': 'TheirNet'}
        opt['train']['pixel_opt'] = {'type': 'TheirLoss'}
        with pytest.raises(InputError, match='train:pixel_opt has no strength'):
            parse(tmp_path, opt)
        opt['train'] = {'total_iter': 3, 'optim_g': {'type': 'Theirs'}, 'scheduler': {'type': 'Theirs'}, 'noise': 3}
        opt.update(model_type='TheirModel', teacher={'a': 1})
        opt['datasets']['train'] = {
            'name': 'T',
            'type': 'TheirData',
            'num_worker_per_gpu': 0,
            'batch_size_per_gpu': 2,
            'own': [1],
        }
        parse(tmp_path, opt)
    finally:
        for registry, cls in zip(registries, classes, strict=True):
            del registry._obj_map[cls.__name__]


RANK = """
import json, sys
import torch
from lkdn_basicsr.training.run import Run
root_path, sys.argv[1:] = sys.argv[1], ['-opt', sys.argv[2], '--local-rank=0']
opt, args = Run().parse_options(root_path)
print(json.dumps([opt['rank'], opt['world_size'], opt['dist'], opt['manual_seed'], args.launcher, torch.initial_seed(),
                  torch.distributed.get_backend()]))
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason='the ranks would need a GPU each')
def test_ranks_of_torchrun_are_detected_and_share_a_seed(tmp_path):
    write_pairs(tmp_path)
    opt = dict(train_options(tmp_path), manual_seed=None)
    path = write_options(tmp_path / 'x.yml', opt)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(2):
        environment = {
            **os.environ,
            'RANK': str(rank),
            'LOCAL_RANK': str(rank),
            'WORLD_SIZE': '2',
            'MASTER_ADDR': '127.0.0.1',
            'MASTER_PORT': str(port),
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': str(ROOT),
        }
        ranks.append(
            subprocess.Popen(
                [sys.executable, '-c', RANK, str(tmp_path), path],
                env=environment,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    printed = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    seed = printed[0][3]
    assert printed == [[rank, 2, True, seed, 'pytorch', seed + rank, 'gloo'] for rank in range(2)]
