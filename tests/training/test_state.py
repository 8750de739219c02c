"""Training states that were edited: the border refuses every entry of another form."""

import random
from collections import OrderedDict

import pytest
import torch

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.training import state
from tests.support.runs import same

ENDLESS: list = []
ENDLESS.append(ENDLESS)
REFUSED = {
    'version': ['1', -1],
    'epoch': [None, '3', 1.0, -1, True, 10**300],
    'iter': [None, '4', 4.0, -1, torch.tensor(4)],
    'optimizers': [None, {}, [None], [{}], [{'state': {}}], [{'state': {}, 'param_groups': {}}]],
    'optimizers:0:state:0:exp_avg': [
        torch.full((3,), float('nan')),
        torch.eye(3).to_sparse(),
        torch.ones(3, device='meta'),
    ],
    'optimizers:0:param_groups:0': [None, {3: 4}, {'params': ENDLESS}],
    'schedulers': [None, 'MultiStepLR', [3], [{}]],
    'optimizer_names': ['Adam', [3]],
    'best_metric_results': [[], {'val': {'psnr': 30}}, {'val': {'psnr': {'better': 'higher', 'val': 'x', 'iter': 4}}}],
    'random': [{}, [None], [{}]],
    'random:0:python:state': [None, torch.ones(3), torch.ones(625)],
    'random:0:python:gauss': ['x'],
    'random:0:numpy:position': [625, 'x'],
    'random:0:numpy:state': [torch.ones(3, 3)],
    'random:0:torch': [torch.ones(3), torch.zeros(5056)],
    'random:0:cuda': [torch.zeros(16), 'x'],
    'files': [[], {'net_g_4.pth': 3}, {3: 'x'}],
    'validated': ['x'],
    'finished': ['yes', 1],
    'options': ['x', {}, {'train': {}}],
    'options:manual_seed': [None, 'x', 1.5],
    'options:train:optim_g': [None, 'Adam', {}],
    'options:train:warmup_iter': ['x', ENDLESS],
    'global_batch': ['x', 1.5],
    'tensorboard': [3, {'events': -1}],
}


@pytest.fixture
def contents():
    """What a run saves."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], 1e-3, betas=(0.9, 0.99))
    parameter.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5])
    options = dict(manual_seed=3, train=dict(optim_g=dict(type='Adam'), scheduler=dict(type='MultiStepLR')))
    return {
        'version': state.VERSION,
        'epoch': 0,
        'iter': 4,
        'optimizers': [optimizer.state_dict()],
        'schedulers': [scheduler.state_dict()],
        'optimizer_names': ['Adam'],
        'best_metric_results': {'val': {'psnr': dict(better='higher', val=float('-inf'), iter=-1)}},
        'random': [state.random_states(torch.device('cpu'))],
        'files': {'net_g_4.pth': 'b' * 64},
        'validated': 4,
        'finished': False,
        'options': options,
        'global_batch': 3,
        'tensorboard': {'events.out.1': 100},
    }


def test_state_of_a_run_of_basicsr_and_of_earlier_releases_is_accepted(contents, tmp_path):
    checkpoints.save(contents, tmp_path / '4.state')
    assert same(state.parse(checkpoints.load(tmp_path / '4.state'), '4.state'), contents)
    required = {name: contents[name] for name in ('epoch', 'iter', 'optimizers', 'schedulers')}
    assert state.parse(OrderedDict(required, tensorboard=None), '4.state') == required  # BasicSR saves only these


CASES = [(keys, value) for keys, values in REFUSED.items() for value in values]


@pytest.mark.parametrize('keys, value', CASES, ids=lambda case: case if isinstance(case, str) else type(case).__name__)
def test_edited_entry_is_refused_by_its_name(contents, keys, value):
    before = random.getstate(), torch.get_rng_state()
    *parents, last = (int(key) if key.isdigit() else key for key in keys.split(':'))
    block = contents
    for key in parents:
        block = block[key]
    block[last] = value
    with pytest.raises(InputError, match=f'4.state is damaged: its entry {keys.partition(":")[0]} ') as caught:
        state.parse(contents, '4.state')
    assert '\n' not in str(caught.value)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize('name', ['epoch', 'iter', 'optimizers', 'schedulers'])
def test_missing_entry_is_reported(contents, name):
    del contents[name]
    with pytest.raises(InputError, match='4.state is no training state of BasicSR'):
        state.parse(contents, '4.state')


def test_state_of_a_newer_release_is_refused(contents):
    with pytest.raises(InputError, match='4.state was written by a newer release: update lkdn_basicsr'):
        state.parse(contents | {'version': state.VERSION + 1, 'epoch': 'other'}, '4.state')
