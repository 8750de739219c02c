"""An invalid option file gives a one-line error with the file and the key, and no file is written."""

import pytest
import torch

from lkdn_basicsr.errors import InputError
from tests.support.option_files import parse_run, small_network, test_options, train_options, write_options, write_pairs

DELETE = object()
SINGLE = {'name': 'T', 'type': 'SingleImageDataset', 'dataroot_lq': 'b'}
PAIRED = {'name': 'Validation', 'type': 'PairedImageDataset', 'dataroot_gt': 'a', 'dataroot_lq': 'b'}


@pytest.fixture(autouse=True)
def files(tmp_path):
    write_pairs(tmp_path)
    torch.save({'params': small_network().state_dict()}, tmp_path / 'net.pth')


def snapshot(root):
    return sorted((path, path.stat().st_size) for path in root.rglob('*') if path.is_file())


def change(opt, keys, value):
    """Set or delete the option at ``a:b:c``."""
    *parents, last = keys.split(':')
    for key in parents:
        opt = opt[key]
    if value is DELETE:
        del opt[last]
    else:
        opt[last] = value


def refused(tmp_path, opt, is_train, arguments=()):
    """Return the message with which options are refused."""
    path = write_options(tmp_path / 'wrong.yml', opt)
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        parse_run(str(tmp_path), is_train, ['-opt', path, *arguments])
    assert snapshot(tmp_path) == before
    message = str(caught.value)
    assert '\n' not in message and path in message
    return message


TRAIN_CASES = [  # the option, its value, and parts of the message
    # unknown keys, at every level
    ('nme', 'x', ['nme is not known', 'did you mean name?']),
    ('datasets:train:use_hfilp', True, ['datasets:train:use_hfilp is not known', 'use_hflip']),
    ('datasets:train:io_backend:typ', 'disk', ['io_backend:typ is not known', 'type']),
    ('datasets:val:dataroot_hr', 'x', ['datasets:val:dataroot_hr is not known', 'dataroot']),
    ('network_g:num_feet', 4, ['network_g:num_feet is not an argument of MSRResNet', 'num_feat']),
    ('path:pretrain_netwrok_g', None, ['path:pretrain_netwrok_g is not known', 'pretrain_network_g']),
    ('path:models', 'x', ['path:models is not known']),
    ('train:ema_deacy', 0.9, ['train:ema_deacy is not known', 'ema_decay']),
    ('train:optim_g:lerning_rate', 1, ['train:optim_g:lerning_rate is not an argument of Adam']),
    ('train:optim_g:weigth_decay', 0, ['weigth_decay', 'did you mean weight_decay?']),
    ('train:scheduler:milestone', [1], ['train:scheduler:milestone', 'did you mean milestones?']),
    ('train:pixel_opt:loss_wieght', 1, ['train:pixel_opt:loss_wieght', 'did you mean loss_weight?']),
    ('val:val_frequ', 1, ['val:val_frequ is not known', 'val_freq']),
    ('val:metrics:psnr:test_y_chanel', True, ['val:metrics:psnr:test_y_chanel', 'did you mean test_y_channel?']),
    ('logger:print_frq', 1, ['logger:print_frq is not known', 'print_freq']),
    ('logger:wandb:projekt', None, ['logger:wandb:projekt is not known', 'project']),
    ('dist_params:backnd', 'gloo', ['dist_params:backnd is not known', 'backend']),
    ('network_d', {'type': 'MSRResNet'}, ['network_d is not known', 'network_g']),
    # names that are not registered
    ('model_type', 'SRModl', ['model_type', 'did you mean SRModel?']),
    ('network_g:type', 'LKDNS', ['network_g:type', 'LKDN']),
    ('datasets:train:type', 'PairedImagesDataset', ['datasets:train:type', 'did you mean PairedImageDataset?']),
    ('train:optim_g:type', 'Adamm', ['train:optim_g:type', 'did you mean Adam?']),
    ('train:optim_g:type', 'adan', ['train:optim_g:type', 'did you mean Adan?']),
    ('train:scheduler:type', 'MultiStep', ['train:scheduler:type', 'MultiStepLR']),
    ('train:pixel_opt:type', 'L1', ['train:pixel_opt:type', 'L1Loss']),
    ('val:metrics:psnr:type', 'calculate_psrn', ['val:metrics:psnr:type', 'did you mean calculate_psnr?']),
    ('network_g:type', None, ['network_g:type is None']),
    # missing keys
    ('name', DELETE, ['has no name']),
    ('model_type', DELETE, ['has no model_type']),
    ('scale', DELETE, ['has no scale']),
    ('datasets', DELETE, ['has no datasets']),
    ('datasets:train', DELETE, ['datasets has no training dataset']),
    ('datasets:train:name', DELETE, ['datasets:train has no name']),
    ('datasets:train:type', DELETE, ['datasets:train has no type']),
    ('datasets:train:gt_size', DELETE, ['datasets:train has no gt_size']),
    ('datasets:train:batch_size_per_gpu', DELETE, ['datasets:train has no batch_size_per_gpu']),
    ('datasets:train:dataroot_lq', DELETE, ['datasets:train has no dataroot_lq']),
    ('network_g', DELETE, ['has no network_g']),
    ('network_g:type', DELETE, ['network_g has no type']),
    ('train', DELETE, ['has no train section']),
    ('train:total_iter', DELETE, ['train has no total_iter']),
    ('train:optim_g', DELETE, ['train has no optim_g']),
    ('train:optim_g:lr', DELETE, ['train:optim_g has no lr']),
    ('train:scheduler', DELETE, ['train has no scheduler']),
    ('train:scheduler:milestones', DELETE, ['train:scheduler has no milestones']),
    ('train:pixel_opt', DELETE, ['train has no loss']),
    ('val:metrics:psnr:type', DELETE, ['val:metrics:psnr has no type']),
    ('val:metrics:psnr:crop_border', DELETE, ['val:metrics:psnr has no crop_border']),
    # types
    ('name', 123, ['name is 123', 'text']),
    ('scale', 'two', ["scale is 'two'", 'whole number']),
    ('scale', 2.5, ['scale is 2.5', 'whole number']),
    ('num_gpu', 'all', ["num_gpu is 'all'", 'auto']),
    ('manual_seed', 'abc', ['manual_seed']),
    ('datasets:train', [1], ['datasets:train is [1]']),
    ('datasets:train:use_rot', 'yes please', ['datasets:train:use_rot', 'true or false']),
    ('datasets:train:batch_size_per_gpu', True, ['batch_size_per_gpu is True']),
    ('datasets:train:dataroot_gt', None, ['datasets:train:dataroot_gt is None']),
    ('network_g:num_feat', 'many', ["network_g:num_feat is 'many'", 'a number']),
    ('train:optim_g:lr', 'fast', ["train:optim_g:lr is 'fast'", 'a number']),
    ('train:optim_g', 'Adam', ["train:optim_g is 'Adam'", 'a block of options']),
    ('train:scheduler:milestones', 50, ['train:scheduler:milestones is 50', 'a list of whole numbers']),
    ('val:metrics', ['psnr'], ["val:metrics is ['psnr']"]),
    ('val:metrics:psnr', 'calculate_psnr', ["val:metrics:psnr is 'calculate_psnr'"]),
    ('logger', 'verbose', ["logger is 'verbose'"]),
    ('train:total_iter', float('inf'), ['train:total_iter']),
    # ranges
    ('scale', 0, ['scale is 0', '[1, inf)']),
    ('num_gpu', -1, ['num_gpu is -1']),
    ('manual_seed', -1, ['manual_seed is -1']),
    ('datasets:train:gt_size', -16, ['gt_size is -16']),
    ('datasets:train:num_worker_per_gpu', -1, ['num_worker_per_gpu is -1']),
    ('datasets:train:prefetch_mode', 'gpu', ["prefetch_mode is 'gpu'", 'cpu, cuda']),
    ('datasets:train:io_backend:type', 'zip', ["io_backend:type is 'zip'", 'disk, lmdb']),
    ('train:ema_decay', 1.5, ['train:ema_decay is 1.5', '[0, 1)']),
    ('train:total_iter', 0, ['train:total_iter is 0']),
    ('train:optim_g:lr', -1e-3, ['train:optim_g:lr is -0.001']),
    ('train:optim_g:betas', [0.9, 1.2], ['train:optim_g:betas is [0.9, 1.2]']),
    ('train:optim_g:eps', -1.0, ['train:optim_g is refused by Adam', 'epsilon']),
    ('train:pixel_opt:reduction', 'none', ['train:pixel_opt:reduction', 'mean, sum']),
    ('val:val_freq', 0, ['val:val_freq is 0']),
    ('val:metrics:psnr:better', 'Higher', ["val:metrics:psnr:better is 'Higher'", 'higher, lower']),
    ('val:metrics:psnr:crop_border', -1, ['crop_border is -1']),
    ('logger:print_freq', 0, ['logger:print_freq is 0']),
    ('dist_params:backend', 'ncl', ['dist_params:backend', 'nccl']),
    ('network_g:num_feat', -4, ['network_g is refused by MSRResNet']),
    # options that do not agree
    ('datasets:train:gt_size', 15, ['datasets:train:gt_size is 15', 'multiple of scale 2', 'use 14']),
    ('network_g:upscale', 4, ['network_g:upscale is 4, but scale is 2']),
    ('network_g:upscale', DELETE, ['network_g upscale is 4, but scale is 2']),
    ('network_g:num_in_ch', 1, ['network_g has num_in_ch 1']),
    ('datasets:train:color', 'y', ['num_in_ch 3']),
    ('train:warmup_iter', 100, ['train:warmup_iter is 100']),
    ('train:warmup_iter', 60, ['train:warmup_iter is 60', 'first milestone is at 50']),
    ('train:scheduler:milestones', [80, 50], ['milestones is [80, 50]']),
    (
        'train:scheduler',
        {'type': 'CosineAnnealingRestartLR', 'periods': [40, 40], 'restart_weights': [1, 1]},
        ['train:scheduler:periods add up to 80, less than total_iter 100'],
    ),
    ('train:scheduler', {'type': 'CosineAnnealingRestartLR', 'periods': [60, 60]}, ['train:scheduler', 'same length']),
    ('train:optim_g', {'type': 'Adan', 'lr': 1e-3, 'betas': [0.9, 0.99]}, ['betas has 2 values, but Adan takes 3']),
    ('train:optim_g:betas', [0.98, 0.92, 0.99], ['betas has 3 values, but Adam takes 2']),
    ('datasets:val_2', PAIRED, ['datasets:val_2:name is Validation']),
    ('datasets:test_1', PAIRED | {'name': 'T'}, ['datasets:test_1 cannot be used in training']),
    ('datasets:train_2', SINGLE, ['datasets:train_2 cannot be used in training']),
    ('datasets:train:prefetch_mode', 'cuda', ['prefetch_mode is cuda', 'pin_memory']),
    ('datasets:train:persistent_workers', True, ['persistent_workers needs workers']),
    ('datasets:val:persistent_workers', True, ['datasets:val:persistent_workers needs workers']),
    ('datasets:train:filename_tmpl', 'x2', ["filename_tmpl is 'x2'"]),
    ('datasets:train:filename_tmpl', '{}{}', ["filename_tmpl is '{}{}'"]),
    ('datasets:train:mean', [0.5, 0.5, 0.5], ['datasets:train has only one of mean and std']),
    ('datasets:train:io_backend:type', 'lmdb', ['must end in .lmdb']),
    ('datasets:train:io_backend:type', 'raw', ['use type: PairedCropDataset']),
    ('datasets:train:type', 'PairedCropDataset', ['datasets:train:type', 'float32: true']),
    ('name', '../up', ["name is '../up'"]),
    ('datasets:val:name', 'a/b', ["datasets:val:name is 'a/b'"]),
    ('logger:wandb:project', 'p', ['logger:wandb:project']),
    ('logger', {'wandb': {'project': 'p'}}, ['logger:wandb:project needs `use_tb_logger: true`']),
    # data and files
    ('datasets:train:dataroot_gt', 'nowhere/gt', ['datasets:train:dataroot_gt is nowhere/gt', 'does not exist']),
    ('datasets:val:dataroot_lq', 'nowhere/lq', ['datasets:val:dataroot_lq is nowhere/lq', 'does not exist']),
    ('datasets:train:filename_tmpl', '{}x4', ['do not pair', 'p0x4.png']),
    ('datasets:train:gt_size', 26, ['gt_size is 26, but', 'p0.png is 26x24']),
    ('datasets:train:batch_size_per_gpu', 5, ['batch_size_per_gpu is 5, but 4 images']),
    ('datasets:train:meta_info_file', 'nowhere.txt', ['datasets:train:meta_info_file', 'nowhere.txt']),
    ('val:metrics:psnr:crop_border', 12, ['val:metrics:psnr', 'smaller crop_border']),
    ('val:metrics:psnr:type', 'calculate_niqe', ['test_y_channel is not an argument of calculate_niqe']),
    ('path:pretrain_network_g', 'nowhere.pth', ['path:pretrain_network_g is nowhere.pth']),
    ('path:resume_state', 'nowhere.state', ['path:resume_state is nowhere.state', 'does not exist']),
]


@pytest.mark.parametrize('keys, value, parts', TRAIN_CASES)
def test_wrong_training_files(tmp_path, keys, value, parts):
    opt = train_options(tmp_path)
    change(opt, keys, value)
    message = refused(tmp_path, opt, is_train=True)
    assert [part for part in parts if part not in message] == []


TEST_CASES = [
    ('path:pretrain_network_g', DELETE, ['path has no pretrain_network_g']),
    ('path:pretrain_network_g', None, ['path has no pretrain_network_g']),
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
]


@pytest.mark.parametrize('keys, value, parts', TEST_CASES)
def test_wrong_test_files(tmp_path, keys, value, parts):
    write_pairs(tmp_path)
    opt = test_options(tmp_path, tmp_path / 'net.pth')
    change(opt, keys, value)
    message = refused(tmp_path, opt, is_train=False)
    assert [part for part in parts if part not in message] == []


def test_metric_without_ground_truth(tmp_path):
    opt = test_options(tmp_path, tmp_path / 'net.pth')
    opt['datasets'] = {'test': SINGLE}
    assert 'val:metrics:psnr compares with the ground truth' in refused(tmp_path, opt, is_train=False)


def test_the_message_has_the_line_of_the_key(tmp_path):
    opt = train_options(tmp_path)
    opt['train']['optim_g']['lerning_rate'] = 1
    path = write_options(tmp_path / 'wrong.yml', opt)
    line = 1 + (tmp_path / 'wrong.yml').read_text().splitlines().index('    lerning_rate: 1')
    assert f'{path}, line {line}: train:optim_g:lerning_rate ' in refused(tmp_path, opt, is_train=True)


def test_the_message_marks_a_forced_value(tmp_path):
    message = refused(tmp_path, train_options(tmp_path), True, ['--force_yml', 'train:optim_g:lr=-1', 'scale=2'])
    assert 'wrong.yml, --force_yml: train:optim_g:lr is -1' in message


def test_a_test_file_is_not_for_training_and_the_reverse(tmp_path):
    assert 'lkdn_basicsr.test' in refused(tmp_path, test_options(tmp_path, tmp_path / 'net.pth'), is_train=True)
    assert 'lkdn_basicsr.train' in refused(tmp_path, train_options(tmp_path), is_train=False)
