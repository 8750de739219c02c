"""``PairedCropDataset``: LQ/GT pairs for training and testing, as uint8, with stateless random crops."""

import random
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.utils.color_util import rgb2ycbcr
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from lkdn_basicsr.data.image_sources import RawSource, open_sources
from lkdn_basicsr.data.sampler import SampleIndex, crop_and_flips
from lkdn_basicsr.errors import InputError


@DATASET_REGISTRY.register()
class PairedCropDataset(Dataset):
    """LQ/GT pairs from raw stores, BasicSR's PNG LMDBs or plain folders.

    In training a sample is a random crop, flipped and transposed as in BasicSR's ``PairedImageDataset``. A raw store
    contains complete images; the dataset enumerates the sub-images that BasicSR's extraction would cut from them, so an
    index is one such window, and the crop is drawn inside it. In an LMDB or folder an index is one image, as in
    BasicSR. In validation an index is a complete image, and the GT is cropped to the size of the LQ times ``scale``.

    The crop is a pure function of (seed, position) of the ``SampleIndex`` that ``StreamSampler`` yields. A plain
    ``int`` works too: the position is then drawn from Python's ``random``, which BasicSR seeds in each worker.

    Args:
        opt: With BasicSR's names:

            dataroot_gt, dataroot_lq (str): Raw stores, LMDBs or folders.
            scale (int), phase (str): 'train', 'val' or 'test'; BasicSR sets both.
            io_backend (dict): ``type: raw``, ``lmdb`` or ``disk``. A raw store is detected whatever the type.
            meta_info_file (str): File that lists the GT images to use. Default: all.
            filename_tmpl (str): Name of the LQ image, without extension, for that of the GT. Default: '{}'.
            gt_size (int): Side of the GT crop in training; a multiple of ``scale``.
            use_hflip, use_rot (bool): Random horizontal flips; random vertical flips and transpositions.
                Default: False.
            crop_size, step, thresh (int): The windows of raw stores, in GT pixels. Default: 480, 240, 0. An image
                smaller than ``crop_size`` has one window over its complete height or width.
            float32 (bool): Samples as in BasicSR's ``PairedImageDataset``, float32 in [0, 1], for model classes that
                do not convert uint8 themselves. Default: False.
            mean, std (list[float]), color (str): Normalization, and 'y' for luma only, as in BasicSR; either gives
                float32 samples.

    Samples are dictionaries: ``lq`` (3, h, w) and ``gt`` (3, h * scale, w * scale), uint8 RGB tensors (float32, and one
    channel for 'y', where requested); ``lq_path`` and ``gt_path``, file names or keys.

    Raises:
        InputError: An option or an image is invalid; everything that does not need decoding is checked at once.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.scale: int = opt['scale']
        self.train = opt['phase'] == 'train'
        self.mean, self.std, self.luma = opt.get('mean'), opt.get('std'), opt.get('color') == 'y'
        self.floats = bool(opt.get('float32') or self.luma or self.mean or self.std)
        self.hflip, self.rot = bool(opt.get('use_hflip')), bool(opt.get('use_rot'))
        if self.train:
            self._check_multiple('gt_size', opt.get('gt_size'))
            self.lq_size = opt['gt_size'] // self.scale
        self.gt, self.lq, self.pairs = open_sources(opt)
        self._check_sizes()
        # In training: (n, 5) int32: pair, then top, left, height and width of its window in LQ pixels.
        self.windows = self._enumerate_windows() if self.train and isinstance(self.gt, RawSource) else None

    def __len__(self) -> int:
        return len(self.pairs) if self.windows is None else len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        i_pair, *window = [index] if self.windows is None else self.windows[index].tolist()
        pair = self.pairs[i_pair].tolist()
        gt, lq = self.gt.image(pair[0]), self.lq.image(pair[1])
        if not window:  # sizes of raw stores are known, and were checked when the dataset was created
            self._check_pair(pair, gt.shape, lq.shape)
            window = [0, 0, *lq.shape[:2]]
        if self.train:
            lq, gt = self._crop(index, lq, gt, window)
        else:
            gt = gt[: lq.shape[0] * self.scale, : lq.shape[1] * self.scale]
            lq, gt = np.ascontiguousarray(lq), np.ascontiguousarray(gt)
        sample = dict(lq=_planes(lq), gt=_planes(gt))
        if self.floats:
            sample = {key: self._to_float(planes) for key, planes in sample.items()}
        return dict(sample, lq_path=self.lq.labels[pair[1]], gt_path=self.gt.labels[pair[0]])

    def _crop(self, index: int, lq: np.ndarray, gt: np.ndarray, window: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return a random crop of a pair inside a window (top, left, height, width in LQ), flipped and transposed."""
        top, left, height, width = window
        seed, position = (index.seed, index.position) if isinstance(index, SampleIndex) else (0, random.getrandbits(64))
        size, scale = self.lq_size, self.scale
        down, right, hflip, vflip, rot90 = crop_and_flips(seed, position, height - size + 1, width - size + 1)
        top, left = top + down, left + right
        flips = hflip and self.hflip, vflip and self.rot, rot90 and self.rot
        lq = lq[top : top + size, left : left + size]
        gt = gt[top * scale : (top + size) * scale, left * scale : (left + size) * scale]
        return _augment(lq, *flips), _augment(gt, *flips)

    def _check_multiple(self, key: str, value: int | None) -> None:
        if not isinstance(value, int) or value < self.scale or value % self.scale:
            raise InputError(f'{key}: {value} is not a positive multiple of the scale, {self.scale}; correct it.')

    def _to_float(self, planes: torch.Tensor) -> torch.Tensor:
        planes = planes.float() / 255
        if self.luma:
            planes = torch.from_numpy(rgb2ycbcr(planes.permute(1, 2, 0).numpy(), y_only=True))[None]
        if self.mean or self.std:
            normalize(planes, self.mean or [0.0], self.std or [1.0], inplace=True)
        return planes

    def _check_pair(self, pair: Sequence[int], gt_shape: Sequence[int], lq_shape: Sequence[int]) -> None:
        """Raise InputError if the sizes of a pair, (height, width, …), do not match or are too small."""
        (gt_h, gt_w), (lq_h, lq_w) = gt_shape[:2], lq_shape[:2]
        # A GT that is not a multiple of the scale is cropped in validation, as in BasicSR, and refused in training.
        slack = 1 if self.train else self.scale
        gt, lq = f'{self.gt.describe(pair[0])} ({gt_h}x{gt_w})', f'{self.lq.describe(pair[1])} ({lq_h}x{lq_w})'
        if not (0 <= gt_h - lq_h * self.scale < slack and 0 <= gt_w - lq_w * self.scale < slack):
            raise InputError(f'{gt} is not {self.scale} times the size of {lq}; correct scale, or the pair.')
        if self.train and min(lq_h, lq_w) < self.lq_size:
            size = self.lq_size * self.scale
            raise InputError(f'{gt} is smaller than gt_size {size}; remove the pair, or lower gt_size.')

    def _check_sizes(self) -> None:
        """Check all pairs by the sizes in indices and headers; where these do not fit, decode the pair to be sure."""
        gt, lq = self.gt.sizes(self.pairs[:, 0]), self.lq.sizes(self.pairs[:, 1])
        rest = gt - lq * self.scale
        doubtful = (rest < 0) | (rest >= (1 if self.train else self.scale))
        if self.train:
            doubtful |= lq < self.lq_size
        for i in np.flatnonzero(doubtful.any(axis=1)):
            pair = self.pairs[i].tolist()
            self._check_pair(pair, self.gt.image(pair[0]).shape, self.lq.image(pair[1]).shape)

    def _enumerate_windows(self) -> np.ndarray:
        crop_size, step = self.opt.get('crop_size', 480), self.opt.get('step', 240)
        self._check_multiple('crop_size', crop_size)
        self._check_multiple('step', step)
        scale, gt_size = self.scale, self.lq_size * self.scale
        if crop_size < gt_size:
            raise InputError(f'crop_size: {crop_size} is less than gt_size: {gt_size}; raise it, or lower gt_size.')
        sizes = self.gt.sizes(self.pairs[:, 0])
        windows: list[tuple[int, ...]] = []
        origins = {
            length: sub_image_origins(length, min(crop_size, length), step, self.opt.get('thresh', 0))
            for length in np.unique(sizes).tolist()
        }
        for i, size in enumerate(sizes.tolist()):
            tops, lefts = (origins[length] // scale for length in size)
            height, width = (min(crop_size, length) // scale for length in size)
            windows += [(i, top, left, height, width) for top in tops for left in lefts]
        return np.array(windows, np.int32)


def _augment(image: np.ndarray, hflip: bool, vflip: bool, rot90: bool) -> np.ndarray:
    """Do what BasicSR's ``augment`` does for these flags: (H, W, 3) uint8, any row stride, to a new contiguous array.

    OpenCV swaps rows faster than the pixels in them.
    """
    if rot90:
        image = cv2.transpose(cv2.flip(image, 0) if vflip else image)
        return cv2.flip(image, 0, image) if hflip else image
    if hflip or vflip:
        return cv2.flip(image, -1 if hflip and vflip else 1 if hflip else 0)
    return image.copy()


def _planes(image: np.ndarray) -> torch.Tensor:
    """Convert (H, W, 3) uint8, contiguous, to (3, H, W); OpenCV is four times faster than numpy here."""
    planes = np.empty((3, *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))
    return torch.from_numpy(planes)


def sub_image_origins(length: int, crop_size: int = 480, step: int = 240, thresh: int = 0) -> np.ndarray:
    """Return where the sub-images of an image begin on an axis of ``length`` pixels.

    One begins every ``step`` pixels, and one more flush with the far edge where more than ``thresh`` pixels would be
    left over. The windows of an image are the pairs of its row origins (outer) and column origins (inner); numbered
    from 1 in that order they are BasicSR's ``_s001``, ``_s002``, …

    Returns:
        Origins, ascending, int64; empty where ``length < crop_size``.
    """
    origins = np.arange(0, length - crop_size + 1, step, dtype=np.int64)
    if len(origins) and length - (origins[-1] + crop_size) > thresh:
        origins = np.append(origins, length - crop_size)
    return origins
