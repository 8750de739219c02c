"""BasicSR's data loaders, with samples that depend only on the seed and their position in the run."""

import logging
from typing import Any

import basicsr.data
import torch
from torch.utils.data import DataLoader

from lkdn_basicsr.data.paired_crop_dataset import PairedCropDataset
from lkdn_basicsr.data.sampler import SeededDataset, StreamSampler
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.option_file import RunOptions
from lkdn_basicsr.training import resume
from lkdn_basicsr.training.signals import ignore_in_worker


def build_train_loader(opt: RunOptions, phase: str, dataset: Any) -> tuple[DataLoader, StreamSampler]:
    """Build the loader of the training dataset, and log its statistics.

    ``StreamSampler`` splits one stream of samples into epochs of complete batches, and starts anywhere in it.

    Raises:
        InputError: there is less than one batch.
    """
    dataset_opt = opt['datasets'][phase]
    ratio = dataset_opt.get('dataset_enlarge_ratio', 1)
    global_batch = resume.global_batch(opt)
    total_iter, batch = int(opt['train']['total_iter']), global_batch // opt['world_size']
    place: dict[str, Any] = {'world_size': opt['world_size'], 'rank': opt['rank'], 'ratio': ratio}
    place |= {'start_iter': opt.get('resume_iter', 0), 'total_iter': total_iter}
    try:
        sampler = StreamSampler(len(dataset), opt['manual_seed'], batch, **place)
    except ValueError as error:
        fix = 'Set a smaller batch_size_per_gpu or a larger dataset_enlarge_ratio'
        raise InputError(f'datasets:{phase}: {error} {fix}') from None
    logging.getLogger('basicsr').info(
        'Training statistics:'
        f'\n\tNumber of train images: {len(dataset)}'
        f'\n\tDataset enlarge ratio: {ratio}'
        f'\n\tBatch size per gpu: {dataset_opt["batch_size_per_gpu"]}'
        f'\n\tWorld size (gpu number): {opt["world_size"]}'
        f'\n\tGlobal batch size (all GPUs and ranks): {global_batch}'
        f'\n\tRequire iter number per epoch: {sampler.iters_per_epoch}'
        f'\n\tTotal epochs: {sampler.num_epochs}; iters: {total_iter}.'
    )
    # The thread of prefetch_mode: cpu is the Prefetcher's, see Run.CPUPrefetcher.
    loader = build_loader(opt, {**dataset_opt, 'prefetch_mode': None}, seed_by_position(dataset), sampler)
    loader.worker_init_fn = ignore_in_worker  # and no seeds: samples depend on their position only
    return loader, sampler


def seed_by_position(dataset: Any) -> Any:
    """Return a dataset whose samples depend on nothing but their ``SampleIndex``."""
    return dataset if isinstance(dataset, PairedCropDataset) else SeededDataset(dataset)


def build_loader(opt: RunOptions, dataset_opt: dict[str, Any], dataset: Any, sampler: Any = None) -> DataLoader:
    """Build BasicSR's loader; it must not draw from the generator that the training draws from."""
    place = {'num_gpu': opt['num_gpu'], 'dist': opt['dist'], 'seed': opt['manual_seed']}
    loader = basicsr.data.build_dataloader(dataset, dataset_opt, sampler=sampler, **place)
    loader.generator = torch.Generator().manual_seed(opt['manual_seed'])
    return loader
