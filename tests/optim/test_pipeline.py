"""Optimizers and variants of the networks, from option files."""

import pytest
import torch
import yaml

from lkdn_basicsr import archs, checkpoints
from lkdn_basicsr.optim.adan import STATE
from tests.support.runs import run, write

BETAS = [0.98, 0.92, 0.99]


def change(network=(), optimizer=()):
    """Change options in ``train.yml``; return ``network_g``."""
    with open('train.yml') as file:
        options = yaml.safe_load(file)
    options['network_g'].update(network)
    if optimizer:
        options['train']['optim_g'] = dict(optimizer)
    write('train.yml', options)
    return options['network_g']


@pytest.mark.parametrize(
    'optimizer, kept',
    [
        (dict(type='SGD', lr=1e-2, momentum=0.9), {'momentum_buffer'}),  # heavy ball
        (dict(type='SGD', lr=1e-2, momentum=0.9, nesterov=True), {'momentum_buffer'}),
        (dict(type='Adam', lr=1e-3, betas=[0.9, 0.99]), {'step', 'exp_avg', 'exp_avg_sq'}),
        (dict(type='AdamW', lr=1e-3, weight_decay=0.01), {'step', 'exp_avg', 'exp_avg_sq'}),
        (dict(type='Adan', lr=5e-3, betas=BETAS, restart=100), set(STATE)),
        # R is such that a restart comes after the saved state, at four steps, and before the end, at seven.
        (dict(type='Adan', lr=5e-3, betas=BETAS, restart=0.11), set(STATE)),
    ],
    ids=str,
)
def test_optimizer_trains_and_resumes_exactly(home, monkeypatch, optimizer, kept):
    change(optimizer=optimizer)
    assert run(monkeypatch, 'train', '-opt', 'train.yml') is None
    expected = checkpoints.load('experiments/run/models/net_g_latest.pth')
    saved = checkpoints.load('experiments/run/training_states/4.state')['optimizers'][0]
    last = checkpoints.load('experiments/run/training_states/7.state')['optimizers'][0]
    assert all(set(state) == kept for state in saved['state'].values())
    group = last['param_groups'][0]
    assert {name: group[name] for name in optimizer if name not in ('type', 'betas')} == {
        name: value for name, value in optimizer.items() if name not in ('type', 'betas')
    }
    if 'restart' in optimizer:
        assert (group['step'] < 7) == (optimizer['restart'] == 0.11) and saved['param_groups'][0]['step'] == 4

    (home / 'experiments/run/training_states/7.state').unlink()
    assert run(monkeypatch, 'train', '-opt', 'train.yml', '--auto_resume') is None
    resumed = checkpoints.load('experiments/run/models/net_g_latest.pth')
    for key in ('params', 'params_ema'):
        assert all(torch.equal(value, expected[key][name]) for name, value in resumed[key].items())


def test_batch_norm_and_network_entry_survive_training_saving_and_resuming(home, monkeypatch):
    network = change(network=dict(conv='BSConvU_dbb', attention='esa_cca', activation='silu'))
    assert run(monkeypatch, 'train', '-opt', 'train.yml') is None
    expected = checkpoints.load('experiments/run/models/net_g_latest.pth')
    assert expected['params_ema']['B1.c1_r.dw.kxk.1.num_batches_tracked'] == 7
    (home / 'experiments/run/training_states/7.state').unlink()
    assert run(monkeypatch, 'train', '-opt', 'train.yml', '--auto_resume') is None
    resumed = checkpoints.load('experiments/run/models/net_g_latest.pth')
    for key in ('params', 'params_ema'):
        assert all(torch.equal(value, expected[key][name]) for name, value in resumed[key].items())

    cls, arguments = archs.config_from_state_dict(resumed)
    assert resumed['network_g'] == {'type': cls, **arguments} == {**arguments, **network}
    trained = getattr(archs, cls)(**arguments)
    trained.load_state_dict(resumed['params_ema'])
    saved = checkpoints.load('experiments/run/models/net_g_latest_fused.pth')
    cls, arguments = archs.config_from_state_dict(saved)
    assert saved['network_g'] == {'type': cls, **arguments}
    assert (arguments['conv'], arguments['attention'], arguments['activation']) == ('BSConvU', 'esa_cca', 'silu')
    fused = getattr(archs, cls)(**arguments)
    fused.load_state_dict(saved['params'])
    x = torch.rand(1, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # float32, through some fifteen layers, on values around 1.
        torch.testing.assert_close(fused(x), trained.eval()(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'section, options, message',
    [
        ('network', dict(attention='lsk'), 'attention is lsk, but must be one of lka, esa_cca, esa, cca, none'),
        ('network', dict(attention=None), 'attention is None, but must be one of lka'),
        ('network', dict(activation=3), 'network_g:activation is 3, but must be text'),
        ('network', dict(lka_kernel=2), 'lka_dilation is 3, but must be at most lka_kernel, 2'),
        ('network', dict(lka_dilation=2.5), 'lka_dilation is 2.5, but must be an integer of at least 1'),
        ('network', dict(atention='esa'), 'network_g:atention is not an argument of LKDN; did you mean attention?'),
        ('optimizer', dict(type='Adan', lr=1e-3, restart=-1), 'restart must be 0 or more, not -1'),
        ('optimizer', dict(type='Adan', lr=1e-3, restart='often'), "optim_g:restart is 'often', but must be a number"),
        (
            'optimizer',
            dict(type='SGD', lr=1e-3, nesterov=True),
            'optim_g is refused by SGD: Nesterov momentum requires',
        ),
    ],
)
def test_invalid_options_are_reported_in_one_line(home, monkeypatch, section, options, message):
    change(**{section: options})
    status = run(monkeypatch, 'train', '-opt', 'train.yml')
    assert message in status and '\n' not in status and not (home / 'experiments').exists()
