"""Which checkpoint a run resumes from, and what the option file has changed since."""

import contextlib
import math
import os
import re
import warnings
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError, one_line
from lkdn_basicsr.files import PARTIAL_SUFFIX
from lkdn_basicsr.optim.lookup import optimizers
from lkdn_basicsr.options.check_networks import build_network
from lkdn_basicsr.options.check_schema import SCHEDULERS, check_train_blocks
from lkdn_basicsr.options.diff import changes, plain
from lkdn_basicsr.options.option_file import OptionFile, RunOptions
from lkdn_basicsr.options.schema import CLOSED_MODELS
from lkdn_basicsr.training.state import TrainingState, parse

# These come from the checkpoint, because the optimizer and the stream of samples continue with them; all others come
# from the option file.
FROM_CHECKPOINT = re.compile(r'train:(optim_.*|scheduler|warmup_iter)(:|$)|manual_seed$')
# These are not compared: where and by whom a run is executed, and what BasicSR adds to the options.
NOT_COMPARED = 'path name dist rank launcher dist_params auto_resume is_train root_path resume_iter num_gpu'.split()
START_AGAIN = 'leave out --auto_resume to start again (the folder is moved aside)'


@dataclass
class Checkpoint:
    """What a run resumes from."""

    state: TrainingState | None = None  # None to start from the beginning
    files: dict[str, str] = field(default_factory=dict)  # of each network: {'g': '.../net_g_4.pth'}
    notes: list[str] = field(default_factory=list)  # lines for the log


def find_checkpoint(opt: dict[str, Any]) -> Checkpoint:
    """Return the newest intact checkpoint (``--auto_resume``) or ``path:resume_state``; InputError if unusable."""
    path = opt['path']
    ignored = path.get('ignore_resume_networks') or []
    networks = [key.removeprefix('network_') for key in opt if key.startswith('network_') and key not in ignored]
    if opt['auto_resume'] and checkpoints.list_training_states(path['training_states']):
        return _newest_intact(opt, networks)
    if path.get('resume_state') is not None:
        return _requested(opt, networks)
    latest = os.path.join(path['models'], 'net_g_latest.pth')
    if opt['auto_resume'] and os.path.exists(latest):
        fix = f'put one into {path["training_states"]}, or {START_AGAIN}'
        raise InputError(f'--auto_resume: there is {latest}, but no training state to resume from: {fix}')
    return Checkpoint()


def _newest_intact(opt: dict[str, Any], networks: list[str]) -> Checkpoint:
    folder, skipped = opt['path']['training_states'], []
    for iteration, file in checkpoints.list_training_states(folder):
        try:
            state, files = read_checkpoint(file, networks)
            _try_state(opt, state, file, files)
        except InputError as error:
            skipped.append(f'{iteration}.state ({error})')
            continue
        reason = f'; skipped: {", ".join(skipped)}' if skipped else ', the newest checkpoint'
        return Checkpoint(state, files, [f'Resuming from {file}{reason}.'])
    reason = f'no checkpoint in {folder} is usable, {skipped[0]}'
    raise InputError(f'--auto_resume: {reason}: restore an intact one, or {START_AGAIN}')


def _requested(opt: dict[str, Any], networks: list[str]) -> Checkpoint:
    """Return the checkpoint that ``path:resume_state`` names."""
    file, folder = opt['path']['resume_state'], opt['path']['training_states']  # of this run
    try:
        state, files = read_checkpoint(file, networks)
        _try_state(opt, state, file, files)
    except InputError as error:
        raise InputError(f'path:resume_state: {error}') from None
    notes = [f'Resuming from {file}, given by path:resume_state.']
    own = checkpoints.list_training_states(folder)
    same_run = os.path.isdir(folder) and os.path.samefile(os.path.dirname(os.path.abspath(file)), folder)
    if own and not same_run:
        reason = f'{file}, of another experiment, and {folder} has checkpoints of its own'
        raise InputError(f'path:resume_state is {reason}: give this run another name')
    if own and own[0][0] > state['iter']:
        notes.append(f'{own[0][1]} is newer: --auto_resume would use it until this run has passed it.')
    return Checkpoint(state, files, notes)


def read_checkpoint(path: str, networks: list[str]) -> tuple[TrainingState, dict[str, str]]:
    """Read a training state and verify that its networks are there and intact.

    Args:
        path: of the state; the networks are in ``models`` next to its folder, where BasicSR puts them.
        networks: suffixes of the networks to load with it: ``g`` for ``network_g``.

    Raises:
        InputError: a file is missing or damaged, or the files do not belong together.
    """
    state = parse(checkpoints.load(path), path)
    models = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(path))), 'models')
    files = {network: os.path.join(models, f'net_{network}_{state["iter"]}.pth') for network in networks}
    for file in files.values():
        digest = state.get('files', {}).get(os.path.basename(file))
        if digest is None or not os.path.isfile(file):  # a state written by BasicSR contains no checksums
            checkpoints.read(file)
        elif checkpoints.sha256(file) != digest:
            raise InputError(f'{file} is damaged, or not the one that {path} was saved with: copy it again')
    return state, files


def _try_state(opt: dict[str, Any], state: TrainingState, path: str, files: dict[str, str]) -> None:
    """Raise InputError if network, optimizer and schedule of a run would not continue with a training state.

    Models of other plugins may have other optimizers; what theirs do not accept is found by the dry run, when no older
    state can be taken any more.
    """
    if opt['model_type'] not in CLOSED_MODELS:
        return
    network = build_network(opt['network_g'])
    if 'g' in files:
        weights, strict = checkpoints.read(files['g'], 'params').weights, opt['path'].get('strict_load_g', True)
        reason = checkpoints.describe_mismatch(network, weights, strict, True, opt['model_type'])
        if reason:
            raise InputError(f'{files["g"]} does not fit network_g: {reason}')
    override = opt['path'].get('resume_override')
    train = opt['train'] if override else opt['train'] | _settings_of(state)
    train = {key: deepcopy(train[key]) for key in ('optim_g', 'scheduler')}
    check_train_blocks(OptionFile(path, RunOptions(train=train), {}, [path]))
    try:
        with warnings.catch_warnings(action='ignore'):
            _take_step(network, **train, state=state, override=override)
    except Exception as error:  # by torch, for states of any other form
        reason = f'does not fit network_g, train:optim_g and train:scheduler ({one_line(error)})'
        raise InputError(f'{path} {reason}') from None


def _take_step(
    network: nn.Module, optim_g: dict[str, Any], scheduler: dict[str, Any], state: TrainingState, override: bool | None
) -> None:
    """Continue a training for a step, with zeros in place of weights and gradients."""
    params = [torch.zeros(p.shape, requires_grad=True) for p in network.parameters() if p.requires_grad]
    name, schedule_name = optim_g.pop('type'), scheduler.pop('type')
    optimizer = optimizers()[name](params, **optim_g)
    schedule = SCHEDULERS[schedule_name](optimizer, **scheduler)
    if not override:
        schedule.load_state_dict(deepcopy(state['schedulers'][0]))
    if not override or state.get('optimizer_names', [name])[:1] == [name]:
        optimizer.load_state_dict(deepcopy(state['optimizers'][0]))
    for parameter in params:
        parameter.grad = torch.zeros_like(parameter)
    rates = [group['lr'] for group in optimizer.param_groups] + schedule.get_last_lr()
    for group, lr in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):  # as ReparamSRModel does
        group['lr'] = lr
    optimizer.step()
    schedule.step()
    if not all(map(math.isfinite, rates + schedule.get_last_lr())):
        raise ValueError('a learning rate is NaN or infinite')


def comparable(opt: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a training state records, to be compared on a resume."""
    return plain({key: value for key, value in opt.items() if key not in NOT_COMPARED})


def global_batch(opt: dict[str, Any]) -> int:
    """Return the number of samples of an iteration, on all GPUs and ranks."""
    size = opt['datasets']['train']['batch_size_per_gpu']
    return size * (opt['world_size'] if opt['dist'] else max(1, opt['num_gpu']))


def apply_checkpoint(opt: dict[str, Any], checkpoint: Checkpoint) -> list[str]:
    """Set the networks to load and the settings that the checkpoint decides in the options; return lines for the log.

    Raises InputError if the schedule of the checkpoint ends before the training does.
    """
    state = checkpoint.state
    assert state is not None
    for network, file in checkpoint.files.items():
        opt['path'][f'pretrain_network_{network}'] = file
        opt['path'][f'param_key_{network}'] = 'params'
    opt['resume_iter'] = state['iter']
    recorded = state.get('options')
    if recorded is None:
        start_again = 'random states that it does not contain start again'
        return [f'The checkpoint was written by BasicSR: changed settings are not detected, and {start_again}.']
    override = opt['path'].get('resume_override')
    if getattr(opt, 'seed_is_drawn', False):
        opt['manual_seed'] = recorded['manual_seed']
    lines = []
    for key, old, new in changes(recorded, comparable(opt)):
        kept = FROM_CHECKPOINT.match(key) and not override
        used = f'{old} (path:resume_override: true uses the new one)' if kept else new
        lines.append(f'Changed setting {key}: {old} in the checkpoint, {new} now; continues with {used}.')
    old, new = state.get('global_batch'), global_batch(opt)
    if old not in (None, new):  # None: an earlier release did not record it
        lines.append(f'Changed setting global batch: {old} in the checkpoint, {new} now; continues with {new}.')
    if not override:
        _take_settings(opt, state)
    return lines


def _take_settings(opt: dict[str, Any], state: TrainingState) -> None:
    """Replace the settings that the checkpoint decides, in place."""
    train = opt['train']
    for key in [key for key in train if FROM_CHECKPOINT.match(f'train:{key}')]:
        del train[key]
    train.update(_settings_of(state))
    recorded = state['options']
    opt['manual_seed'] = recorded['manual_seed']
    periods = (train.get('scheduler') or {}).get('periods')
    if periods and sum(periods) < train['total_iter']:  # BasicSR's scheduler has no rate beyond its periods
        found = f'train:total_iter is {train["total_iter"]}, and the schedule of the checkpoint ends at {sum(periods)}'
        fix = 'set path: resume_override: true, to continue with the schedule of the option file, or keep total_iter'
        raise InputError(f'{found}: {fix}')


def _settings_of(state: TrainingState) -> dict[str, Any]:
    """Return what a training state decides of the block ``train``; nothing if BasicSR wrote it."""
    recorded = state.get('options', {'train': {}})['train']
    return deepcopy({key: value for key, value in recorded.items() if FROM_CHECKPOINT.match(f'train:{key}')})


def event_files(folder: str) -> dict[str, int]:
    """Return the TensorBoard files in a folder, by name, with their sizes in bytes."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    paths = {name: os.path.join(folder, name) for name in names if name.startswith('events.out.')}
    return {name: os.path.getsize(path) for name, path in paths.items() if os.path.isfile(path)}


def rewind_events(folder: str, sizes: dict[str, int]) -> None:
    """Remove what was logged to TensorBoard after :func:`event_files` returned these sizes; it is logged again."""
    for name, size in event_files(folder).items():
        file = os.path.join(folder, name)
        if name not in sizes:
            os.remove(file)
        elif size > sizes[name]:
            os.truncate(file, sizes[name])


def remove_partial_files(*folders: str) -> None:
    """Remove the incomplete files of a run that was killed while it saved."""
    for folder in folders:
        for name in os.listdir(folder) if os.path.isdir(folder) else []:
            if name.startswith('.') and name.endswith(PARTIAL_SUFFIX):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(folder, name))
