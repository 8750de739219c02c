"""``PairedCropDataset``: LQ/GT pairs for training and testing, as bytes, with draws that carry no state."""

import random

import cv2
import numpy as np
import torch
from basicsr.utils.color_util import rgb2ycbcr
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from lkdn_basicsr.data.image_sources import RawSource, open_sources
from lkdn_basicsr.data.sampler import crop_and_flips
from lkdn_basicsr.errors import InputError


def _turned(image, hflip, vflip, rot90):
    """BasicSR's ``augment`` for given flags: (h, w, 3) uint8, any row stride, to a contiguous array of its own.

    Of equal ways the one that OpenCV does fastest: rows are swapped rather than the pixels in them.
    """
    if rot90:
        image = cv2.transpose(cv2.flip(image, 0) if vflip else image)
        return cv2.flip(image, 0, image) if hflip else image
    if hflip or vflip:
        return cv2.flip(image, -1 if hflip and vflip else 1 if hflip else 0)
    return image.copy()


def _planes(image):
    """(h, w, 3) uint8, contiguous, to a (3, h, w) uint8 tensor; four times faster by OpenCV than by numpy."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))
    return torch.from_numpy(planes)


@DATASET_REGISTRY.register()
class PairedCropDataset(Dataset):
    """LQ/GT pairs out of raw stores, BasicSR's PNG LMDBs or plain folders.

    In training a sample is a random crop, flipped and turned as BasicSR's ``PairedImageDataset`` does. A raw store
    holds whole pictures; the data set enumerates the sub-images that BasicSR's extraction would cut from them, so an
    index is one such window, and the crop is drawn inside it. In an LMDB or folder an index is one picture, as in
    BasicSR. In validation an index is a whole picture, the GT cut to the LQ's size times ``scale``.

    The crop is a pure function of (seed, position) of the ``SampleIndex`` that ``StreamSampler`` gives as the index. A
    plain ``int`` works too: the position is then drawn from Python's ``random``, which BasicSR seeds in each worker.

    Args:
        opt (dict): With BasicSR's names:

            dataroot_gt, dataroot_lq (str): Raw stores, LMDBs or folders.
            scale (int), phase (str): 'train' or else; BasicSR fills both in.
            io_backend (dict): ``type: raw``, ``lmdb`` or ``disk``. A raw store is recognised whatever the type.
            meta_info_file (str): File that lists the GT pictures to use. Default: all.
            filename_tmpl (str): Name of the LQ picture, without extension, for that of the GT. Default: '{}'.
            gt_size (int): Side of the GT crop in training; a multiple of ``scale``.
            use_hflip, use_rot (bool): Random horizontal flips; random vertical flips and transpositions.
                Default: False.
            crop_size, step, thresh (int): The windows of raw stores, in GT pixels. Default: 480, 240, 0. Of a picture
                less high or wide than ``crop_size`` the whole height or width is used.
            float32 (bool): Samples as BasicSR's ``PairedImageDataset`` gives them, float32 in [0, 1], for model classes
                that do not turn bytes to float themselves. Default: False.
            mean, std (list[float]), color (str): Normalisation, and 'y' for the luma alone, as in BasicSR; either gives
                float32 samples.

    Samples are dictionaries: ``lq`` (3, h, w) and ``gt`` (3, h * scale, w * scale), uint8 RGB tensors (float32, and one
    channel for 'y', where asked for); ``lq_path`` and ``gt_path``, file names or keys.

    Raises:
        InputError: An option or a picture is wrong; what can be known without decoding pictures is checked at once.
    """

    def __init__(self, opt):
        self.opt = opt
        self.scale = opt['scale']
        self.train = opt['phase'] == 'train'
        self.mean, self.std, self.luma = opt.get('mean'), opt.get('std'), opt.get('color') == 'y'
        self.floats = bool(opt.get('float32') or self.luma or self.mean or self.std)
        self.hflip, self.rot = bool(opt.get('use_hflip')), bool(opt.get('use_rot'))
        if self.train:
            gt_size = opt.get('gt_size')
            if not isinstance(gt_size, int) or gt_size < self.scale or gt_size % self.scale:
                raise InputError(
                    f'gt_size: {gt_size} is not a positive multiple of the scale, {self.scale}; correct it.'
                )
            self.lq_size = gt_size // self.scale
        self.gt, self.lq, self.pairs = open_sources(opt)
        self._check_sizes()
        # In training: (n, 5) int32: pair, then top, left, height and width of its window in LQ pixels.
        self.windows = self._enumerate_windows() if self.train and isinstance(self.gt, RawSource) else None

    def __len__(self):
        return len(self.pairs) if self.windows is None else len(self.windows)

    def __getitem__(self, index):
        lq, gt, (i_gt, i_lq) = self._crop(index) if self.train else self._whole(index)
        if self.floats:
            lq, gt = self._to_float(lq), self._to_float(gt)
        return {'lq': lq, 'gt': gt, 'lq_path': self.lq.labels[i_lq], 'gt_path': self.gt.labels[i_gt]}

    def _whole(self, index):
        pair = self.pairs[index].tolist()
        gt, lq = self.gt.image(pair[0]), self.lq.image(pair[1])
        self._check_pair(pair, gt.shape, lq.shape)
        gt = gt[: lq.shape[0] * self.scale, : lq.shape[1] * self.scale]
        return _planes(np.ascontiguousarray(lq)), _planes(np.ascontiguousarray(gt)), pair

    def _crop(self, index):
        if self.windows is None:
            pair = self.pairs[index].tolist()
            gt, lq = self.gt.image(pair[0]), self.lq.image(pair[1])
            self._check_pair(pair, gt.shape, lq.shape)
            top, left, (height, width) = 0, 0, lq.shape[:2]
        else:
            i_pair, top, left, height, width = self.windows[index].tolist()
            pair = self.pairs[i_pair].tolist()
            gt, lq = self.gt.image(pair[0]), self.lq.image(pair[1])
        seed, position = getattr(index, 'seed', 0), getattr(index, 'position', None)
        if position is None:
            position = random.getrandbits(64)
        size, scale = self.lq_size, self.scale
        down, right, hflip, vflip, rot90 = crop_and_flips(seed, position, height - size + 1, width - size + 1)
        top, left = top + down, left + right
        flips = hflip and self.hflip, vflip and self.rot, rot90 and self.rot
        lq = lq[top : top + size, left : left + size]
        top, left, size = top * scale, left * scale, size * scale
        gt = gt[top : top + size, left : left + size]
        return _planes(_turned(lq, *flips)), _planes(_turned(gt, *flips)), pair

    def _to_float(self, planes):
        planes = planes.float() / 255
        if self.luma:
            planes = torch.from_numpy(rgb2ycbcr(planes.permute(1, 2, 0).numpy(), y_only=True))[None]
        if self.mean or self.std:
            normalize(planes, self.mean or [0.0], self.std or [1.0], inplace=True)
        return planes

    def _check_pair(self, pair, gt_shape, lq_shape):
        """Raises where the sizes of a pair, (height, width, …), do not belong together or are too small."""
        (gt_h, gt_w), (lq_h, lq_w) = gt_shape[:2], lq_shape[:2]
        # A test picture that is not a multiple of the scale loses its rest, as in BasicSR; in training it is refused.
        slack = 1 if self.train else self.scale
        gt, lq = self.gt.describe(pair[0]), self.lq.describe(pair[1])
        if not (0 <= gt_h - lq_h * self.scale < slack and 0 <= gt_w - lq_w * self.scale < slack):
            raise InputError(
                f'{gt} ({gt_h}x{gt_w}) is not {self.scale} times the size of {lq} ({lq_h}x{lq_w}); '
                'correct scale, or the pair.'
            )
        if self.train and min(lq_h, lq_w) < self.lq_size:
            raise InputError(
                f'{gt} ({gt_h}x{gt_w}) is smaller than gt_size {self.lq_size * self.scale}; remove the '
                'pair, or lower gt_size.'
            )

    def _check_sizes(self):
        """Checks all pairs by the sizes that indices and headers state; a doubtful pair is decoded to make sure."""
        gt, lq = self.gt.sizes(self.pairs[:, 0]), self.lq.sizes(self.pairs[:, 1])
        rest = gt - lq * self.scale
        doubtful = (lq < 0) | (gt < 0) | (rest < 0) | (rest >= (1 if self.train else self.scale))
        if self.train:
            doubtful |= lq < self.lq_size
        for i in np.flatnonzero(doubtful.any(axis=1)):
            pair = self.pairs[i].tolist()
            self._check_pair(pair, self.gt.image(pair[0]).shape, self.lq.image(pair[1]).shape)

    def _enumerate_windows(self):
        crop_size, step, thresh = (
            self.opt.get(key, default) for key, default in (('crop_size', 480), ('step', 240), ('thresh', 0))
        )
        scale = self.scale
        for key, value in (('crop_size', crop_size), ('step', step)):
            if value < scale or value % scale:
                raise InputError(f'{key}: {value} is not a positive multiple of the scale, {scale}; correct it.')
        if crop_size < self.lq_size * scale:
            raise InputError(
                f'crop_size: {crop_size} is less than gt_size: {self.lq_size * scale}; raise the one or '
                'lower the other.'
            )
        windows = []
        origins = {}
        for i, size in enumerate(self.gt.sizes(self.pairs[:, 0]).tolist()):
            for length in size:
                if length not in origins:
                    origins[length] = sub_image_origins(length, min(crop_size, length), step, thresh)
            tops, lefts = (origins[length] // scale for length in size)
            height, width = (min(crop_size, length) // scale for length in size)
            windows += [(i, top, left, height, width) for top in tops for left in lefts]
        return np.array(windows, np.int32)


def sub_image_origins(length, crop_size=480, step=240, thresh=0):
    """Where the sub-images of one axis begin.

    One begins every ``step`` pixels, and one more flush with the far edge where more than ``thresh`` pixels would be
    left over. The windows of a picture are the pairs of its row origins (outer) and column origins (inner); numbered
    from 1 in that order they are BasicSR's ``_s001``, ``_s002``, ...

    Args:
        length (int): Height or width of the picture, in pixels.
        crop_size (int): Side of a window. A picture shorter than it has no window.
        step (int): Distance between neighbouring windows.
        thresh (int): A remainder of this many pixels, or fewer, is dropped.

    Returns:
        ndarray: Origins, ascending, int64; empty where ``length < crop_size``.
    """
    origins = np.arange(0, length - crop_size + 1, step, dtype=np.int64)
    if len(origins) and length - (origins[-1] + crop_size) > thresh:
        origins = np.append(origins, length - crop_size)
    return origins
