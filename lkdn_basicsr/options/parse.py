"""Option files: read safely, checked before anything on disk is touched, completed as BasicSR's pipelines expect."""

import os
import sys
from os import path as osp

import torch

from lkdn_basicsr.checkpoints import list_training_states
from lkdn_basicsr.cli import build_parser
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_data import check_data
from lkdn_basicsr.options.check_networks import check_checkpoints, check_networks
from lkdn_basicsr.options.check_relations import check_relations
from lkdn_basicsr.options.check_report import report
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.diff import RunOptions, differences_from_shipped
from lkdn_basicsr.options.option_file import dump_yaml, force_options, read_option_file
from lkdn_basicsr.training import distributed as ranks
from lkdn_basicsr.training.launch import init_distributed, meet_ranks, read_launch, seed_everything

__all__ = [
    'parse_options',
    'build_parser',
    'read_option_file',
    'force_options',
    'dump_yaml',
    'check_schema',
    'check_relations',
    'check_data',
    'check_networks',
    'check_checkpoints',
    'init_distributed',
    'set_num_gpu',
]


def parse_options(root_path, is_train=True, argv=None):
    """Reads the command line and its option file; takes the place of ``basicsr.utils.options.parse_options``.

    Everything is checked first: the file, each key, the data, the networks, the checkpoints. Nothing on disk is changed
    (but for official weights, which are fetched when they are missing). The process group is joined and the seeds are
    set. With ``--check`` the program ends here, with a report.

    Args:
        root_path (str): Folder below which ``experiments``, ``results`` and ``tb_logger`` go.
        is_train (bool): Whether to train or to test. Default: True.
        argv (list[str] | None): The arguments. Default: None, those of the program.

    Returns:
        tuple[RunOptions, argparse.Namespace]: The options with what BasicSR derives (``dist``, ``rank``,
        ``world_size``, ``auto_resume``, ``is_train``, ``num_gpu`` as a number, a phase and a scale for each data set,
        the paths of the run), and the arguments.

    Raises:
        InputError: On the first thing that is wrong, in one sentence with file, line and key.
    """
    args = build_parser().parse_args(sys.argv[1:] if argv is None else argv)
    launch = read_launch(args.launcher)
    args.launcher = launch.launcher
    port = None
    try:
        source = read_option_file(args.opt)
        force_options(source, args.force_yml)
        check_schema(source, is_train)
        port = (source.opt.get('dist_params') or {}).get('port')
    finally:
        meet_ranks(launch, args.local_rank, port)  # also when something is wrong, so that one rank says it for all
    check_relations(source, is_train)
    auto_resume = _resumes_by_itself(args, is_train)

    opt = RunOptions(source.opt)
    opt.option_file = source.path
    opt.differences = differences_from_shipped(source, is_train)
    source.opt = opt
    opt['auto_resume'], opt['is_train'] = auto_resume, is_train
    source.notes += set_num_gpu(opt) + _forbid_pickles() + _warn_of_shared_store()
    set_derived_options(opt, root_path, is_train, args.debug)
    opt['dist'] = launch.launcher != 'none'
    if opt['dist']:
        init_distributed(launch, opt['num_gpu'], opt.get('dist_params'))
    opt['rank'], opt['world_size'] = launch.rank, launch.world_size
    _check_on_first_rank(source, launch, is_train, fetch=not args.check)
    opt.seed_is_drawn = opt['manual_seed'] is None
    opt['manual_seed'] = seed_everything(opt['manual_seed'], launch.rank)
    opt.notes, opt.effective = source.notes, dump_yaml(opt)
    if args.check:
        if launch.rank == 0:
            for line in report(opt):
                print(line)
        sys.exit(0)
    return opt, args


def _check_on_first_rank(source, launch, is_train, fetch):
    """The checks that read data and build networks, by one rank; the others wait, also for a download."""
    wrong = None
    if launch.rank == 0:
        try:
            check_networks(source)
            check_data(source, launch.world_size)
            check_checkpoints(source, is_train, _resumes(source.opt), fetch)
        except InputError as error:
            wrong = error
    wrong = ranks.gather(wrong)[0]
    if wrong is not None:
        raise wrong


def _resumes_by_itself(args, is_train):
    """Whether to go on from the newest checkpoint: where that is asked for, and where torchrun starts ranks again.

    torchrun counts the starts on one node; on several a node may be replaced without the others being told.
    """
    env = os.environ
    if not is_train or args.auto_resume or int(env.get('TORCHELASTIC_MAX_RESTARTS', 0)) == 0:
        return args.auto_resume
    if int(env.get('GROUP_WORLD_SIZE', 1)) > 1:
        raise InputError(
            'torchrun --max-restarts on several nodes needs --auto_resume, without which a replaced node '
            'begins the training anew; add it to the command'
        )
    return int(env.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0


def _warn_of_shared_store():
    """Agents of torchrun that live on do not tell a new one where the ranks meet (seen in torch 2.15)."""
    env, name = os.environ, 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE'
    several = int(env.get('GROUP_WORLD_SIZE', 1)) > 1 and int(env.get('TORCHELASTIC_MAX_RESTARTS', 0)) > 0
    if several and env.get('TORCHELASTIC_USE_AGENT_STORE') == 'True':
        return [f'A node that fails can be replaced only if torchrun is started with {name}=1 in the environment.']
    return []


def _forbid_pickles():
    """Takes away what makes torch.load, where BasicSR calls it, run the code that a file brings.

    Returns:
        list[str]: One line for the log where it was set.
    """
    name = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
    return [] if os.environ.pop(name, None) is None else [f'{name} is not heeded: checkpoints are loaded as data.']


def set_num_gpu(opt):
    """Makes ``num_gpu`` a number that this machine has, in place; what needs a GPU is set aside on a CPU.

    Returns:
        list[str]: One line for the log when fewer GPUs are used than the options ask for.
    """
    wanted, present = opt['num_gpu'], torch.cuda.device_count()
    opt['num_gpu'] = present if wanted == 'auto' else min(wanted, present)
    if opt['num_gpu'] == 0:
        for dataset in opt['datasets'].values():
            if dataset.get('prefetch_mode') == 'cuda':
                dataset['prefetch_mode'] = None
            if dataset.get('pin_memory'):
                dataset['pin_memory'] = False
        return [] if wanted == 0 else [f'No GPU found: this runs on the CPU (num_gpu: {wanted}).']
    return (
        []
        if wanted in ('auto', opt['num_gpu'])
        else [f'num_gpu: {wanted} is more than this machine has: {present} used.']
    )


def set_derived_options(opt, root_path, is_train, debug=False):
    """Adds, in place, what BasicSR derives from the options: phases, scales, the folders of the run, debug settings."""
    if debug and not opt['name'].startswith('debug'):
        opt['name'] = f'debug_{opt["name"]}'
    for phase, dataset in opt['datasets'].items():
        dataset['phase'] = phase.split('_')[0]
        if 'scale' in opt:
            dataset['scale'] = opt['scale']
        for key, value in dataset.items():
            if key.startswith('dataroot') and isinstance(value, str):
                dataset[key] = osp.expanduser(value)
    path = opt['path']
    for key, value in path.items():
        if isinstance(value, str) and ('resume_state' in key or 'pretrain_network' in key):
            path[key] = osp.expanduser(value)
    if is_train:
        root = osp.join(root_path, 'experiments', opt['name'])
        path['experiments_root'] = root
        path['models'] = osp.join(root, 'models')
        path['training_states'] = osp.join(root, 'training_states')
        path['log'] = root
        path['visualization'] = osp.join(root, 'visualization')
        if opt['name'].startswith('debug'):  # BasicSR also took no_debug_run for a debug run
            if opt.get('val') is not None:
                opt['val']['val_freq'] = 8
            opt['logger']['print_freq'] = 1
            opt['logger']['save_checkpoint_freq'] = 8
    else:
        root = osp.join(root_path, 'results', opt['name'])
        path['results_root'] = root
        path['log'] = root
        path['visualization'] = osp.join(root, 'visualization')


def _resumes(opt):
    """Whether training will go on from a state, so that it does not read the pretrained weights."""
    if not opt['is_train']:
        return False
    if opt['auto_resume'] and list_training_states(opt['path']['training_states']):
        return True
    return opt['path'].get('resume_state') is not None
