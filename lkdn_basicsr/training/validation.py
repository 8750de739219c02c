"""Validation and test: pictures dealt out to the ranks, their metrics put together again. One rank is no other case."""

import contextlib
import math
from os import path as osp

import cv2
import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.dist_util import get_dist_info
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from lkdn_basicsr.data.imresize import imresize
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.training import distributed as ranks

SHOWN = 512  # pixels of a picture's side that TensorBoard gets; whole ones would fill the disk over a long run


def validate(model, dataloader, current_iter, tb_logger, save_img):
    """Super-resolve a data set and log its metrics; takes the place of ``SRModel.nondist_validation``.

    Rank ``r`` of ``n`` does pictures r, r + n, …, and saves those. Every rank ends with the same results, which are
    those of a single process, in ``model.metric_results`` and ``model.best_metric_results``, as BasicSR's.

    Args:
        model (SRModel): Gives ``feed_data``, ``test`` and ``get_current_visuals``.
        dataloader (DataLoader): Of batches of one picture.
        current_iter (int | str): Iteration, or the name of a test.
        tb_logger (SummaryWriter | None): Gets the metrics and the first picture.
        save_img (bool): Whether to save the pictures.

    Raises:
        InputError: A result is not finite, or a metric cannot be computed; the sentence names the picture.
    """
    val = model.opt['val']
    name = dataloader.dataset.opt['name']
    metrics = val.get('metrics') or {}
    rank, world_size = get_dist_info()
    own = []  # for each picture of this rank: the values of the metrics, and what there is to say about them
    loader = _dealt(dataloader, rank, world_size)
    with _bare_networks(model), tqdm(total=len(loader), unit='image', disable=rank > 0 or not val.get('pbar')) as bar:
        for data in loader:
            picture = osp.splitext(osp.basename(data['lq_path'][0]))[0]
            visuals = _super_resolve(model, data, f'{picture} of {name} at {current_iter}')
            images = {key: tensor2img([visuals[key]]) for key in ('lq', 'result', 'gt') if key in visuals}
            if save_img:
                imwrite(images['result'], _saved_path(model.opt, name, picture, current_iter))
            if tb_logger is not None and not own:
                tb_logger.add_image(f'pictures/{name}', side_by_side(**images), current_iter, dataformats='HWC')
            own.append(_measure(images, metrics, f'{picture} of {name}'))
            bar.update()
            bar.set_description(f'Test {picture}')
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # pictures of many sizes leave the memory in pieces

    # Also without metrics: the next collective of the training must not wait for the slowest rank's pictures.
    dealt = ranks.gather(own)
    results = [dealt[i % world_size][i // world_size] for i in range(len(dataloader.dataset))]
    for remark in (remark for _, remarks in results for remark in remarks):
        get_root_logger().warning(remark)
    if metrics:
        _conclude(model, name, [values for values, _ in results], current_iter, tb_logger)


def validate_distributed(model, dataloader, current_iter, tb_logger, save_img):
    """``SRModel.dist_validation``, which lets the others run into the next step's timeout while the first rank works.

    A model class with a loop of its own over the pictures has it run by the first rank; the others wait.
    """
    if type(model).nondist_validation is validate:
        validate(model, dataloader, current_iter, tb_logger, save_img)
        return
    with _bare_networks(model):
        if get_dist_info()[0] == 0:
            model.nondist_validation(dataloader, current_iter, tb_logger, save_img)
    ranks.gather(None)


def _dealt(dataloader, rank, world_size):
    """The pictures of this rank, each as a batch."""
    if world_size == 1:
        return dataloader
    pictures = Subset(dataloader.dataset, range(rank, len(dataloader.dataset), world_size))
    return DataLoader(
        pictures,
        num_workers=dataloader.num_workers,
        collate_fn=dataloader.collate_fn,
        pin_memory=dataloader.pin_memory,
        generator=dataloader.generator,
    )


@contextlib.contextmanager
def _bare_networks(model):
    """The networks out of their wraps, which would exchange buffers at every picture, of which ranks have not the same
    number."""
    wrapped = {key: value for key, value in vars(model).items() if isinstance(value, DistributedDataParallel)}
    vars(model).update({key: value.module for key, value in wrapped.items()})
    try:
        yield
    finally:
        vars(model).update(wrapped)


def _super_resolve(model, data, what):
    model.__dict__.pop('gt', None)  # of the last training batch, where this data set has none
    model.feed_data(data)
    model.test()
    visuals = model.get_current_visuals()
    if not torch.isfinite(visuals['result']).all():
        # tensor2img makes black pixels of NaN, and the metrics stay finite.
        raise InputError(
            f'the network gives NaN or infinite pixels for {what}: go back to an earlier checkpoint, and '
            'train on with a lower train:optim_g:lr'
        )
    for key in ('lq', 'output', 'gt'):
        model.__dict__.pop(key, None)
    return visuals


def _saved_path(opt, dataset, picture, current_iter):
    root = opt['path']['visualization']
    if opt['is_train']:
        return osp.join(root, picture, f'{picture}_{current_iter}.png')
    return osp.join(root, dataset, f'{picture}_{opt["val"].get("suffix") or opt["name"]}.png')


def _measure(images, metrics, what):
    """The metrics of one picture: (list of floats, list of remarks)."""
    data = {'img': images['result'], **({'img2': images['gt']} if 'gt' in images else {})}
    values, remarks = [], []
    for name, options in metrics.items():
        try:
            value = float(calculate_metric(data, options))
        except np.linalg.LinAlgError:  # NIQE of a picture without texture
            value = math.nan
        except Exception as error:
            reason = ' '.join(str(error).split()).rstrip('.')
            raise InputError(
                f'val:metrics:{name} cannot be computed for {what} ({reason}): leave the metric or the picture out'
            ) from error
        if math.isnan(value):
            remarks.append(f'{name} of {what} is not a number, and so is the mean.')
        values.append(value)
    return values, remarks


def _conclude(model, dataset, values, current_iter, tb_logger):
    """Means, best values and log lines, as BasicSR has them."""
    model._initialize_best_metric_results(dataset)
    # fsum rounds once, so that the order of the pictures, and with it the number of ranks, does not matter.
    means = [math.fsum(column) / len(values) for column in zip(*values)]
    model.metric_results = dict(zip(model.opt['val']['metrics'], means))
    for metric, value in model.metric_results.items():
        model._update_best_metric_result(dataset, metric, value, current_iter)
    model._log_validation_metric_values(current_iter, dataset, tb_logger)


def side_by_side(lq, result, gt=None):
    """The middle of a picture: LR enlarged by bicubic, SR and, if there is one, GT, next to each other.

    Args:
        lq, result, gt (ndarray): (H, W, 3) BGR or (H, W), uint8.

    Returns:
        ndarray: (H, 2 or 3 times W, 3) uint8, RGB.
    """
    scale = max(1, result.shape[0] // lq.shape[0])
    side = max(1, SHOWN // scale)
    height, width = (min(length, side) for length in lq.shape[:2])
    top, left = ((length - part) // 2 for length, part in zip(lq.shape, (height, width)))
    panels = [imresize(lq[top : top + height, left : left + width], scale)]
    panels += [
        image[top * scale : (top + height) * scale, left * scale : (left + width) * scale]
        for image in (result, gt)
        if image is not None
    ]
    panels = [
        cv2.cvtColor(np.ascontiguousarray(p), cv2.COLOR_GRAY2RGB if p.ndim == 2 else cv2.COLOR_BGR2RGB) for p in panels
    ]
    return np.concatenate(panels, axis=1)
