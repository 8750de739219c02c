"""An invalid option file gives a one-line error with the file and the key, and no file is written."""

import functools
from ast import literal_eval

import pytest

from tests.support.option_files import test_options

DELETE = object()
ROOTS = ('train:dataroot_gt', 'val:dataroot_lq')
SINGLE = {'name': 'T', 'type': 'SingleImageDataset', 'dataroot_lq': 'b'}
PAIRED = {'name': 'Validation', 'type': 'PairedImageDataset', 'dataroot_gt': 'a', 'dataroot_lq': 'b'}
COSINE = {'type': 'CosineAnnealingRestartLR', 'periods': [60, 60], 'restart_weights': [1, 1]}


def change(opt, keys, value):
    """Set or delete the option at ``a:b:c``."""
    *parents, last = keys.split(':')
    block = functools.reduce(dict.get, parents, opt)
    block.pop(last, None)
    if value is not DELETE:
        block[last] = value


# Typos and what the messages suggest
TYPOS = """
    nme→name datasets:train:use_hfilp→use_hflip datasets:train:io_backend:typ→type
    path:pretrain_netwrok_g→pretrain_network_g train:ema_deacy→ema_decay train:optim_g:weigth_decay→weight_decay
    train:scheduler:milestone→milestones train:pixel_opt:loss_wieght→loss_weight val:val_frequ→val_freq
    val:metrics:psnr:test_y_chanel→test_y_channel logger:print_frq→print_freq logger:wandb:projekt→project
    dist_params:backnd→backend network_d→network_g
""".split()
MISSING = """
    name model_type scale datasets datasets:train:name datasets:train:type datasets:train:gt_size
    datasets:train:batch_size_per_gpu datasets:train:dataroot_lq network_g network_g:type train:total_iter
    train:optim_g train:optim_g:lr train:scheduler train:scheduler:milestones val:metrics:psnr:type
    val:metrics:psnr:crop_border
"""
INVALID = """
    network_g:type=None datasets:train=[1] datasets:train:batch_size_per_gpu=True datasets:train:dataroot_gt=None
    val:metrics=['psnr'] val:metrics:psnr='calculate_psnr' logger='verbose' num_gpu=-1 manual_seed=-1
    datasets:train:gt_size=-16 datasets:train:num_worker_per_gpu=-1 train:total_iter=0 train:optim_g:lr=-0.001
    val:val_freq=0 val:metrics:psnr:crop_border=-1 logger:print_freq=0 train:warmup_iter=100 name='../up'
    datasets:val:name='a/b'
""".split()

HUGE_INTS = """
    num_gpu manual_seed scale datasets:train:batch_size_per_gpu datasets:train:num_worker_per_gpu datasets:train:gt_size
    train:total_iter train:warmup_iter val:val_freq logger:print_freq logger:keep_checkpoints dist_params:port
""".split()
HUGE_NUMBERS = 'train:optim_g:lr train:scheduler:gamma train:pixel_opt:loss_weight dist_params:timeout'.split()
HUGE_LISTS = ['train:scheduler:milestones', 'train:scheduler:restarts', 'datasets:train:mean']
NETWORKS = [('num_feat', 1e9), ('num_feat', 0), ('num_feat', 4.5), ('num_block', 10**6)]

TRAIN_CASES = [  # the option, its value, and parts of the message
    *((typo, None, [f'{typo} is not ', f'did you mean {key}?']) for typo, key in (p.split('→') for p in TYPOS)),
    *((keys, literal_eval(value), [f'{keys} is {value}']) for keys, value in (p.split('=') for p in INVALID)),
    *((keys, DELETE, ['{} has no {}'.format(*keys.rpartition(':')[::2])]) for keys in MISSING.split()),
    ('datasets:val:dataroot_hr', 'x', ['datasets:val:dataroot_hr is not known', 'dataroot']),
    ('network_g:num_feet', 4, ['network_g:num_feet is not an argument of MSRResNet', 'num_feat']),
    ('path:models', 'x', ['path:models is not known']),
    ('train:optim_g:lerning_rate', 1, ['train:optim_g:lerning_rate is not an argument of Adam']),
    # names that are not registered
    ('model_type', 'SRModl', ['model_type', 'did you mean SRModel?']),
    ('network_g:type', 'LKDNS', ['network_g:type', 'LKDN']),
    ('datasets:train:type', 'PairedImagesDataset', ['datasets:train:type', 'did you mean PairedImageDataset?']),
    ('train:optim_g:type', 'Adamm', ['train:optim_g:type', 'did you mean Adam?']),
    ('train:optim_g:type', 'adan', ['train:optim_g:type', 'did you mean Adan?']),
    ('train:scheduler:type', 'MultiStep', ['train:scheduler:type', 'MultiStepLR']),
    ('train:pixel_opt:type', 'L1', ['train:pixel_opt:type', 'L1Loss']),
    ('val:metrics:psnr:type', 'calculate_psrn', ['val:metrics:psnr:type', 'did you mean calculate_psnr?']),
    # missing keys
    ('datasets:train', DELETE, ['datasets has no training dataset']),
    ('train', DELETE, ['has no train section']),
    ('train:pixel_opt', DELETE, ['train has no loss']),
    # names that are not those of files
    *(('name', name, ['name is ', 'cannot name']) for name in ('a/b', '..', 'a\\b', 'a\nb')),
    *(('name', name * 67, ['name has 201 bytes', 'at most 200']) for name in ('abc', '画')),
    ('datasets:val:name', 'n' * 300, ['datasets:val:name has 300 bytes']),
    # types
    ('name', 123, ['name is 123', 'text']),
    *(('scale', value, [f'scale is {value!r}', 'integer']) for value in ('two', 2.5)),
    ('num_gpu', 'all', ["num_gpu is 'all'", 'auto']),
    ('manual_seed', 'abc', ['manual_seed']),
    ('datasets:train:use_rot', 'yes please', ['datasets:train:use_rot', 'true or false']),
    ('network_g:num_feat', 'many', ["network_g:num_feat is 'many'", 'a number']),
    ('train:optim_g:lr', 'fast', ["train:optim_g:lr is 'fast'", 'a number']),
    ('train:optim_g', 'Adam', ["train:optim_g is 'Adam'", 'a block of options']),
    ('train:scheduler:milestones', 50, ['train:scheduler:milestones is 50', 'a list of integers']),
    *((key, value, [f'{key} is ']) for key in HUGE_INTS for value in (1e30, 1e300, 10**60, float('inf'), float('nan'))),
    *((key, value, [f'{key} is ']) for key in HUGE_NUMBERS for value in (1e300, float('inf'), float('nan'))),
    *((key, [value], [f'{key} is ']) for key in HUGE_LISTS for value in (1e300, float('nan'))),
    ('dist_params:port', 99999, ['dist_params:port is 99999']),
    ('manual_seed', 1e15, ['manual_seed is']),
    *((f'network_g:{name}', value, ['network_g is refused by MSRResNet: ']) for name, value in NETWORKS),
    # ranges
    ('scale', 0, ['scale is 0', '[1, inf)']),
    ('datasets:train:prefetch_mode', 'gpu', ["prefetch_mode is 'gpu'", 'cpu, cuda']),
    ('datasets:train:io_backend:type', 'zip', ["io_backend:type is 'zip'", 'disk, lmdb']),
    ('train:ema_decay', 1.5, ['train:ema_decay is 1.5', '[0, 1)']),
    ('train:optim_g:betas', [0.9, 1.2], ['train:optim_g:betas is [0.9, 1.2]']),
    ('train:optim_g:eps', -1.0, ['train:optim_g is refused by Adam', 'epsilon']),
    ('train:pixel_opt:reduction', 'none', ['train:pixel_opt:reduction', 'mean, sum']),
    ('val:metrics:psnr:better', 'Higher', ["val:metrics:psnr:better is 'Higher'", 'higher, lower']),
    ('dist_params:backend', 'ncl', ['dist_params:backend', 'nccl']),
    ('network_g:num_feat', -4, ['network_g is refused by MSRResNet']),
    # options that do not agree
    ('datasets:train:gt_size', 15, ['datasets:train:gt_size is 15', 'multiple of scale 2', 'use 14']),
    ('network_g:upscale', 4, ['network_g:upscale is 4, but scale is 2']),
    ('network_g:upscale', DELETE, ['network_g upscale is 4, but scale is 2']),
    ('network_g:num_in_ch', 1, ['network_g has num_in_ch 1']),
    ('datasets:train:color', 'y', ['num_in_ch 3']),
    ('train:warmup_iter', 60, ['train:warmup_iter is 60', 'first milestone is at 50']),
    ('train:scheduler:milestones', [80, 50], ['milestones is [80, 50]']),
    ('train:scheduler', COSINE | {'periods': [40, 40]}, ['scheduler:periods add up to 80, less than total_iter 100']),
    ('train:scheduler', COSINE | {'restart_weights': [1]}, ['train:scheduler', 'same length']),
    ('train:optim_g', {'type': 'Adan', 'lr': 1e-3, 'betas': [0.9, 0.99]}, ['betas has 2 values, but Adan takes 3']),
    ('train:optim_g:betas', [0.98, 0.92, 0.99], ['betas has 3 values, but Adam takes 2']),
    ('datasets:val_2', PAIRED, ['datasets:val_2:name is Validation']),
    ('datasets:test_1', PAIRED | {'name': 'T'}, ['datasets:test_1 cannot be used in training']),
    ('datasets:train_2', SINGLE, ['datasets:train_2 cannot be used in training']),
    ('datasets:train:prefetch_mode', 'cuda', ['prefetch_mode is cuda', 'pin_memory']),
    *((f'datasets:{key}:persistent_workers', True, [f'{key}:persistent_workers needs']) for key in ('train', 'val')),
    *(
        ('datasets:train:filename_tmpl', value, [f'filename_tmpl is {value!r}'])
        for value in ('x2', '{}{}', '{0.__class__}', '{:9999999999}')
    ),
    ('datasets:train:mean', [0.5, 0.5, 0.5], ['datasets:train has only one of mean and std']),
    ('datasets:train:io_backend:type', 'lmdb', ['must end in .lmdb']),
    ('datasets:train:io_backend:type', 'raw', ['use type: PairedCropDataset']),
    ('datasets:train:type', 'PairedCropDataset', ['datasets:train:type', 'float32: true']),
    ('logger:wandb:project', 'p', ['logger:wandb:project']),
    ('logger', {'wandb': {'project': 'p'}}, ['logger:wandb:project needs `use_tb_logger: true`']),
    # data and files
    *((f'datasets:{key}', 'no', [f'datasets:{key} is no, which does not exist']) for key in ROOTS),
    ('datasets:train:filename_tmpl', '{}x4', ['do not pair', 'p0x4.png']),
    ('datasets:train:gt_size', 26, ['gt_size is 26, but', 'p0.png is 26x24']),
    ('datasets:train:batch_size_per_gpu', 5, ['batch_size_per_gpu is 5, but 4 images']),
    ('datasets:train:meta_info_file', 'nowhere.txt', ['datasets:train:meta_info_file', 'nowhere.txt']),
    ('val:metrics:psnr:crop_border', 12, ['val:metrics:psnr', 'smaller crop_border']),
    ('val:metrics:psnr:type', 'calculate_niqe', ['test_y_channel is not an argument of calculate_niqe']),
    ('path:pretrain_network_g', 'nowhere.pth', ['path:pretrain_network_g is nowhere.pth']),
    ('path:resume_state', 'nowhere.state', ['path:resume_state is nowhere.state', 'does not exist']),
    ('path:resume_state', '/', ['path:resume_state is /, which is empty or not a file']),
]


TEST_CASES = [
    *(('path:pretrain_network_g', value, ['path has no pretrain_network_g']) for value in (DELETE, None)),
    ('path:param_key_gg', 'params', ['path:param_key_gg is not known', 'param_key_g']),
    ('datasets:train', SINGLE, ['run it with lkdn_basicsr.train']),
    ('datasets:sets', SINGLE, ['datasets:sets cannot be used']),
    ('datasets:test_2:name', 'Validation', ['datasets:test_2:name is Validation', 'test_1']),
    ('datasets:test_1:type', 'SingleImageDataset', ['datasets:test_1:dataroot_gt is not known']),
    ('datasets', {}, ['datasets has no dataset']),
    ('datasets:test_1:dataroot_gt', DELETE, ['datasets:test_1 has no dataroot_gt']),
    ('val:metrics:psnr:crop_border', 'four', ["crop_border is 'four'"]),
    ('val:save_img', 'no way', ['val:save_img']),
    ('network_g:num_block', 2, ['path:pretrain_network_g', 'does not fit network_g']),
    ('network_g:num_feat', 8, ['path:pretrain_network_g', 'does not fit network_g']),
    ('scale', 3, ['network_g:upscale is 2, but scale is 3']),
    ('val:suffix', 'a/b', ["val:suffix is 'a/b', which cannot name"]),
    ('val:suffix', 'n' * 300, ['val:suffix has 300 bytes']),
    ('datasets', {'test': SINGLE}, ['val:metrics:psnr compares with the ground truth']),
]
CASES = [*((True, *case) for case in TRAIN_CASES), *((False, *case) for case in TEST_CASES)]


@pytest.mark.parametrize('is_train, keys, value, parts', CASES)
def test_invalid_options(tmp_path, opt, test_opt, refused, is_train, keys, value, parts):
    options = opt if is_train else test_opt
    change(options, keys, value)
    message = refused(options, is_train=is_train)
    assert [part for part in (f'{tmp_path}/x.yml', *parts) if part not in message] == []


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(mean=[0.5], std=[0.5]), 'datasets:val:mean has 1 values, but the images have 3 channel(s)'),
        (dict(mean=[0.5] * 3, std=[0.5] * 2), 'datasets:val:std has 2 values, but the images have 3 channel(s)'),
        (dict(mean=[0.5] * 3, std=[0.5] * 3, color='y'), 'datasets:val:mean has 3 values, but the images have 1'),
    ],
)
def test_mean_and_std_have_a_value_for_each_channel(opt, refused, options, message):
    opt['datasets']['val'].update(options)
    assert message in refused(opt)


def test_the_message_has_the_line_of_the_key(tmp_path, opt, refused):
    opt['train']['optim_g']['lerning_rate'] = 1
    message = refused(opt)
    line = 1 + (tmp_path / 'x.yml').read_text().splitlines().index('    lerning_rate: 1')
    assert f'{tmp_path}/x.yml, line {line}: train:optim_g:lerning_rate ' in message


def test_the_message_marks_a_forced_value(opt, refused):
    assert 'x.yml, --force_yml: train:optim_g:lr is -1' in refused(opt, '--force_yml', 'train:optim_g:lr=-1', 'scale=2')


@pytest.mark.parametrize(
    'entry, message',
    [
        ('train:total_itr=1', '--force_yml: train:total_itr is not known; did you mean total_iter?'),
        ('trian:total_iter=1', '--force_yml: trian is not known; did you mean train?'),
        (
            'val:metrics:psnrr:crop_border=4',
            '--force_yml: val:metrics:psnrr is new and has no type; did you mean psnr?',
        ),
        ('datasets:trian:gt_size=8', '--force_yml: datasets:trian is new and has no type; did you mean train?'),
        ('network_g:num_feet=8', '--force_yml: network_g:num_feet is not an argument'),
        ('rank=1', '--force_yml: rank is not known'),
    ],
)
def test_forced_options_are_checked_like_others(opt, refused, entry, message):
    assert message in refused(opt, '--force_yml', entry)


def test_a_test_file_is_not_for_training_and_the_reverse(tmp_path, opt, refused):
    assert 'lkdn_basicsr.test' in refused(test_options(tmp_path, 'net.pth'))
    assert 'lkdn_basicsr.train' in refused(opt, is_train=False)
