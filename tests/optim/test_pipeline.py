import pytest
import torch

from lkdn_basicsr import archs, checkpoints
from lkdn_basicsr.optim.adan import STATE
from tests.support.runs import change, run, same

pytestmark = pytest.mark.slow  # complete trainings

ADAN = dict(type='Adan', lr=5e-3, betas=[0.98, 0.92, 0.99])
SGD = dict(type='SGD', lr=1e-2, momentum=0.9, nesterov=True)


def train(home, monkeypatch):
    """Train, then resume from the state at iteration 4; return the final checkpoint, which is the same both times."""
    assert run(monkeypatch, 'train', '-opt', 'train.yml') is None
    expected = checkpoints.load('experiments/run/models/net_g_latest.pth')
    (home / 'experiments/run/training_states/7.state').rename('7.state')
    assert run(monkeypatch, 'train', '-opt', 'train.yml', '--auto_resume') is None
    resumed = checkpoints.load('experiments/run/models/net_g_latest.pth')
    assert same(resumed, expected)
    return resumed


@pytest.mark.parametrize(
    'optimizer, kept',
    [
        (dict(SGD, nesterov=False), {'momentum_buffer'}),  # heavy ball
        (SGD, {'momentum_buffer'}),
        (dict(type='Adam', lr=1e-3, betas=[0.9, 0.99]), {'step', 'exp_avg', 'exp_avg_sq'}),
        (dict(type='AdamW', lr=1e-3, weight_decay=0.01), {'step', 'exp_avg', 'exp_avg_sq'}),
        (dict(type='RMSprop', lr=1e-3), {'step', 'square_avg'}),
        (dict(ADAN, restart=100), set(STATE)),
        # R is such that a restart comes after the saved state, at four steps, and before the end, at seven.
        (dict(ADAN, restart=0.11), set(STATE)),
    ],
    ids=str,
)
def test_optimizer_trains_and_resumes_exactly(home, monkeypatch, optimizer, kept):
    change(home, train__optim_g=optimizer)
    train(home, monkeypatch)
    saved = checkpoints.load('experiments/run/training_states/4.state')['optimizers'][0]
    group = checkpoints.load('7.state')['optimizers'][0]['param_groups'][0]
    assert all(set(state) == kept for state in saved['state'].values())
    plain = dict(group, type=optimizer['type'], betas=list(group.get('betas', ())))
    assert optimizer.items() <= plain.items()
    if 'restart' in optimizer:
        assert (group['step'] < 7) == (optimizer['restart'] == 0.11) and saved['param_groups'][0]['step'] == 4


def test_batch_norm_and_network_entry_survive_training_saving_and_resuming(home, monkeypatch):
    network = dict(conv='BSConvU_dbb', attention='esa_cca', activation='silu')
    change(home, **{f'network_g__{name}': value for name, value in network.items()})
    resumed = train(home, monkeypatch)
    assert resumed['params_ema']['B1.c1_r.dw.kxk.1.num_batches_tracked'] == 7
    forms = resumed['params'], resumed['params_ema']
    buffers = [{key: value for key, value in form.items() if 'running' in key} for form in forms]
    assert buffers[0] and same(*buffers)  # they are copied, not averaged

    fused, outputs = checkpoints.load('experiments/run/models/net_g_latest_fused.pth'), []
    for saved, key, form in ((resumed, 'params_ema', network), (fused, 'params', dict(network, conv='BSConvU'))):
        cls, arguments = archs.config_from_state_dict(saved)
        assert saved['network_g'] == {'type': cls, **arguments} and form.items() <= arguments.items()
        rebuilt = getattr(archs, cls)(**arguments).eval()
        rebuilt.load_state_dict(saved[key])
        outputs.append(rebuilt(torch.rand(1, 3, 9, 8, generator=torch.Generator().manual_seed(0))))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)  # float32, through some fifteen layers, on values around 1


@pytest.mark.parametrize(
    'option, value, message',
    [
        ('attention', 'lsk', 'attention is lsk, but must be one of lka, esa_cca, esa, cca, none'),
        ('attention', None, 'attention is None, but must be one of lka'),
        ('activation', 3, 'network_g:activation is 3, but must be text'),
        ('lka_kernel', 2, 'lka_dilation is 3, but must be at most lka_kernel, 2'),
        ('lka_dilation', 2.5, 'lka_dilation is 2.5, but must be an integer of at least 1'),
        ('atention', 'esa', 'network_g:atention is not an argument of LKDN; did you mean attention?'),
        ('optimizer', dict(ADAN, restart=-1), 'restart must be 0 or more, not -1'),
        ('optimizer', dict(ADAN, restart='often'), "optim_g:restart is 'often', but must be a number"),
        ('optimizer', dict(SGD, momentum=0), 'optim_g is refused by SGD: Nesterov momentum requires'),
    ],
)
def test_invalid_options_are_reported_in_one_line(home, monkeypatch, option, value, message):
    change(home, **{'train__optim_g' if option == 'optimizer' else f'network_g__{option}': value})
    status = run(monkeypatch, 'train', '-opt', 'train.yml')
    assert message in status and '\n' not in status and not (home / 'experiments').exists()
