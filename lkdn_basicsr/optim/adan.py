"""Adan (Xie et al., Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models, TPAMI 2024)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

STATE = ('exp_avg', 'exp_avg_sq', 'exp_avg_diff', 'neg_pre_grad')  # m, n, v and −g, named as in the authors' code
States = list[dict[str, Tensor]]


class Adan(Optimizer):
    """Adan, algorithm 1 of the paper, with the defaults and the state layout of the authors' code.

    With the gradient g_k and the decay rates β1, β2, β3: m ← β1 m + (1−β1) g_k,
    v ← β2 v + (1−β2)(g_k − g_{k−1}), n ← β3 n + (1−β3)(g_k + β2 (g_k − g_{k−1}))², each divided by its bias correction;
    θ ← (θ − lr (m + β2 v) / (√n + eps)) / (1 + lr λ). Gradients are not modified.

    Args:
        params: parameters, or dicts that define parameter groups; a group can set each of the other arguments.
        lr: learning rate.
        betas: β1, β2, β3, each in [0, 1).
        eps: added to the denominator.
        weight_decay: λ, decoupled from the gradient.
        max_grad_norm: scale the gradients down if their norm over all groups is larger; 0 for never.
        no_prox: decay the weights before the step, θ (1 − lr λ), as AdamW does, instead of dividing after it.
        foreach: one call for all tensors: faster, with one more copy of the parameters in memory, and the same result.
        restart: R of the paper's restart condition, which one of its convergence proofs uses, and of its experiments
            only one table; 0 for never. Let k be the number of steps since the last restart. After a step with
            k · Σ_t ‖√√n_t (θ_{t+1} − θ_t)‖² > R², all moments and step counts are reset, so that the next step is a
            first one. The norms are over all groups, and n includes its bias correction. Where groups differ, each R
            above 0 is a condition of its own. The left side grows about as k does: a small LKDN at lr 5e-3 passes 1
            after some 150 steps. Costs a copy of the parameters and a device synchronization per step.

    Raises:
        ValueError: an argument is out of its range.
        RuntimeError: in ``step``, a gradient is sparse or complex.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
        no_prox: bool = False,
        foreach: bool = True,
        restart: float = 0.0,
    ) -> None:
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, max_grad_norm=max_grad_norm)
        super().__init__(params, dict(defaults, no_prox=no_prox, foreach=foreach, restart=restart))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault('restart', 0.0)  # missing in the states of earlier releases

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name in ('lr', 'eps', 'weight_decay', 'max_grad_norm', 'restart'):
            if not 0 <= group[name] < math.inf:
                raise ValueError(f'Adan: {name} must be 0 or more, not {group[name]}')
        if len(group['betas']) != 3 or not all(0 <= beta < 1 for beta in group['betas']):
            raise ValueError(f'Adan: betas must be three numbers in [0, 1), not {group["betas"]}')

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step. Return the loss of the closure, which evaluates it again, or None without a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        watched = any(group['restart'] > 0 for group in self.param_groups)
        norm = self._gradient_norm() if any(group['max_grad_norm'] > 0 for group in self.param_groups) else None
        for group in self.param_groups:
            params = [p for p in group['params'] if p.grad is not None]
            grads = [p.grad for p in params]
            if any(p.grad.is_sparse or torch.is_complex(p) for p in params):
                raise RuntimeError('Adan does not support sparse or complex gradients')
            if norm is not None and group['max_grad_norm'] > 0:
                clip = torch.clamp(norm.new_tensor(group['max_grad_norm']) / (norm + group['eps']), max=1)
                grads = [grad * clip.to(grad.device) for grad in grads]

            group['step'] = group.get('step', 0) + 1
            for p, grad in zip(params, grads):
                if not self.state[p]:
                    self.state[p] = {name: torch.zeros_like(p) for name in STATE[:3]}
                    self.state[p]['neg_pre_grad'] = -grad  # the first difference of gradients is zero
            states = [self.state[p] for p in params]
            before = [p.clone() for p in params] if watched else []
            if params:
                (_multi_tensor_adan if group['foreach'] else _single_tensor_adan)(params, grads, states, group)
            if before:
                group['moved'] = group.get('moved', 0.0) + _moved(params, before, states, group)
        if watched:
            moved = sum(group.get('moved', 0.0) for group in self.param_groups)
            if any(0 < group['restart'] ** 2 < group['step'] * moved for group in self.param_groups):
                self.restart_opt()
        return loss

    def restart_opt(self) -> None:
        """Reset all moments and step counts, so that the next step is a first one (the name in the authors' code)."""
        self.state.clear()
        for group in self.param_groups:
            group['step'] = 0
            group.pop('moved', None)

    def _gradient_norm(self) -> Tensor:
        """Return the norm over all groups, accumulated in float32 for any dtype, as in the authors' code."""
        grads = [p.grad for group in self.param_groups for p in group['params'] if p.grad is not None]
        total = torch.zeros(1, dtype=torch.float32, device=grads[0].device if grads else None)
        for grad in grads:
            if not grad.is_sparse:  # step() raises for it
                total.add_(grad.pow(2).sum().to(total.device))
        return total.sqrt().squeeze()


def _moved(params: list[Tensor], before: list[Tensor], states: States, group: dict[str, Any]) -> float:
    """Return what a step adds to the sum of the restart condition: its squared length, weighted by √n."""
    steps = torch._foreach_sub(params, before)
    weights = torch._foreach_div([state['exp_avg_sq'] for state in states], 1 - group['betas'][2] ** group['step'])
    for _ in range(2):
        torch._foreach_sqrt_(weights)
    torch._foreach_mul_(steps, weights)
    return torch.nn.utils.get_total_norm(steps).item() ** 2


def _scalars(group: dict[str, Any]) -> tuple[float, float, float]:
    """Return the scalar factors of a step: those of m and of v, and the square root of n's bias correction."""
    (beta1, beta2, beta3), step, lr = group['betas'], group['step'], group['lr']
    return lr / (1 - beta1**step), lr * beta2 / (1 - beta2**step), math.sqrt(1 - beta3**step)


def _single_tensor_adan(params: list[Tensor], grads: list[Tensor], states: States, group: dict[str, Any]) -> None:
    beta1, beta2, beta3 = group['betas']
    step_size, step_size_diff, bias_correction3_sqrt = _scalars(group)
    decay = group['lr'] * group['weight_decay']
    for param, grad, state in zip(params, grads, states):
        exp_avg, exp_avg_sq, exp_avg_diff, neg_pre_grad = (state[name] for name in STATE)
        diff = neg_pre_grad.add_(grad)
        exp_avg.mul_(beta1).add_(grad, alpha=1 - beta1)
        exp_avg_diff.mul_(beta2).add_(diff, alpha=1 - beta2)
        update = diff.mul_(beta2).add_(grad)
        exp_avg_sq.mul_(beta3).addcmul_(update, update, value=1 - beta3)
        denom = exp_avg_sq.sqrt().div_(bias_correction3_sqrt).add_(group['eps'])

        if group['no_prox']:
            param.mul_(1 - decay)
        param.addcdiv_(exp_avg, denom, value=-step_size)
        param.addcdiv_(exp_avg_diff, denom, value=-step_size_diff)
        if not group['no_prox']:
            param.div_(1 + decay)
        neg_pre_grad.copy_(grad).neg_()


def _multi_tensor_adan(params: list[Tensor], grads: list[Tensor], states: States, group: dict[str, Any]) -> None:
    beta1, beta2, beta3 = group['betas']
    step_size, step_size_diff, bias_correction3_sqrt = _scalars(group)
    decay = group['lr'] * group['weight_decay']
    exp_avgs, exp_avg_sqs, exp_avg_diffs, neg_pre_grads = ([state[name] for state in states] for name in STATE)
    diffs = neg_pre_grads
    torch._foreach_add_(diffs, grads)
    torch._foreach_mul_(exp_avgs, beta1)
    torch._foreach_add_(exp_avgs, grads, alpha=1 - beta1)
    torch._foreach_mul_(exp_avg_diffs, beta2)
    torch._foreach_add_(exp_avg_diffs, diffs, alpha=1 - beta2)
    updates = diffs
    torch._foreach_mul_(updates, beta2)
    torch._foreach_add_(updates, grads)
    torch._foreach_mul_(exp_avg_sqs, beta3)
    torch._foreach_addcmul_(exp_avg_sqs, updates, updates, value=1 - beta3)
    denoms = torch._foreach_sqrt(exp_avg_sqs)
    torch._foreach_div_(denoms, bias_correction3_sqrt)
    torch._foreach_add_(denoms, group['eps'])

    if group['no_prox']:
        torch._foreach_mul_(params, 1 - decay)
    torch._foreach_addcdiv_(params, exp_avgs, denoms, value=-step_size)
    torch._foreach_addcdiv_(params, exp_avg_diffs, denoms, value=-step_size_diff)
    if not group['no_prox']:
        torch._foreach_div_(params, 1 + decay)
    torch._foreach_copy_(neg_pre_grads, grads)
    torch._foreach_neg_(neg_pre_grads)
