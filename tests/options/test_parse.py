import json
import sys
from collections import OrderedDict
from pathlib import Path

import basicsr.utils.options as basicsr_options
import pytest
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

from lkdn_basicsr.options.diff import plain
from lkdn_basicsr.options.parse import set_num_gpu
from lkdn_basicsr.training.run import Run
from tests.support import processes
from tests.support.option_files import TRAIN, write_options


@pytest.mark.parametrize('is_train', [True, False])
def test_gives_what_basicsr_gives(tmp_path, monkeypatch, test_opt, is_train):
    text = TRAIN.replace('ROOT', str(tmp_path)) if is_train else test_opt
    monkeypatch.setattr(sys, 'argv', ['x', '-opt', write_options(tmp_path / 'x.yml', text)])
    expected, args = basicsr_options.parse_options(str(tmp_path), is_train)
    random_numbers = torch.rand(3)
    found, found_args = Run().parse_options(str(tmp_path), is_train)
    assert torch.equal(random_numbers, torch.rand(3))  # the same seed was set
    assert isinstance(found, OrderedDict)
    assert vars(args).items() <= vars(found_args).items()
    if is_train:  # defaults that BasicSR does not fill in
        found['val'].pop('suffix')
    else:
        found.pop('logger')
        found['val'].pop('val_freq')
    assert plain(found) == plain(expected)  # in any order


def test_numbers_written_as_floats_become_whole(opt, parse):
    opt['train'].update(total_iter=1e2)
    opt['train']['scheduler']['milestones'] = [5e1, 80]
    opt = parse(opt)
    values = [opt['train']['total_iter'], opt['val']['val_freq'], *opt['train']['scheduler']['milestones']]
    assert values == [100, 50, 50, 80] and all(type(value) is int for value in values)


def test_defaults(opt, test_opt, parse):
    opt['val'] = {}
    for key in ('logger', 'num_gpu', 'manual_seed', 'path', 'dist_params'):
        del opt[key]
    for key in ('use_hflip', 'use_rot', 'prefetch_mode', 'dataset_enlarge_ratio'):
        del opt['datasets']['train'][key]
    opt = parse(opt)
    assert opt['logger'] == {'print_freq': 100, 'save_checkpoint_freq': 5000, 'use_tb_logger': False}
    assert opt['val'] == {'val_freq': 5000, 'save_img': False, 'suffix': None}
    assert opt['num_gpu'] == min(torch.cuda.device_count(), 1) and 1 <= opt['manual_seed'] <= 10000
    assert opt['datasets']['train']['use_hflip'] is opt['datasets']['train']['use_rot'] is True
    del test_opt['val']
    opt = parse(test_opt, is_train=False)
    assert opt['val']['save_img'] is False and opt['val']['suffix'] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason='there are GPUs to use')
def test_without_gpus_the_run_is_on_the_cpu(opt, parse):
    opt['num_gpu'] = 2
    opt['datasets']['train'].update(prefetch_mode='cuda', pin_memory=True)
    opt = parse(opt)
    train = opt['datasets']['train']
    assert opt['num_gpu'] == 0 and train['prefetch_mode'] is None and train['pin_memory'] is False
    assert opt.notes == ['No GPU found: this runs on the CPU (num_gpu: 2).']


TORCHRUN = 'num_gpu: auto uses 1 of 4 GPUs; torchrun --nproc_per_node=4 uses all, '
TORCHRUN += 'with a batch of batch_size_per_gpu for each.'


@pytest.mark.parametrize(
    'requested, present, distributed, number, notes',
    [
        *(('auto', 1, False, 1, []), ('auto', 4, False, 1, [TORCHRUN]), ('auto', 4, True, 1, [])),
        ('auto', 0, False, 0, ['No GPU found: this runs on the CPU (num_gpu: auto).']),
        *((4, 4, False, 4, []), (4, 4, True, 1, []), (1, 4, False, 1, [])),
        *((0, 4, False, 0, []), (0, 4, True, 0, [])),
        (4, 2, False, 2, ['num_gpu: 4 is more than this machine has: 2 used.']),
    ],
)
def test_number_of_gpus(monkeypatch, requested, present, distributed, number, notes):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: present)
    opt = {'num_gpu': requested, 'datasets': {}}
    assert set_num_gpu(opt, distributed) == notes and opt['num_gpu'] == number


@pytest.mark.parametrize('is_train', [True, False])
def test_gpu_that_runs_no_kernel_is_refused(opt, test_opt, parse, refused, monkeypatch, is_train):
    def ones(*size, device):
        tried.append(device)
        if device == 'cuda:1':
            raise RuntimeError('CUDA error: no kernel image is available for execution on the device')
        return torch.zeros(1)

    tried, opt = [], opt if is_train else test_opt
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 3)
    monkeypatch.setattr(torch, 'ones', ones)
    for arguments in ([], ['--check']):
        message = refused(dict(opt, num_gpu=2), *arguments, is_train=is_train)
        assert 'cannot use the GPU' in message and 'no kernel image' in message and 'num_gpu: 0' in message
    assert tried == ['cuda:0', 'cuda:1'] * 2
    parse(dict(opt, num_gpu=0), is_train=is_train)
    assert len(tried) == 4


def test_the_template_of_an_official_file_is_corrected(opt, parse):
    opt['datasets']['val']['filename_tmpl'] = '{x2}'
    opt = parse(opt)
    assert opt['datasets']['val']['filename_tmpl'] == '{}x2'
    assert "datasets:val:filename_tmpl is '{x2}'" in opt.notes[0]


def test_forced_keys_count_before_the_seed_is_set(opt, parse):
    parse(opt, '--force_yml', 'manual_seed=7', 'train:optim_g:lr=1e-5')
    forced = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(forced, torch.rand(3))


def test_forced_options_need_not_be_in_the_file(opt, parse):
    del opt['val']['metrics'], opt['dist_params'], opt['logger']['wandb']
    entries = 'datasets:train:pin_memory=false dist_params:port=1234 train:optim_g:eps=1e-7 logger:wandb:entity=x '
    entries += 'val:metrics:p:type=calculate_psnr val:metrics:p:crop_border=2'
    found = parse(opt, '--force_yml', *entries.split())
    assert found['datasets']['train']['pin_memory'] is False and found['dist_params'] == {'port': 1234}
    assert found['train']['optim_g']['eps'] == 1e-7 and found['logger']['wandb']['entity'] == 'x'
    assert found['val']['metrics'] == {'p': {'type': 'calculate_psnr', 'crop_border': 2}}


@pytest.mark.parametrize(
    'name, arguments, debug',
    [('small', ['--debug'], True), ('debug_x', [], True), ('debug_x', ['--debug'], True), ('no_debug_run', [], False)],
)
def test_debug(opt, name, arguments, debug, parse):
    opt = parse(dict(opt, name=name), *arguments)
    assert opt['name'] == ('debug_small' if name == 'small' else name)
    assert (opt['logger']['print_freq'], opt['val']['val_freq']) == ((1, 8) if debug else (10, 50))


def test_arguments_cannot_be_abbreviated(opt, capsys, parse):
    with pytest.raises(SystemExit):
        parse(opt, '--auto')
    assert 'unrecognized arguments: --auto' in capsys.readouterr().err


def test_launcher_that_did_not_launch(opt, monkeypatch, refused):
    monkeypatch.delenv('RANK', raising=False)
    for launcher, name in (('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID')):
        assert f'--launcher {launcher} needs {name}' in refused(opt, '--launcher', launcher)


class TheirNet(torch.nn.Module):
    def __init__(self, width=4, **rest):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, width + rest.get('more', 0), 3, padding=1)

    def forward(self, x):
        return torch.nn.functional.interpolate(self.layer(x)[:, :3], scale_factor=2)


class TheirLoss(torch.nn.Module):
    def __init__(self, strength):
        super().__init__()

    def forward(self, output, gt):
        return (output - gt).square().mean()


class TheirModel(BaseModel):
    def feed_data(self, data):
        self.value = data['value']

    def optimize_parameters(self, current_iter):
        assert self.value.shape == (2,) and current_iter == 1


class TheirData(torch.utils.data.Dataset):
    def __init__(self, opt):
        self.opt = opt

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'value': index}


def test_classes_registered_by_others_stay_open(opt, parse, refused, monkeypatch):
    registries = (ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY, DATASET_REGISTRY)
    for registry, cls in zip(registries, (TheirNet, TheirLoss, TheirModel, TheirData), strict=True):
        monkeypatch.setitem(registry._obj_map, cls.__name__, cls)
    opt['network_g'] = {'type': 'TheirNet', 'more': 1}
    opt['train']['pixel_opt'] = {'type': 'TheirLoss', 'strength': 3}
    parse(opt)
    opt['network_g'] = {'type': 'TheirNet', 'widht': 1}
    assert 'network_g:widht is not an argument of TheirNet; did you mean width' in refused(opt)
    opt['network_g'] = {'type': 'TheirNet'}
    opt['train']['pixel_opt'] = {'type': 'TheirLoss'}
    assert 'train:pixel_opt has no strength' in refused(opt)
    opt['train'] = {'total_iter': 3, 'optim_g': {'type': 'Theirs'}, 'scheduler': {'type': 'Theirs'}, 'noise': 3}
    opt.update(model_type='TheirModel', teacher={'a': 1})
    opt['datasets']['train'] = dict(name='T', type='TheirData', num_worker_per_gpu=0, batch_size_per_gpu=2, own=[1])
    parse(opt)


def parse_on_a_rank(folder, path):
    sys.argv = ['train', '-opt', path, '--local-rank=0']
    opt, args = Run().parse_options(folder)
    found = [opt['rank'], opt['world_size'], opt['dist'], opt['manual_seed'], args.launcher, torch.initial_seed()]
    Path(folder, f'{opt["rank"]}.json').write_text(json.dumps([*found, torch.distributed.get_backend()]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='the ranks would need a GPU each')
def test_ranks_of_torchrun_are_detected_and_share_a_seed(opt, tmp_path):
    path = write_options(tmp_path / 'x.yml', dict(opt, manual_seed=None))
    ranks = processes.start_ranks(2, lambda rank: (parse_on_a_rank, str(tmp_path), path))
    assert processes.finish(ranks) == [0, 0]
    found = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2)]
    seed = found[0][3]
    assert found == [[rank, 2, True, seed, 'pytorch', seed + rank, 'gloo'] for rank in range(2)]
