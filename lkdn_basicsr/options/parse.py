"""Parsing of option files: read, validated and completed as BasicSR's pipelines expect, before anything is written."""

import os
import re
from argparse import Namespace
from typing import Any

import torch

from lkdn_basicsr.checkpoints import list_training_states
from lkdn_basicsr.devices import check_cuda
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import check_writable, exists
from lkdn_basicsr.options.check_data import check_data
from lkdn_basicsr.options.check_losses import check_losses
from lkdn_basicsr.options.check_networks import check_checkpoints, check_networks
from lkdn_basicsr.options.check_relations import check_relations
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.diff import differences_from_shipped
from lkdn_basicsr.options.option_file import OptionFile, force_options, read_option_file


def parse_options(args: Namespace, root_path: str, is_train: bool) -> OptionFile:
    """Read the option file of a command, validate all of its keys, and add what BasicSR derives from them.

    Args:
        args: ``opt``, ``force_yml``, ``auto_resume``, ``debug`` and ``launcher``, see ``cli.build_parser``.
        root_path: Folder for ``experiments``, ``results`` and ``tb_logger``.

    Returns:
        Its ``opt`` has ``auto_resume``, ``is_train``, ``num_gpu`` as a number, a phase and a scale for each dataset,
        and the paths of the run; ``notes`` are lines for the log.

    Raises:
        InputError: On the first error, in one line with file, line and key; or the GPUs cannot be used.
    """
    option_file = read_option_file(args.opt)
    opt, notes = option_file.opt, option_file.notes
    force_options(option_file, args.force_yml)
    check_schema(option_file, is_train)
    check_relations(option_file, is_train)
    opt.differences = differences_from_shipped(option_file, is_train)
    opt['auto_resume'], opt['is_train'] = args.auto_resume, is_train
    distributed = args.launcher != 'none'
    notes += set_num_gpu(opt, distributed)
    for index in range(0 if distributed else opt['num_gpu']):  # ranks check theirs when they have selected it
        check_cuda('set num_gpu: 0', f'cuda:{index}')
    variable = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'  # makes torch.load, where BasicSR calls it, run code from a file
    if os.environ.pop(variable, None) is not None:
        notes.append(f'{variable} is ignored: checkpoints are loaded as data.')
    set_derived_options(opt, root_path, is_train, args.debug)
    return option_file


def check_files(option_file: OptionFile, world_size: int, is_train: bool, check_only: bool = False) -> dict[str, int]:
    """Check the networks, losses, datasets and checkpoints of options. It takes time, so one rank does it.

    Args:
        check_only: Check all data, and do not download official weights, and those of perceptual losses, that are
            missing.

    Returns:
        The index of the smallest image of each dataset, see ``check_data``.

    Raises:
        InputError: On the first error.
        OSError: A folder of the run cannot be written to.
    """
    opt = option_file.opt
    check_outputs(opt, is_train)
    check_networks(option_file)
    if is_train:
        check_losses(option_file, fetch=not check_only)
    smallest = check_data(option_file, world_size, complete=check_only)
    # A resumed run does not load the pretrained weights.
    has_states = opt['auto_resume'] and bool(list_training_states(opt['path'].get('training_states', '')))
    resumes = is_train and (has_states or opt['path'].get('resume_state') is not None)
    check_checkpoints(option_file, is_train, resumes, fetch=not check_only)
    return smallest


def check_outputs(opt: dict[str, Any], is_train: bool) -> None:
    """Check that the folders of a run can be written to, before an earlier run is moved aside.

    Raises:
        InputError: TensorBoard cannot write to its folder.
        OSError: A folder cannot be written to.
    """
    path = opt['path']
    folder = path['experiments_root' if is_train else 'results_root']
    continues = is_train and (path.get('resume_state') or opt['auto_resume'] and exists(path['models']))
    folders = [path['models'], path['training_states'], folder] if continues else []
    folders.append(os.path.dirname(folder))  # for its lock
    if is_train and opt['logger'].get('use_tb_logger'):
        events = os.path.join(os.path.dirname(os.path.dirname(folder)), 'tb_logger', opt['name'])
        if re.search('[\ud800-\udfff]', events):
            reason = f'is true, but TensorBoard cannot write to {events}, whose name is not UTF-8'
            raise InputError(f'logger:use_tb_logger {reason}; rename the folder, or set it to false')
        folders.append(events if continues else os.path.dirname(events))
    for folder in folders:
        check_writable(folder)


def set_num_gpu(opt: dict[str, Any], distributed: bool = False) -> list[str]:
    """Set ``num_gpu`` to a number of GPUs that this machine has, in place; without any, disable options that need one.

    ``auto`` is one GPU, and so is any number for a rank of a distributed run: BasicSR trains on more of them in one
    process, with a batch for each.

    Return a line for the log if fewer GPUs are used than requested or present.
    """
    requested, present = opt['num_gpu'], torch.cuda.device_count()
    number = opt['num_gpu'] = min(1 if requested == 'auto' or distributed and requested else requested, present)
    if number == 0:
        for dataset in opt['datasets'].values():
            if dataset.get('prefetch_mode') == 'cuda':
                dataset['prefetch_mode'] = None
            if dataset.get('pin_memory'):
                dataset['pin_memory'] = False
        return [] if requested == 0 else [f'No GPU found: this runs on the CPU (num_gpu: {requested}).']
    if distributed or requested == number or present == 1 and requested == 'auto':
        return []
    if requested == 'auto':
        return [
            f'num_gpu: auto uses 1 of {present} GPUs; torchrun --nproc_per_node={present} uses all, '
            'with a batch of batch_size_per_gpu for each.'
        ]
    return [f'num_gpu: {requested} is more than this machine has: {present} used.']


def set_derived_options(opt: dict[str, Any], root_path: str, is_train: bool, debug: bool = False) -> None:
    """Add, in place, what BasicSR derives: phases, scales, the folders of the run, settings of a debug run."""
    if debug and not opt['name'].startswith('debug'):
        opt['name'] = f'debug_{opt["name"]}'
    for phase, dataset in opt['datasets'].items():
        dataset['phase'] = phase.split('_')[0]
        if 'scale' in opt:
            dataset['scale'] = opt['scale']
        for key, value in dataset.items():
            if key.startswith('dataroot') and isinstance(value, str):
                dataset[key] = os.path.expanduser(value)
    path = opt['path']
    for key, value in path.items():
        if isinstance(value, str) and ('resume_state' in key or 'pretrain_network' in key):
            path[key] = os.path.expanduser(value)
    root = os.path.join(root_path, 'experiments' if is_train else 'results', opt['name'])
    path['experiments_root' if is_train else 'results_root'] = path['log'] = root
    for folder in ('models', 'training_states', 'visualization') if is_train else ('visualization',):
        path[folder] = os.path.join(root, folder)
    if is_train and opt['name'].startswith('debug'):  # BasicSR takes no_debug_run for a debug run, too
        if opt.get('val') is not None:
            opt['val']['val_freq'] = 8
        opt['logger'].update(print_freq=1, save_checkpoint_freq=8)
