"""Validation and test: images are sharded across the ranks, and their metrics gathered again."""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any, cast

import cv2
import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, tensor2img
from basicsr.utils.dist_util import get_dist_info
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from lkdn_basicsr.data.imresize import imresize
from lkdn_basicsr.devices import report_out_of_memory
from lkdn_basicsr.errors import InputError, one_line, printable
from lkdn_basicsr.files import write_file
from lkdn_basicsr.training.distributed import Ranks

PREVIEW = 512  # pixels per side in TensorBoard; complete images would fill the disk in a long run


def validate(
    model: SRModel, ranks: Ranks, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
) -> None:
    """Super-resolve a dataset and log its metrics, as ``SRModel.nondist_validation`` does.

    Rank ``r`` of ``n`` processes images r, r + n, …, and saves those. Every rank gets the same results, those of a
    single process, in ``model.metric_results`` and ``model.best_metric_results``.

    Args:
        dataloader: batches of one image.
        current_iter: iteration, or the name of a test.
        tb_logger: SummaryWriter that gets the metrics and the first image; None for no TensorBoard.

    Raises:
        InputError: the message names the image for which memory does not suffice, a result is not finite, or a metric
            cannot be computed.
    """
    val, dataset = model.opt['val'], cast(Any, dataloader.dataset)
    name = dataset.opt['name']
    metrics = val.get('metrics') or {}
    rank, world_size = get_dist_info()
    own: list[tuple[list[float], list[str]]] = []  # of each image of this rank: values of the metrics, and warnings
    shard = _shard(dataloader, rank, world_size)
    hide = None if rank == 0 and val.get('pbar') else True  # None shows the bar on a terminal only
    with bare_networks(model), tqdm(total=len(shard), unit='image', disable=hide) as bar:
        for data in shard:
            img_name = os.path.splitext(os.path.basename(data['lq_path'][0]))[0]
            label = printable(f'{img_name} of {name}')
            visuals = super_resolve(model, data, f'{label} at {current_iter}')
            images = to_images(visuals)
            if save_img:
                # Not OpenCV's imwrite, which ends the process where a name is not UTF-8.
                path = _saved_path(model.opt, name, img_name, current_iter)
                write_file(path, cv2.imencode('.png', images['result'])[1].tobytes())
            if tb_logger is not None and not own:
                tb_logger.add_image(f'images/{name}', side_by_side(**images), current_iter, dataformats='HWC')
            own.append(measure_image(images, metrics, label))
            bar.update()
            bar.set_description(f'Test {printable(img_name)}')
    if model.device.type == 'cuda':
        torch.cuda.empty_cache()  # images of many sizes fragment the memory

    # Also without metrics: the next collective of the training must not wait for the images of the slowest rank.
    gathered = ranks.gather(own)
    results = [gathered[i % world_size][i // world_size] for i in range(len(dataset))]
    for _, warnings in results:
        for warning in warnings:
            get_root_logger().warning(warning)
    if metrics:
        _log_means(model, name, [values for values, _ in results], current_iter, tb_logger)


def _shard(dataloader: DataLoader, rank: int, world_size: int) -> DataLoader:
    """Return a loader of the images of this rank."""
    if world_size == 1:
        return dataloader
    dataset = cast(Any, dataloader.dataset)
    subset = Subset(dataset, range(rank, len(dataset), world_size))
    kept = {key: getattr(dataloader, key) for key in ('num_workers', 'collate_fn', 'pin_memory', 'generator')}
    return DataLoader(subset, **kept)


@contextlib.contextmanager
def bare_networks(model: SRModel) -> Iterator[None]:
    """Take the networks out of DistributedDataParallel, which exchanges buffers in each forward pass.

    Ranks have different numbers of images, so some would wait for an exchange that never comes.
    """
    wrapped = {key: value for key, value in vars(model).items() if isinstance(value, DistributedDataParallel)}
    vars(model).update({key: value.module for key, value in wrapped.items()})
    try:
        yield
    finally:
        vars(model).update(wrapped)


def super_resolve(model: SRModel, data: dict[str, Any], image: str) -> dict[str, Tensor]:
    """Return the current visuals of a model for a batch of one image; ``image`` is for messages."""
    model.__dict__.pop('gt', None)  # of the last training batch, if this dataset has none
    height, width = data['lq'].shape[-2:]
    remedy = 'crop the image or leave it out' + ('' if model.is_train else ', or test on the CPU with num_gpu: 0')
    with report_out_of_memory(f'image {image}, LR of {width}×{height} pixels', remedy):
        model.feed_data(data)
        model.test()
        visuals = model.get_current_visuals()
    if not torch.isfinite(visuals['result']).all():
        # tensor2img turns NaN into black pixels, so the metrics would stay finite.
        advice = 'return to an earlier checkpoint, and continue with a lower train:optim_g:lr'
        raise InputError(f'the network gives NaN or infinite pixels for {image}: {advice}')
    for key in ('lq', 'output', 'gt'):
        model.__dict__.pop(key, None)
    return visuals


def to_images(visuals: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Convert the visuals of a model to (H, W, 3) BGR or (H, W), uint8."""
    return {key: tensor2img([tensor]) for key, tensor in visuals.items()}


def _saved_path(opt: dict[str, Any], dataset: str, img_name: str, current_iter: int | str) -> str:
    folder = img_name if opt['is_train'] else dataset
    suffix = current_iter if opt['is_train'] else opt['val'].get('suffix') or opt['name']
    return os.path.join(opt['path']['visualization'], folder, f'{img_name}_{suffix}.png')


def measure_image(images: dict[str, np.ndarray], metrics: dict[str, Any], image: str) -> tuple[list[float], list[str]]:
    """Return the metrics of an image, which are options under ``val:metrics``, and warnings."""
    data = {'img': images['result'], **({'img2': images['gt']} if 'gt' in images else {})}
    values, warnings = [], []
    for name, options in metrics.items():
        try:
            value = float(calculate_metric(data, options))
        except np.linalg.LinAlgError:  # NIQE of an image without texture
            value = math.nan
        except Exception as error:
            reason = f'cannot be computed for {image} ({one_line(error)})'
            raise InputError(f'val:metrics:{name} {reason}: remove the metric or the image') from error
        if math.isnan(value):
            warnings.append(f'{name} of {image} is NaN, and so is the mean.')
        values.append(value)
    return values, warnings


def _log_means(model: SRModel, dataset: str, values: list[list[float]], current_iter: Any, tb_logger: Any) -> None:
    """Log means and best values as BasicSR does."""
    model._initialize_best_metric_results(dataset)
    # fsum rounds once, so that the order of the images, and with it the number of ranks, does not matter.
    means = [math.fsum(column) / len(values) for column in zip(*values)]
    model.metric_results = dict(zip(model.opt['val']['metrics'], means))
    for metric, value in model.metric_results.items():
        model._update_best_metric_result(dataset, metric, value, current_iter)
    model._log_validation_metric_values(current_iter, dataset, tb_logger)


def side_by_side(lq: np.ndarray, result: np.ndarray, gt: np.ndarray | None = None) -> np.ndarray:
    """Put the centers of LR enlarged by bicubic, SR and, if there is one, GT next to each other, uint8 RGB.

    The images are (H, W, 3) BGR or (H, W), uint8; those of SR and GT are ``scale`` times as large.
    """
    scale = max(1, result.shape[0] // lq.shape[0])
    side = max(1, PREVIEW // scale)
    height, width = (min(length, side) for length in lq.shape[:2])
    top, left = ((length - part) // 2 for length, part in zip(lq.shape, (height, width)))
    panels = [imresize(lq[top : top + height, left : left + width], scale)]
    rows, columns = slice(top * scale, (top + height) * scale), slice(left * scale, (left + width) * scale)
    panels += [image[rows, columns] for image in (result, gt) if image is not None]
    return np.concatenate([_to_rgb(panel) for panel in panels], axis=1)


def _to_rgb(image: np.ndarray) -> np.ndarray:
    code = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(np.ascontiguousarray(image), code)
