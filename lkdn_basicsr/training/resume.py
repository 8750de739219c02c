"""Going on with a training: what a training state holds, which one to take, and what the option file has changed."""

import contextlib
import os
import random
import re
import warnings
from copy import deepcopy

import numpy as np
import torch

from lkdn_basicsr import checkpoints
from lkdn_basicsr.checkpoints import iteration_of, list_training_states
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import PARTIAL_SUFFIX
from lkdn_basicsr.options.diff import changes, plain
from lkdn_basicsr.training import distributed as ranks

# What the checkpoint decides, because the optimizer and the stream of samples go on with it; the rest of the option
# file is in force as it stands.
KEPT = re.compile(r'train:(optim_.*|scheduler|warmup_iter)(:|$)|manual_seed$')
# What is not compared: where and by whom a run is done, and what a run is told about itself.
VOLATILE = {
    'path',
    'name',
    'dist',
    'rank',
    'launcher',
    'dist_params',
    'auto_resume',
    'is_train',
    'root_path',
    'resume_iter',
    'num_gpu',
}


# ------------------------------------------------ what a state holds ------------------------------------------------ #


def random_states():
    """The states of all generators that a training may draw from, on this rank, as tensors and numbers."""
    version, state, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        'python': {'version': version, 'state': torch.tensor(state), 'gauss': gauss},
        'numpy': {
            'state': torch.from_numpy(keys.astype(np.int64)),
            'position': position,
            'has_gauss': has_gauss,
            'cached': cached,
        },
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_states(states):
    """Set the generators of this rank to what :func:`random_states` gave."""
    python, array = states['python'], states['numpy']
    random.setstate((python['version'], tuple(python['state'].tolist()), python['gauss']))
    np.random.set_state(
        ('MT19937', array['state'].numpy().astype(np.uint32), array['position'], array['has_gauss'], array['cached'])
    )
    torch.set_rng_state(states['torch'])
    if states['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'])


def contents(model, epoch, iteration, **more):
    """A training state: BasicSR's, and what it forgets. Every rank must call this; the result is the same on all.

    Args:
        model (BaseModel): the model.
        epoch, iteration (int): where the training is.
        more: what is known about the run beyond the model.

    Returns:
        dict: of BasicSR's keys ``epoch``, ``iter``, ``optimizers`` and ``schedulers``; ``best_metric_results``;
        ``random``, the generators' states of each rank; ``files``, the names and SHA-256 of the networks that belong to
        it; and ``more``. ``torch.load(weights_only=True)`` loads it.
    """
    return {
        'epoch': epoch,
        'iter': iteration,
        'optimizers': [optimizer.state_dict() for optimizer in model.optimizers],
        'schedulers': [scheduler.state_dict() for scheduler in model.schedulers],
        'optimizer_names': [type(optimizer).__name__ for optimizer in model.optimizers],
        'best_metric_results': plain(getattr(model, 'best_metric_results', {})),
        'random': ranks.gather(random_states()),
        'files': {
            name: digest
            for name, digest in getattr(model, 'saved_files', {}).items()
            if iteration_of(name) == iteration
        },
        **more,
    }


def restore(model, state):
    """Bring a model whose networks are loaded to a state; takes the place of ``BaseModel.resume_training``.

    With ``path:resume_override`` the optimizers keep what they have learnt, if they are of the same class, and take the
    settings of the option file; the schedules are those of the option file, brought to the iteration.
    """
    override = model.opt['path'].get('resume_override')
    fresh = [[dict(group, params=None) for group in optimizer.param_groups] for optimizer in model.optimizers]
    names = state.get('optimizer_names', [])
    for k, optimizer in enumerate(model.optimizers):
        if not override or names[k : k + 1] in ([], [type(optimizer).__name__]):
            optimizer.load_state_dict(state['optimizers'][k])
        if override:
            for group, settings in zip(optimizer.param_groups, fresh[k]):
                group.update(
                    (name, value)
                    for name, value in settings.items()
                    if name in optimizer.defaults or name == 'initial_lr'
                )
    for k, scheduler in enumerate(model.schedulers):
        if not override:
            scheduler.load_state_dict(state['schedulers'][k])
            continue
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that no optimizer step lies between the steps
            for _ in range(state['iter'] - 1):
                scheduler.step()

    for data_set, record in state.get('best_metric_results', {}).items():
        if (model.opt.get('val') or {}).get('metrics'):
            model._initialize_best_metric_results(data_set)  # for the metrics of today, which may be others
            today = model.best_metric_results[data_set]
            today.update(
                {
                    metric: dict(best)
                    for metric, best in record.items()
                    if metric in today and today[metric]['better'] == best['better']
                }
            )
    model.saved_files = dict(state.get('files', {}))  # the state may be saved once more, with later results
    rank = model.opt.get('rank', 0)
    if rank < len(state.get('random', [])):
        set_random_states(state['random'][rank])


# ------------------------------------------------ which state to take ----------------------------------------------- #


def read_pair(path, networks):
    """Read a training state and make sure that its networks are there and whole.

    Args:
        path (str): of the state; the networks lie in ``models`` beside its folder, as BasicSR puts them.
        networks (list[str]): what is loaded with it: ``g`` for ``network_g``.

    Returns:
        tuple[dict, dict]: the state; network to the path of its file.

    Raises:
        InputError: something is missing, damaged, or does not belong together.
    """
    state = checkpoints.load(path)
    if not {'epoch', 'iter', 'optimizers', 'schedulers'} <= state.keys():
        raise InputError(f'{path} is no training state of BasicSR: give one of experiments/NAME/training_states')
    models = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(path))), 'models')
    files = {network: os.path.join(models, f'net_{network}_{state["iter"]}.pth') for network in networks}
    for file in files.values():
        digest = state.get('files', {}).get(os.path.basename(file))
        if digest is None or not os.path.isfile(file):  # a state that BasicSR wrote by itself knows no sums
            checkpoints.load(file)
        elif checkpoints.sha256(file) != digest:
            raise InputError(f'{file} is damaged, or not the one that {path} was saved with: copy it again')
    return state, files


def choose(opt):
    """Choose what to go on from: with ``--auto_resume`` the newest whole pair, else ``path:resume_state``.

    Returns:
        tuple[dict | None, dict, list[str]]: state, None to start from the beginning; network to the path of its file;
        lines for the log.

    Raises:
        InputError: the state that was asked for is unusable, or all are.
    """
    path = opt['path']
    networks = [
        key.removeprefix('network_')
        for key in opt
        if key.startswith('network_') and key not in (path.get('ignore_resume_networks') or [])
    ]
    own = list_training_states(path['training_states'])
    if opt['auto_resume'] and own:
        passed_over = []
        for iteration, file in own:
            try:
                state, files = read_pair(file, networks)
            except InputError as error:
                passed_over.append(f'{iteration}.state ({error})')
                continue
            reason = f'; passed over: {", ".join(passed_over)}' if passed_over else ', the newest checkpoint'
            return state, files, [f'Going on from {file}{reason}.']
        raise InputError(
            f'--auto_resume: no checkpoint in {path["training_states"]} is usable, {passed_over[0]}: '
            'put back a whole one, or leave out --auto_resume to start anew (the folder is moved aside)'
        )
    file = path.get('resume_state')
    if file is None:
        latest = os.path.join(path['models'], 'net_g_latest.pth')
        if opt['auto_resume'] and os.path.exists(latest):
            raise InputError(
                f'--auto_resume: there is {latest}, and no training state to go on from: put one into '
                f'{path["training_states"]}, or leave out --auto_resume to start anew (the folder is '
                'moved aside)'
            )
        return None, {}, []
    try:
        state, files = read_pair(file, networks)
    except InputError as error:
        raise InputError(f'path:resume_state: {error}') from None
    notes = [f'Going on from {file}, as path:resume_state says.']
    elsewhere = not (
        os.path.isdir(path['training_states'])
        and os.path.samefile(os.path.dirname(os.path.abspath(file)), path['training_states'])
    )
    if own and elsewhere:
        raise InputError(
            f'path:resume_state is {file}, of another experiment, and {path["training_states"]} has '
            'checkpoints of its own: give this run another name'
        )
    if own and own[0][0] > state['iter']:
        notes.append(f'{own[0][1]} is newer: --auto_resume would take it, until this run has gone beyond it.')
    return state, files, notes


def take_networks(opt, files):
    """Let ``path`` name the networks of the state, and the weights in them that training goes on with."""
    for network, file in files.items():
        opt['path'][f'pretrain_network_{network}'] = file
        opt['path'][f'param_key_{network}'] = 'params'


# ------------------------------------------------ what has changed -------------------------------------------------- #


def settle_changes(opt, state):
    """Compare the options with those of the state. What the checkpoint decides is put back into them, in place.

    Args:
        opt (dict): the options of this run; ``path:resume_override: true`` leaves them as they are.
        state (dict): a training state.

    Returns:
        list[str]: lines for the log, one for each setting that is not as it was.

    Raises:
        InputError: the schedule of the checkpoint ends before the training does.
    """
    recorded = state.get('options')
    if recorded is None:
        return [
            'The checkpoint was written by BasicSR alone: changed settings are not seen, and random states that it '
            'does not hold begin anew.'
        ]
    override = opt['path'].get('resume_override')
    if getattr(opt, 'seed_is_drawn', False):
        opt['manual_seed'] = recorded['manual_seed']
    now = plain({key: value for key, value in opt.items() if key not in VOLATILE})
    lines = []
    for key, old, new in changes(recorded, now):
        kept = KEPT.match(key) and not override
        lines.append(
            f'Changed setting {key}: {old} in the checkpoint, {new} now; goes on with {old if kept else new}'
            + (' (path:resume_override: true takes the new one).' if kept else '.')
        )
    if not override:
        for key in [key for key in opt['train'] if KEPT.match(f'train:{key}')]:
            del opt['train'][key]
        opt['train'].update(
            (key, deepcopy(value)) for key, value in recorded['train'].items() if KEPT.match(f'train:{key}')
        )
        opt['manual_seed'] = recorded['manual_seed']
        periods, total_iter = (opt['train'].get('scheduler') or {}).get('periods'), opt['train']['total_iter']
        if periods and sum(periods) < total_iter:  # BasicSR's scheduler has no rate beyond its periods
            raise InputError(
                f'train:total_iter is {total_iter}, and the schedule of the checkpoint ends at '
                f'{sum(periods)}: set path: resume_override: true, to go on with the schedule of the '
                'option file, or keep total_iter'
            )
    return lines


# ------------------------------------------------ what else is rewound ---------------------------------------------- #


def event_files(folder):
    """TensorBoard's files in a folder, and how long each is: name to bytes."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {name: os.path.getsize(os.path.join(folder, name)) for name in names if name.startswith('events.out.')}


def rewind_events(folder, lengths):
    """Take back what was logged to TensorBoard after the state, for it is logged again, and half-written records.

    Args:
        folder (str): of the event files.
        lengths (dict): as :func:`event_files` gave it when the state was saved.
    """
    for name, length in event_files(folder).items():
        file = os.path.join(folder, name)
        if name not in lengths:
            os.remove(file)
        elif length > lengths[name]:
            os.truncate(file, lengths[name])


def remove_leftovers(*folders):
    """Remove the unfinished files of a run that was killed while it saved."""
    for folder in folders:
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if name.startswith('.') and name.endswith(PARTIAL_SUFFIX):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(folder, name))
