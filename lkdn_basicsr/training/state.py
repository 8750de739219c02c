"""Training states (``ITER.state``): what they contain, how a model is restored from one, which old ones are removed."""

import os
import random
import warnings
from typing import Any, TypeAlias

import numpy as np
import torch
from basicsr.models.base_model import BaseModel

from lkdn_basicsr.checkpoints import describe_problem, iteration_of, list_training_states
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.diff import plain
from lkdn_basicsr.structure import NATURAL, is_plain, matches
from lkdn_basicsr.training.distributed import Ranks

VERSION = 1  # of the training states; increase it when an older release would misread what is saved
TrainingState: TypeAlias = dict[str, Any]  # entries as in _REQUIRED and, unless BasicSR wrote it, in _OPTIONAL
_RANDOM = {
    'python': {'version': int, 'state': torch.Tensor, 'gauss': float | None},
    'numpy': {'state': torch.Tensor, 'position': range(625), 'has_gauss': range(2), 'cached': float},
    'torch': torch.Tensor,
    'cuda': torch.Tensor | None,
}
_OPTIONS = {
    'train': {'optim_g': {'type': str}, 'scheduler': {'type': str}, 'warmup_iter': int | None},
    'manual_seed': NATURAL,
}
_REQUIRED = {
    'epoch': NATURAL,
    'iter': NATURAL,
    'optimizers': [{'state': dict, 'param_groups': [dict]}],
    'schedulers': [{'last_epoch': NATURAL}],
}
_OPTIONAL = {
    'version': NATURAL,
    'optimizer_names': [str],
    'best_metric_results': {str: {str: {'better': str, 'val': float, 'iter': range(-1, 10**15)}}},
    'random': [_RANDOM],
    'files': {str: str},
    'validated': NATURAL,
    'finished': bool,
    'options': _OPTIONS,
    'global_batch': NATURAL,
    'tensorboard': {str: NATURAL},
}


def state_of(model: BaseModel, ranks: Ranks, epoch: int, iteration: int) -> TrainingState:
    """Return the training state of a model: BasicSR's entries, and what BasicSR forgets.

    Every rank must call this; the result is the same on all. ``torch.load(weights_only=True)`` loads it. ``random``
    contains the states of the generators of each rank, ``files`` names and SHA-256 of the networks saved with it.
    """
    saved = getattr(model, 'saved_files', {})
    return {
        'version': VERSION,
        'epoch': epoch,
        'iter': iteration,
        'optimizers': [optimizer.state_dict() for optimizer in model.optimizers],
        'schedulers': [scheduler.state_dict() for scheduler in model.schedulers],
        'optimizer_names': [type(optimizer).__name__ for optimizer in model.optimizers],
        'best_metric_results': plain(getattr(model, 'best_metric_results', {})),
        'random': ranks.gather(random_states(model.device)),
        'files': {name: digest for name, digest in saved.items() if iteration_of(name) == iteration},
    }


def parse(contents: dict[Any, Any], path: str) -> TrainingState:
    """Return the training state in the contents of a file, without optional entries that are None.

    Raises:
        InputError: it is of a newer release, or an entry is missing or of another form.
    """
    if any(name not in contents for name in _REQUIRED):
        raise InputError(f'{path} is no training state of BasicSR: give one of experiments/NAME/training_states')
    if matches(contents.get('version'), NATURAL) and contents['version'] > VERSION:
        raise InputError(f'{path} was written by a newer release: update lkdn_basicsr')
    state = {name: value for name, value in contents.items() if value is not None or name in _REQUIRED}
    for name, form in (_REQUIRED | _OPTIONAL).items():
        if name in state and not (matches(state[name], form) and _is_valid(name, state[name])):
            raise InputError(f'{path} is damaged: its entry {name} is not one of a training state; copy it again')
    return state


def _is_valid(name: str, value: Any) -> bool:
    """Return whether the contents of an entry of a training state, which is of the right form, can be used."""
    if name == 'optimizers':
        moments = [item for one in value for item in one['state'].values()]
        tensors = [v for item in moments if isinstance(item, dict) for v in item.values() if torch.is_tensor(v)]
        groups = [group for one in value for group in one['param_groups']]
        return is_plain(groups) and not any(map(describe_problem, tensors))
    if name == 'options':
        return is_plain(value)
    if name == 'random':
        return all(map(_are_random_states, value))
    return True


def restore(model: BaseModel, state: TrainingState) -> None:
    """Restore optimizers, schedulers, best metrics and random states of a model whose networks are loaded.

    With ``path:resume_override`` the optimizers keep their moments, if they are of the same class, and take the
    settings of the option file; the schedulers are those of the option file, advanced to the iteration.
    """
    override = model.opt['path'].get('resume_override')
    _restore_optimizers(model, state, override)
    for number, scheduler in enumerate(model.schedulers):
        if not override:
            scheduler.load_state_dict(state['schedulers'][number])
            continue
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about scheduler steps without optimizer steps
            for _ in range(state['iter'] - 1):
                scheduler.step()
    if (model.opt.get('val') or {}).get('metrics'):
        for dataset, record in state.get('best_metric_results', {}).items():
            model._initialize_best_metric_results(dataset)  # for the metrics of this run, which may be others
            current = model.best_metric_results[dataset]
            for metric, best in record.items():
                if metric in current and current[metric]['better'] == best['better']:
                    current[metric] = dict(best)
    model.saved_files = dict(state.get('files', {}))  # the state may be saved again, with later results
    rank = model.opt.get('rank', 0)
    if rank < len(state.get('random', [])):
        set_random_states(state['random'][rank], model.device)


def _restore_optimizers(model: BaseModel, state: TrainingState, override: bool | None) -> None:
    names = state.get('optimizer_names', [])
    for number, optimizer in enumerate(model.optimizers):
        settings = [dict(group, params=None) for group in optimizer.param_groups]
        if not override or names[number : number + 1] in ([], [type(optimizer).__name__]):
            optimizer.load_state_dict(state['optimizers'][number])
        if override:
            kept = {*optimizer.defaults, 'initial_lr'}
            for group, fresh in zip(optimizer.param_groups, settings):
                group.update((name, value) for name, value in fresh.items() if name in kept)


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of all generators that a training on a device may use, on this rank, as tensors and numbers."""
    version, state, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    array = torch.from_numpy(np.asarray(keys).astype(np.int64))
    return {
        'python': {'version': version, 'state': torch.tensor(state), 'gauss': gauss},
        'numpy': {'state': array, 'position': position, 'has_gauss': has_gauss, 'cached': cached},
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state() if device.type == 'cuda' else None,  # initializing it takes GPU memory
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the generators of this rank to what :func:`random_states` returned."""
    python, numpy = _native_states(states)
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(states['torch'])
    if states['cuda'] is not None and device.type == 'cuda':
        torch.cuda.set_rng_state(states['cuda'])


def _native_states(states: dict[str, Any]) -> tuple[tuple, tuple]:
    """Return the states of the generators of Python and numpy in their own forms."""
    python, numpy = states['python'], states['numpy']
    keys = numpy['state'].numpy().astype(np.uint32)
    return (
        (python['version'], tuple(python['state'].tolist()), python['gauss']),
        ('MT19937', keys, numpy['position'], numpy['has_gauss'], numpy['cached']),
    )


def _are_random_states(states: dict[str, Any]) -> bool:
    """Return whether :func:`set_random_states` would accept them."""
    try:
        python, numpy = _native_states(states)
        random.Random().setstate(python)
        np.random.RandomState().set_state(numpy)
        torch.Generator().set_state(states['torch'])
        return states['cuda'] is None or states['cuda'].dtype == torch.uint8
    except Exception:  # what the generators raise for other types and sizes
        return False


def remove_old_checkpoints(models: str, states: str, keep: int, iteration: int) -> None:
    """Remove the checkpoints of a run except the newest ``keep``; ``net_g_best`` and ``net_g_latest`` stay.

    Args:
        models, states: folders of the networks and of the training states.
        iteration: that of the newest checkpoint. Newer files belong to an earlier run that was resumed from an older
            state; they are neither counted nor removed.
    """
    oldest = [found for found, _ in list_training_states(states) if found <= iteration][:keep][-1]
    for folder in (states, models):  # a state without its networks would only be skipped, so states go first
        for name in os.listdir(folder):
            found = iteration_of(name)
            if found is not None and found < oldest:
                os.remove(os.path.join(folder, name))
