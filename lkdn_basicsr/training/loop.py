"""The functions of BasicSR's training loop that ``compat`` replaces, so that a run survives kills and full disks.

The loop itself, ``basicsr.train.train_pipeline``, stays BasicSR's. Each function has the name of the one whose place it
takes, and says what is wrong with that one.
"""

import functools
import os
import sys
import time
from collections import OrderedDict

import basicsr.data
import basicsr.models
import basicsr.train
import basicsr.utils
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils.dist_util import get_dist_info, master_only

from lkdn_basicsr import checkpoints
from lkdn_basicsr.data.paired_crop_dataset import PairedCropDataset
from lkdn_basicsr.data.sampler import SeededDataset, StreamSampler
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.models.reparam_sr_model import check_finite
from lkdn_basicsr.options.diff import record_effective
from lkdn_basicsr.options.option_file import dump_yaml, read_option_file
from lkdn_basicsr.training import resume, session, signals

_train_pipeline, _validation = basicsr.train.train_pipeline, BaseModel.validation
_copy_opt_file = basicsr.train.copy_opt_file


@functools.wraps(_train_pipeline)
def train_pipeline(root_path):
    """BasicSR's, within a ``Session``: signals are noted, ranks part in order, the last state says that it is that."""
    with session.Session() as run:
        _train_pipeline(root_path)
        run.complete()


# --------------------------------------------------- beginning a run ------------------------------------------------ #


def load_resume_state(opt):
    """BasicSR needs a GPU, fails on damaged and stray files, and looks below the current directory."""
    return session.current.load_resume_state(opt)


def make_exp_dirs(opt):
    """BasicSR moves the folder of the last run away, also where ``--auto_resume`` finds no checkpoint in it yet."""
    if not session.current.keeps_folder:
        basicsr.utils.make_exp_dirs(opt)


def mkdir_and_rename(path):
    """BasicSR moves the TensorBoard files of the last run away, also with ``--auto_resume``."""
    if not session.current.keeps_folder:
        basicsr.utils.mkdir_and_rename(path)


@master_only
def copy_opt_file(opt_file, experiments_root):
    """BasicSR copies the file alone, which there does not find its ``base``; and every rank writes it at once.

    The copy of a file with a base holds the merged options, so that it stands on its own.
    """
    source = read_option_file(opt_file)
    if len(source.files) == 1:
        _copy_opt_file(opt_file, experiments_root)
        return
    files = ', which is based on '.join(source.files)
    head = f'# GENERATE TIME: {time.asctime()}\n# CMD:\n# {" ".join(sys.argv)}\n# MERGED FROM: {files}\n\n'
    with open(os.path.join(experiments_root, os.path.basename(opt_file)), 'w', encoding='utf-8') as file:
        file.write(head + dump_yaml(source.opt))


def create_train_val_dataloader(opt, logger):
    """BasicSR counts the incomplete last batch of an epoch, which is dropped, as an iteration, and stops too early.

    Here the sampler deals out one stream of samples in which every epoch has whole batches only, the last epoch ends
    with the last iteration, and a resumed run goes on in the middle of an epoch; BasicSR's loop then runs exactly
    ``total_iter`` iterations, and its last validation carries that number. What a sample looks like depends on its
    place in the stream alone, and no loader draws from the generator that the training draws from.
    """
    total_iter, train_loader, sampler, val_loaders = int(opt['train']['total_iter']), None, None, []
    for phase, dataset_opt in opt['datasets'].items():
        dataset = basicsr.data.build_dataset(dataset_opt)
        build = functools.partial(
            basicsr.data.build_dataloader,
            dataset_opt=dataset_opt,
            num_gpu=opt['num_gpu'],
            dist=opt['dist'],
            seed=opt['manual_seed'],
        )
        if dataset_opt['phase'] != 'train':
            logger.info(f'Number of val images/folders in {dataset_opt["name"]}: {len(dataset)}')
            val_loaders.append(build(dataset))
            continue
        batch_size = dataset_opt['batch_size_per_gpu'] * (1 if opt['dist'] else max(1, opt['num_gpu']))
        ratio = dataset_opt.get('dataset_enlarge_ratio', 1)
        try:
            sampler = StreamSampler(
                len(dataset),
                seed=opt['manual_seed'],
                batch_size=batch_size,
                world_size=opt['world_size'],
                rank=opt['rank'],
                ratio=ratio,
                total_iter=total_iter,
                start_iter=opt.get('resume_iter', 0),
            )
        except ValueError as error:
            raise InputError(
                f'datasets:{phase}: {error} Set a smaller batch_size_per_gpu or a larger dataset_enlarge_ratio'
            ) from None
        if not isinstance(dataset, PairedCropDataset):
            dataset = SeededDataset(dataset)
        train_loader = build(dataset, sampler=sampler)
        train_loader.worker_init_fn = signals.leave_to_parent  # no seeds: draws have no state
        logger.info(
            'Training statistics:'
            f'\n\tNumber of train images: {len(dataset)}'
            f'\n\tDataset enlarge ratio: {ratio}'
            f'\n\tBatch size per gpu: {dataset_opt["batch_size_per_gpu"]}'
            f'\n\tWorld size (gpu number): {opt["world_size"]}'
            f'\n\tRequire iter number per epoch: {sampler.iters_per_epoch}'
            f'\n\tTotal epochs: {sampler.num_epochs}; iters: {total_iter}.'
        )
    for loader in (train_loader, *val_loaders):
        loader.generator = torch.Generator().manual_seed(opt['manual_seed'])
    if session.current:
        session.current.take_loaders(sampler, val_loaders, logger)
    # BasicSR's loop is over range(start_epoch, total_epochs + 1).
    return train_loader, sampler, val_loaders, sampler.num_epochs - 1, total_iter


def build_model(opt):
    """BasicSR's. The log has been opened: what is in effect is written beside it. A signal makes the model save."""
    record_effective(opt)
    model = basicsr.models.build_model(opt)
    if session.current:
        session.current.model = model
    return model


# --------------------------------------------------- between iterations --------------------------------------------- #


def reduce_loss_dict(model, loss_dict):
    """BasicSR goes on with a loss that is not a number, and has the mean over the ranks on the first one only.

    The same message tells each rank whether another was asked to stop, so that all stop at one iteration.

    Raises:
        InputError: a loss is NaN or infinite, on any rank.
    """
    run = session.current
    with torch.no_grad():
        values = torch.stack([value.detach().float().mean() for value in loss_dict.values()])
        if model.opt['dist']:
            votes = run.stop.votes() if run else []
            packed = torch.cat([values, values.new_tensor(votes)])
            torch.distributed.all_reduce(packed)
            values = packed[: len(values)] / model.opt['world_size']
            if run:
                run.stop.agree(packed[len(values) :].tolist())
        log_dict = OrderedDict(zip(loss_dict, values.tolist()))
        if run:
            check_finite(log_dict, run.iteration)
        return log_dict


def validation(model, dataloader, current_iter, tb_logger, save_img=False):
    """BasicSR validates the last iteration twice, and keeps the best figures but not the best network."""
    run = session.current
    if run and model.is_train and run.is_validated(current_iter):
        return
    _validation(model, dataloader, current_iter, tb_logger, save_img)
    if run and model.is_train:
        run.validated(model, current_iter)


# --------------------------------------------------- saving and going on -------------------------------------------- #


@master_only
def save_network(model, net, net_label, current_iter, param_key='params'):
    """BasicSR writes into the file that a kill leaves half done, and ignores it when the disk is full."""
    name = f'{net_label}_{"latest" if current_iter == -1 else current_iter}.pth'
    nets, keys = (value if isinstance(value, list) else [value] for value in (net, param_key))
    saved = {}
    for bare, key in zip(map(model.get_bare_model, nets), keys, strict=True):
        saved[key] = bare.state_dict()
        for entry in list(saved[key]):
            saved[key][entry.removeprefix('module.')] = saved[key].pop(entry).cpu()
    digest = checkpoints.save(saved, os.path.join(model.opt['path']['models'], name))
    model.__dict__.setdefault('saved_files', {})[name] = digest


def save_training_state(model, epoch, current_iter):
    """As ``save_network``; and BasicSR leaves out what a run needs to go on as if it had never stopped."""
    run = session.current
    if current_iter == -1:
        if run:
            run.save_last(model)
    elif isinstance(current_iter, int):  # else `best`, which is not gone on from
        if run:
            run.save_state(model, epoch, current_iter)
        else:
            state = resume.contents(model, epoch, current_iter)
            if get_dist_info()[0] == 0:
                checkpoints.save(state, os.path.join(model.opt['path']['training_states'], f'{current_iter}.state'))


def resume_training(model, resume_state):
    """As ``save_training_state``; and BasicSR takes old settings for new ones without a word."""
    resume.restore(model, resume_state)
