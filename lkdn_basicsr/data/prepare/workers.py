"""What the worker processes do to single images: check, estimate, encode."""

import concurrent.futures.process
import contextlib
import dataclasses
import math
import mmap
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Literal

import cv2
import numpy as np
import tqdm

from lkdn_basicsr.data.image_files import ImagePair, probe_image, read_image
from lkdn_basicsr.data.imresize import imresize
from lkdn_basicsr.data.prepare.formats import StoreFormat
from lkdn_basicsr.errors import InputError


@dataclasses.dataclass
class Plan:
    """Which images are stored, and how.

    Attributes:
        images: In stored order.
        formats: By scale; 1 is HR, the others are LR.
        multiple: The sides of HR images are cropped to multiples of it.
        verify_lr: Compare given LR images with those that `imresize` makes.
        workers: Number of processes.
        progress: Show progress bars.
        slots: Memory shared with the workers, one slot per image in progress.
    """

    images: list[ImagePair]
    formats: dict[int, StoreFormat]
    multiple: int
    verify_lr: bool = False
    workers: int = 1
    progress: bool = False
    slots: list[mmap.mmap] = dataclasses.field(default_factory=list)

    def stored_shape(self, image: ImagePair, scale: int = 1) -> tuple[int, int]:
        """Return the (height, width) of an image in the store of a scale."""
        height, width = ((side - side % self.multiple) // scale for side in image.shape)
        return height, width


# A forked worker gets its plan here, because a pool passes only the arguments of single calls.
_plan: Plan


@contextlib.contextmanager
def start_workers(plan: Plan) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of forked processes that have the plan.

    Forked, because the package is already in memory: importing it again, with torch, takes seconds and most of a
    gigabyte per process.

    Raises:
        InputError: A worker was killed.
    """
    # A forked child inherits OpenCV's settings but none of its threads, and would wait for them.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    context = multiprocessing.get_context('fork')
    try:
        with ProcessPoolExecutor(plan.workers, context, initializer=_initialize, initargs=(plan,)) as pool:
            try:
                yield pool
            except concurrent.futures.process.BrokenProcessPool:
                raise InputError(
                    'A worker process was killed, probably because memory ran out; run the same command again to '
                    'resume, with fewer --workers.'
                ) from None
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        cv2.setNumThreads(threads)


def _initialize(plan: Plan) -> None:
    global _plan
    _plan = plan
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def exit_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def check_images(plan: Plan) -> list[str]:
    """Check every image and set its shape; return a sentence per problem."""
    problems = []
    with start_workers(plan) as pool:
        results = pool.map(_check_image, range(len(plan.images)))
        bar = tqdm.tqdm(results, 'Checking', len(plan.images), unit='image', disable=not plan.progress)
        for image, (shape, found) in zip(plan.images, bar, strict=True):
            image.shape = shape
            problems += found
    return problems


def _check_image(n: int) -> tuple[tuple[int, int], list[str]]:
    """Return the shape of an image, and the problems with it and its LR images."""
    image = _plan.images[n]
    try:
        image.shape = shape = probe_image(image.hr)
    except InputError as error:
        return (0, 0), [str(error)]
    problems = []
    cropped = _plan.stored_shape(image)
    if 0 in cropped:
        problems.append(f'{image.hr} is too small ({shape[1]}x{shape[0]}) for scale {_plan.multiple}')
    elif reason := _plan.formats[1].check(image.name, cropped):
        problems.append(f'{image.hr} ({shape[1]}x{shape[0]}) {reason}')
    for scale, path in image.lr.items():
        try:
            lr = probe_image(path)
        except InputError as error:
            problems.append(str(error))
            continue
        # If an HR side is not a multiple of the scale, the LR side may be rounded down or up.
        if any(small not in (large // scale, -(-large // scale)) for small, large in zip(lr, shape, strict=True)):
            problems.append(
                f'{path} is {lr[1]}x{lr[0]}, but {image.hr} is {shape[1]}x{shape[0]}, not {scale} times as large'
            )
        elif _plan.verify_lr and not problems:
            problems += _compare_lr(image, scale, path)
    return shape, problems


def _compare_lr(image: ImagePair, scale: int, path: str) -> list[str]:
    hr, lr = read_image(image.hr), read_image(path)
    if lr.shape != tuple(math.ceil(side / scale) for side in hr.shape[:2]) + (3,):
        hr = hr[: lr.shape[0] * scale, : lr.shape[1] * scale]
    edges: tuple[Literal['mirror', 'repeat'], ...] = ('mirror', 'repeat')
    differing = min(int((imresize(hr, 1 / scale, edge) != lr).any(axis=2).sum()) for edge in edges)
    if not differing:
        return []
    return [f"{path} is not MATLAB's bicubic of {image.hr}: {differing:,} of {lr[..., 0].size:,} pixels differ"]


def estimate(n: int) -> dict[int, int]:
    """Return the bytes that the PNG entries of image ``n`` will take, by scale."""
    sizes = {}
    for scale, pixels in _stored_images(n, list(_plan.formats)):
        sizes[scale] = _plan.formats[scale].estimate(pixels)  # type: ignore[union-attr]
    return sizes


def encode(n: int, scales: list[int], slot: int) -> dict[int, list[tuple[bytes, int, int]]]:
    """Write the entries of image ``n`` for the stores of some scales into a slot.

    Returns:
        Scale to entries: key, begin and end in the slot.
    """
    buffer, filled, entries = memoryview(_plan.slots[slot]), 0, {}
    for scale, pixels in _stored_images(n, scales):
        found = _plan.formats[scale].encode(n, _plan.images[n].name, pixels, buffer[filled:])
        entries[scale] = [(key, filled + begin, filled + end) for key, begin, end in found]
        filled = entries[scale][-1][2]
    return entries


def _stored_images(n: int, scales: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each scale with the pixels that its store contains of image ``n``."""
    image = _plan.images[n]
    if any(scale not in image.lr for scale in scales):  # always for HR
        hr = _read_cropped(image.hr, _plan.stored_shape(image))
    for scale in scales:
        if scale == 1:
            yield scale, hr
        elif scale in image.lr:
            yield scale, _read_cropped(image.lr[scale], _plan.stored_shape(image, scale))
        else:
            yield scale, imresize(hr, 1 / scale)


def _read_cropped(path: str, shape: tuple[int, int]) -> np.ndarray:
    pixels = read_image(path, _plan.formats[1].order)[: shape[0], : shape[1]]
    if pixels.shape[:2] != shape:
        raise InputError(f'{path} has another size than when it was checked; run the same command again.')
    return pixels
