import json

import numpy as np
import pytest
import torch

from lkdn_basicsr.optim import Adan

SETTINGS = dict(lr=0.05, betas=(0.9, 0.8, 0.95), eps=1e-6, weight_decay=0.1)


def problem():
    """The problem of the golden trajectories: parameters, and a function that returns the loss."""

    def series(function, factor, *shape):
        return torch.from_numpy(function(factor * np.arange(np.prod(shape), dtype=np.float64)).reshape(shape))

    w, b = series(np.sin, 1, 7, 5).requires_grad_(), series(np.cos, 1, 7).requires_grad_()
    x, y = series(np.sin, 0.3, 40, 5), series(np.cos, 0.17, 40, 7)

    def loss():
        residual = x @ w.T + b - y
        return residual.abs().mean() + 0.1 * residual.square().mean()

    return [w, b], loss


def run(optimizer, loss, steps):
    """Take steps, and check that they do not modify the gradients."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        grads = [p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        before = [grad.clone() for grad in grads]
        optimizer.step()
        assert all(map(torch.equal, grads, before))


@pytest.mark.parametrize('foreach', [True, False])
@pytest.mark.parametrize('case', ['default', 'recipe', 'wd', 'wd_noprox', 'clip'])
def test_trajectory_equals_the_official_one(shared, case, foreach):
    arguments = json.loads((shared / 'golden/adan.json').read_text())[case]
    params, loss = problem()
    optimizer = Adan(params, foreach=foreach, **arguments)
    trajectory = []
    for step in range(60):
        if step == 30:
            optimizer.param_groups[0]['lr'] /= 2
        run(optimizer, loss, 1)
        trajectory.append(torch.cat([p.detach().flatten() for p in params]).numpy())
    # float64 rounding over 60 steps on parameters around 1.
    np.testing.assert_allclose(trajectory, np.load(shared / 'golden/adan.npz')[case], rtol=0, atol=1e-12)


def by_hand(params, loss, steps, lr, betas, eps, weight_decay, restart):
    """Algorithm 1 of the paper with bias correction, in NumPy; return the steps after which its condition restarts."""
    b1, b2, b3 = betas
    restarts, k = [], 0
    for number in range(1, steps + 1):
        if k == 0:
            state, moved = [[np.zeros(p.shape)] * 3 + [None] for p in params], 0
        k += 1
        for p, grad, s in zip(params, torch.autograd.grad(loss(), params), state):
            g, (m, v, n, last) = grad.numpy(), s
            d = g - (g if last is None else last)
            m, v, n = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * d, b3 * n + (1 - b3) * (g + b2 * d) ** 2
            s[:] = m, v, n, g
            root = np.sqrt(n / (1 - b3**k))
            step = lr * (m / (1 - b1**k) + b2 * v / (1 - b2**k)) / (root + eps)
            old = p.detach().numpy()
            p.data = torch.from_numpy((old - step) / (1 + lr * weight_decay))
            moved += (root * (p.detach().numpy() - old) ** 2).sum()
        if 0 < restart**2 < k * moved:
            restarts.append(number)
            k = 0
    return restarts


@pytest.mark.parametrize('foreach', [True, False])
@pytest.mark.parametrize('restart', [0, 0.15])
def test_steps_and_restarts_equal_those_of_the_paper(foreach, restart):
    expected, expected_loss = problem()
    restarts = by_hand(expected, expected_loss, 40, **SETTINGS, restart=restart)
    assert len(set(np.diff(restarts))) > 1 or not restart  # not periodic
    params, loss = problem()
    optimizer, found = Adan(params, foreach=foreach, **SETTINGS, restart=restart), []
    for number in range(1, 41):
        run(optimizer, loss, 1)
        if optimizer.param_groups[0]['step'] == 0:
            found.append(number)
    assert found == restarts
    for p, q in zip(params, expected):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)  # float64 rounding over 40 steps


@pytest.mark.parametrize('foreach', [True, False])
def test_parameter_groups_have_their_own_settings(foreach):
    groups = [
        dict(lr=0.02, betas=(0.9, 0.8, 0.95), eps=1e-4, weight_decay=0.3, no_prox=True),
        dict(lr=0.003, max_grad_norm=1e-3),
    ]
    params, loss = problem()
    run(Adan([dict(group, params=[p]) for group, p in zip(groups, params)], foreach=foreach), loss, 1)
    for i, group in enumerate(groups):  # the first step of a parameter is the same with its group's settings for all
        single, loss = problem()
        run(Adan(single, foreach=not foreach, **group), loss, 1)
        torch.testing.assert_close(params[i], single[i], rtol=0, atol=1e-15)


def test_restart_counts_and_resets_all_groups():
    params, loss = problem()
    together = Adan(params, restart=0.15, **SETTINGS)
    others, other_loss = problem()
    apart = Adan([dict(params=others[:1]), dict(params=others[1:], restart=0.15)], **SETTINGS)
    for _ in range(20):
        run(together, loss, 1)
        run(apart, other_loss, 1)
        assert {group['step'] for group in apart.param_groups} == {together.param_groups[0]['step']}
    assert all(torch.equal(p, q) for p, q in zip(params, others))


@pytest.mark.parametrize('settings', [dict(foreach=True), dict(foreach=False), dict(SETTINGS, restart=0.15)])
@pytest.mark.parametrize('steps', [3, 7, 8])
def test_saved_state_continues_exactly_also_to_the_next_restart(tmp_path, settings, steps):
    params, loss = problem()
    optimizer = Adan(params, **settings)
    run(optimizer, loss, steps)
    torch.save(dict(params=[p.detach() for p in params], state=optimizer.state_dict()), tmp_path / 'state')
    saved = torch.load(tmp_path / 'state', weights_only=True)
    resumed, resumed_loss = problem()
    for p, value in zip(resumed, saved['params']):
        p.data.copy_(value)
    other = Adan(resumed, foreach=settings.get('foreach', True))
    other.load_state_dict(saved['state'])
    for _ in range(20):
        run(optimizer, loss, 1)
        run(other, resumed_loss, 1)
        assert optimizer.param_groups[0]['step'] == other.param_groups[0]['step']
    assert all(torch.equal(p, q) for p, q in zip(params, resumed))


def test_state_of_an_earlier_release_without_restart_is_loaded():
    params, loss = problem()
    optimizer = Adan(params)
    run(optimizer, loss, 2)
    state = optimizer.state_dict()
    del state['param_groups'][0]['restart']
    other = Adan(params)
    other.load_state_dict(state)
    run(other, loss, 1)
    assert other.param_groups[0]['step'] == 3


def test_closure_is_evaluated_with_gradients_and_its_loss_returned():
    params, loss = problem()
    optimizer = Adan(params, lr=0.01)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    values = [optimizer.step(closure).item() for _ in range(20)]
    assert values[-1] < 0.8 * values[0]


def test_parameters_without_gradient_are_ignored():
    params, loss = problem()
    idle = torch.ones(3, requires_grad=True)
    run(Adan([*params, idle]), loss, 2)
    assert torch.equal(idle, torch.ones(3))


BETAS = [('betas', (0.9, 0.99)), ('betas', (0.9, 0.9, 1.0))]
NEGATIVE = [(name, -1) for name in ('lr', 'eps', 'restart', 'weight_decay', 'max_grad_norm')]


@pytest.mark.parametrize('name, value', [('lr', float('nan')), *BETAS, *NEGATIVE])
def test_invalid_settings_are_reported_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        Adan([torch.zeros(1)], **{name: value})


def test_sparse_and_complex_gradients_raise():
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    z.abs().sum().backward()
    for parameter in (embedding.weight, z):
        with pytest.raises(RuntimeError, match='sparse or complex'):
            Adan([parameter]).step()
