import copy
import math
import os

import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.models import build_model
from torch import nn

from lkdn_basicsr import archs, checkpoints, reparam
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.models import reparam_sr_model
from tests.support.runs import same

NETWORK = dict(type='LKDN', num_feat=8, num_atten=8, num_block=1, upscale=2)
TRAINING_FORM = dict(conv='BSConvU_rep', upsampler='pixelshuffle_rep')

OPTIONS = """
{name: test, model_type: ReparamSRModel, num_gpu: 0, is_train: true, dist: false, rank: 0, world_size: 1, scale: 2,
train: {
  ema_decay: 0.5, optim_g: {type: Adan, lr: 0.001}, total_iter: 10, pixel_opt: {type: L1Loss},
  scheduler: {type: MultiStepLR, milestones: [6], gamma: 0.5}},
val: {save_img: false, metrics: {psnr: {type: calculate_psnr, crop_border: 2, test_y_channel: true}}}}
"""


@pytest.fixture
def opt(tmp_path):
    """Options as BasicSR's pipelines give them to a model class, for training."""
    path = dict(models=str(tmp_path / 'models'), training_states=str(tmp_path / 'states'))
    for folder in path.values():
        os.mkdir(folder)
    return dict(yaml.safe_load(OPTIONS), network_g=dict(NETWORK, **TRAINING_FORM), path=path)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {'lq': torch.rand(2, 3, 8, 8, generator=generator), 'gt': torch.rand(2, 3, 16, 16, generator=generator)}


def train(model, iterations):
    for i in iterations:
        model.update_learning_rate(i, model.opt['train'].get('warmup_iter', -1))
        model.feed_data(batch(i))
        model.optimize_parameters(i)


def test_fused_ema_network_is_saved_next_to_the_checkpoint(opt, tmp_path):
    model = build_model(opt)
    train(model, range(1, 4))
    model.save(0, 3)
    model.save(-1, -1)
    names = sorted(path.name for path in (tmp_path / 'models').iterdir())
    assert names == ['net_g_3.pth', 'net_g_3_fused.pth', 'net_g_latest.pth', 'net_g_latest_fused.pth']

    saved = checkpoints.load(tmp_path / 'models/net_g_3.pth')
    fused = checkpoints.load(tmp_path / 'models/net_g_3_fused.pth')
    assert set(saved) == {'params', 'params_ema'} and set(fused) == {'params'}
    assert not same(saved['params'], saved['params_ema'])
    assert same(fused['params'], reparam.fuse_state_dict(saved['params_ema']))
    assert archs.config_from_state_dict(fused)[1]['conv'] == 'BSConvU'


def test_ema_is_the_running_mean_of_the_parameters(opt):
    model = build_model(opt)
    expected = {name: p.clone() for name, p in model.net_g.named_parameters()}
    for i in (1, 2):
        train(model, [i])
        expected = {name: 0.5 * expected[name] + 0.5 * p for name, p in model.net_g.named_parameters()}
    for name, p in model.net_g_ema.named_parameters():
        torch.testing.assert_close(p, expected[name], rtol=0, atol=1e-7)  # float32 rounding of values below 1


def test_ema_has_the_buffers_of_the_network(opt):
    opt['network_g'].update(conv='BSConvU_dbb')
    model = build_model(opt)
    train(model, (1, 2))
    buffers, averages = (dict(net.named_buffers()) for net in (model.net_g, model.net_g_ema))
    assert {buffer.dtype for buffer in buffers.values()} == {torch.float32, torch.int64}
    assert same(averages, buffers) and {int(averages[name]) for name in averages if 'num_batches' in name} == {2}


@pytest.mark.parametrize('arguments', [{}, TRAINING_FORM], ids=['network fused', 'network in training form'])
@pytest.mark.parametrize('form', ['training', 'fused'])
@pytest.mark.parametrize('wrapping', ['flat', 'params', 'params_ema', 'DataParallel'])
def test_any_checkpoint_is_tested_in_a_network_of_either_form(opt, tmp_path, arguments, form, wrapping):
    torch.manual_seed(0)
    network = build_network(dict(NETWORK, **TRAINING_FORM)).eval()
    state = network.state_dict() if form == 'training' else reparam.fuse(network).state_dict()
    if wrapping == 'DataParallel':
        state = {f'module.{key}': value for key, value in state.items()}
    key = None if wrapping == 'flat' else 'params_ema'
    torch.save({wrapping.replace('DataParallel', 'params'): state} if key else state, tmp_path / 'net.pth')

    opt.update(is_train=False, network_g=dict(NETWORK, **arguments))
    opt['path'].update(pretrain_network_g=str(tmp_path / 'net.pth'), param_key_g=key)
    model = build_model(opt)
    model.feed_data(batch())
    model.test()
    with torch.no_grad():
        expected = network(batch()['lq'])
    torch.testing.assert_close(model.output, expected, rtol=0, atol=1e-5)  # float32, through ten layers


@pytest.mark.parametrize('fused', [False, True])
def test_flat_checkpoint_starts_training_with_ema_if_it_is_in_training_form(opt, tmp_path, fused):
    network = build_network(opt['network_g'])
    torch.save((reparam.fuse(network) if fused else network).state_dict(), tmp_path / 'net.pth')
    opt['path'].update(pretrain_network_g=str(tmp_path / 'net.pth'), param_key_g=None)
    if fused:
        with pytest.raises(InputError, match='it is fused'):
            build_model(opt)
        return
    model = build_model(opt)
    for loaded in (model.net_g, model.net_g_ema):
        assert same(loaded.state_dict(), network.state_dict())


@pytest.mark.parametrize('strict', [True, False])
def test_checkpoint_of_another_network_is_reported_with_the_difference(opt, tmp_path, strict):
    torch.save({'params': nn.Conv2d(3, 3, 1).state_dict()}, tmp_path / 'net.pth')
    opt['path'].update(pretrain_network_g=str(tmp_path / 'net.pth'), strict_load_g=strict)
    with pytest.raises(InputError, match='net.pth .*fea_conv.pw.weight'):
        build_model(opt)


def test_warm_up_ends_at_the_full_rate_and_milestones_during_it_count(opt):
    opt['train'].update(warmup_iter=4, scheduler=dict(type='MultiStepLR', milestones=[2, 6], gamma=0.5))
    model, rates = build_model(opt), []
    for i in range(1, 10):
        train(model, [i])
        rates += model.get_current_learning_rate()
    # Milestone n halves from iteration n + 1, as in BasicSR; warm-up is a factor of i / 4 before iteration 4.
    assert rates == pytest.approx([1e-3 * f for f in (1 / 4, 2 / 4, 3 / 8, 1 / 2, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4)])


def test_losses_that_are_not_finite_stop_the_run_before_the_step(opt):
    model = build_model(opt)
    before, data = copy.deepcopy(model.net_g.state_dict()), batch()
    data['gt'][0, 0, 0, 0] = math.nan
    model.feed_data(data)
    with pytest.raises(InputError, match='nan at iteration 7'):
        model.optimize_parameters(7)
    assert same(model.net_g.state_dict(), before)


def test_losses_are_checked_once_per_iteration(opt, monkeypatch):
    checked = []
    monkeypatch.setattr(reparam_sr_model, 'check_finite', lambda losses, iteration: checked.append(iteration))
    train(build_model(opt), [1, 2])
    assert checked == [1, 2]


def test_uint8_is_converted_on_the_device(opt):
    model = build_model(opt)
    data = {key: (value * 255).round() for key, value in batch().items()}
    model.feed_data({key: value.byte() for key, value in data.items()})
    assert model.lq.dtype == model.gt.dtype == torch.float32
    assert torch.equal(model.gt, data['gt'] / 255) and torch.equal(model.lq, data['lq'] / 255)


def test_resumed_state_continues_the_optimizer_and_the_schedule(opt, tmp_path):
    model = build_model(opt)
    train(model, range(1, 9))
    model.save(0, 8)
    opt['path']['pretrain_network_g'] = str(tmp_path / 'models/net_g_8.pth')
    resumed = build_model(opt)
    resumed.resume_training(torch.load(tmp_path / 'states/8.state', weights_only=True))
    assert opt['train']['optim_g']['type'] == resumed.opt['train']['optim_g']['type'] == 'Adan'  # not removed
    for m in (model, resumed):
        train(m, [9, 10])
    assert resumed.get_current_learning_rate() == model.get_current_learning_rate() == [5e-4]
    for name in ('net_g', 'net_g_ema'):
        assert same(getattr(resumed, name).state_dict(), getattr(model, name).state_dict())
