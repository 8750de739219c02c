"""The dry run: what would fail later is reported in one line, before anything on disk changes."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from lkdn_basicsr.training import run as run_module
from tests.support import runs
from tests.support.networks import save_checkpoint, small_lkdn

NETWORK = dict(type='LKDN', num_feat=8, num_atten=8, num_block=1, upscale=2)


def refused(home, monkeypatch, *arguments):
    """Return the message with which a training is refused, by --check as well; no file may change."""
    before = runs.snapshot(home)
    message = runs.train(monkeypatch, *arguments)
    assert message == runs.train(monkeypatch, *arguments, '--check') and '\n' not in message
    assert runs.snapshot(home) == before
    return message


@pytest.mark.parametrize(
    'option, value, message',
    [
        ('network_g', dict(NETWORK, num_out_ch=1), 'network_g gives 2x1x16x16 for training samples, lq 2x3x8x8, gt'),
        ('network_g', dict(NETWORK, num_in_ch=4), 'network_g fails with training samples, lq 2x3x8x8'),
        ('network_g', dict(NETWORK, num_feat=10**5), 'network_g gives a network of'),
        (
            'network_g',
            dict(NETWORK, num_feat=10**9),
            'network_g is refused by LKDN: num_feat is 1000000000, but must be',
        ),
        ('network_g', dict(type='VGGStyleDiscriminator', num_in_ch=3, num_feat=4), 'network_g fails with'),
        ('train__optim_g', dict(type='LBFGS', lr=1.0), 'train:optim_g cannot train network_g with LBFGS'),
        ('train__optim_g', dict(type='SparseAdam', lr=1.0), 'train:optim_g cannot train network_g with SparseAdam'),
        ('train__optim_g', dict(type='Muon', lr=1.0), 'train:optim_g is refused for the parameters of network_g (Muon'),
        ('train__perceptual_opt', dict(type='PerceptualLoss', layer_weights={'conv5': 1}), 'did you mean conv5_'),
        ('train__perceptual_opt', dict(type='PerceptualLoss', layer_weights={'conv1_1': 1}, vgg_type='vgg9'), 'vgg19'),
        (
            'train__pixel_opt',
            dict(type='GANLoss', gan_type='x'),
            'train:pixel_opt is refused by GANLoss (GAN type x is',
        ),
        ('datasets__train__batch_size_per_gpu', 10**9, 'batch_size_per_gpu is 1000000000, which gives batches of'),
        ('val__metrics', {'niqe': dict(type='calculate_niqe', crop_border=0, input_order='CWH')}, 'val:metrics:niqe'),
    ],
)
def test_refused_options(home, monkeypatch, option, value, message):
    enlarged = {'datasets__train__dataset_enlarge_ratio': 10**9} if 'batch' in option else {}
    runs.change(home, **{option: value}, **enlarged)
    if 'niqe' in value if isinstance(value, dict) else False:
        shutil.rmtree('val')
        runs.write_images(home / 'val', 1, size=128)
    assert message in refused(home, monkeypatch)


def test_weights_of_a_perceptual_loss_that_cannot_be_downloaded(home, monkeypatch, capsys):
    monkeypatch.setenv('TORCH_HOME', str(home / 'cache'))
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
    runs.change(home, train__perceptual_opt=dict(type='PerceptualLoss', layer_weights={'conv1_1': 1.0}))
    assert runs.train(monkeypatch, '--check') == 0
    assert 'vgg19-dcbb9e9d.pth does not exist and will be downloaded' in capsys.readouterr().out
    message = runs.train(monkeypatch)
    assert 'train:perceptual_opt needs weights: vgg19-dcbb9e9d.pth could not be downloaded' in message
    assert '\n' not in message and not (home / 'experiments').exists()


def test_the_smallest_image_is_super_resolved(home, monkeypatch):
    runs.change(home, network_g=dict(NETWORK, attention='esa'))
    assert runs.train(monkeypatch, '--check') == 0
    for folder, size in (('gt', 4), ('lq', 2)):
        cv2.imwrite(f'val/{folder}/tiny.png', np.zeros((size, size, 3), np.uint8))
    runs.change(home, 'val:metrics:psnr:crop_border=0')
    assert 'datasets:val has an image that network_g fails with, tiny of val (lq 3x2x2)' in refused(home, monkeypatch)


def test_what_fits_a_network_with_another_upsampler_and_conv_is_loaded(home, monkeypatch):
    save_checkpoint(small_lkdn(upscale=2), 'net.pth')
    runs.change(home, network_g=dict(NETWORK, conv='BSConvU_rep', upsampler='pixelshuffle_rep'), train__total_iter=1)
    runs.change(home, path__pretrain_network_g='net.pth')
    assert 'does not fit network_g' in refused(home, monkeypatch)
    runs.change(home, path__strict_load_g=False)
    assert runs.train(monkeypatch) is None
    assert 'l_pix' in runs.log(home)


@pytest.mark.parametrize(
    'network', [dict(NETWORK, num_block=2), dict(type='MSRResNet', num_in_ch=3, num_out_ch=3, num_feat=4, upscale=2)]
)
def test_a_run_does_not_resume_with_another_network(home, monkeypatch, network):
    assert runs.train(monkeypatch) is None
    runs.change(home, network_g=network, train__total_iter=9)
    message = refused(home, monkeypatch, '--auto_resume')
    assert 'network_g' in message and 'net_g_7.pth' in message


def test_weights_that_are_not_finite(home, monkeypatch):
    network = small_lkdn(upscale=2)
    network.c1.bias.data[0] = torch.nan
    save_checkpoint(network, 'net.pth')
    runs.change(home, network_g=NETWORK, path__pretrain_network_g='net.pth')
    assert 'net' in refused(home, monkeypatch)


def test_a_run_is_the_same_with_and_without(home, monkeypatch):
    networks = []
    for _ in range(2):
        assert runs.train(monkeypatch) is None
        networks.append(torch.load('experiments/run/models/net_g_latest.pth'))
        states = torch.load('experiments/run/training_states/7.state')['random']
        monkeypatch.setattr(run_module, 'dry_run', lambda *_: [])
    assert runs.same(*networks)
    assert runs.same(states, torch.load('experiments/run/training_states/7.state')['random'])
