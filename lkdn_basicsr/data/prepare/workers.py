"""What the worker processes do to single images: check, estimate, encode."""

import concurrent.futures.process
import contextlib
import ctypes
import dataclasses
import math
import mmap
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, get_args

import cv2
import numpy as np
import tqdm

from lkdn_basicsr.data.image_files import ImagePair, probe_image, read_image
from lkdn_basicsr.data.imresize import Edges, imresize
from lkdn_basicsr.data.prepare.formats import Places, Shape, StoreFormat
from lkdn_basicsr.errors import InputError

# Forked processes have the package in memory. Others import it again, with torch, which takes seconds and most of a
# gigabyte in each; but Windows cannot fork, and macOS not safely.
START_METHOD = 'fork' if sys.platform == 'linux' else 'spawn'


@dataclasses.dataclass
class Plan:
    """Which images are stored, and how."""

    images: list[ImagePair]  # in stored order
    formats: dict[int, StoreFormat]  # by scale; 1 is HR, the others are LR
    multiple: int  # the sides of HR images are cropped to multiples of it
    verify_lr: bool  # compare given LR images with those that `imresize` makes
    workers: int
    progress: bool  # show progress bars on a terminal
    slots: list[Any] = dataclasses.field(default_factory=list)  # from `shared_memory`, one per image in progress

    def stored_shape(self, image: ImagePair, scale: int = 1) -> Shape:
        """Return the (height, width) of an image in the store of a scale."""
        height, width = ((side - side % self.multiple) // scale for side in image.shape)
        return height, width

    def stored_shapes(self, scale: int = 1) -> list[Shape]:
        return [self.stored_shape(image, scale) for image in self.images]


# A worker gets its plan here when it starts, because a pool passes only the arguments of single calls.
_plan: Plan


def count_cores() -> int:
    """Return the number of cores that this process may use, where the system limits it, else of the machine."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return min(os.cpu_count() or 1, 61)  # more processes are not allowed in a pool on Windows


def shared_memory(size: int) -> Any:
    """Return a buffer that workers share if they are started later; they receive it in their plan."""
    # Only forked processes inherit anonymous memory. The other kind is limited by the size of /dev/shm.
    return mmap.mmap(-1, size) if START_METHOD == 'fork' else multiprocessing.RawArray(ctypes.c_ubyte, size)


def slot_bytes(plan: Plan, slot: int) -> memoryview:
    return np.frombuffer(plan.slots[slot], np.uint8).data


@contextlib.contextmanager
def start_workers(plan: Plan) -> Iterator[ProcessPoolExecutor]:
    """Start a pool of processes that have the plan; raise InputError if one is killed."""
    # A forked child inherits OpenCV's settings but none of its threads, and would wait for them.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    context = multiprocessing.get_context(START_METHOD)
    try:
        with ProcessPoolExecutor(plan.workers, context, initializer=_initialize, initargs=(plan,)) as pool:
            try:
                yield pool
            except concurrent.futures.process.BrokenProcessPool:
                how = 'run the same command again to resume, with fewer --workers.'
                raise InputError(f'A worker process was killed, probably because memory ran out; {how}') from None
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        cv2.setNumThreads(threads)


def _initialize(plan: Plan) -> None:
    global _plan
    _plan = plan
    cv2.setNumThreads(1)  # there is a process per core
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
        bar = tqdm.tqdm(results, 'Checking', len(plan.images), unit='image', disable=None if plan.progress else True)
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
            hr = f'{image.hr} is {shape[1]}x{shape[0]}'
            problems.append(f'{path} is {lr[1]}x{lr[0]}, but {hr}, not {scale} times as large')
        elif _plan.verify_lr and not problems:
            problems += _compare_lr(image, scale, path)
    return shape, problems


def _compare_lr(image: ImagePair, scale: int, path: str) -> list[str]:
    hr, lr = read_image(image.hr), read_image(path)
    if lr.shape != tuple(math.ceil(side / scale) for side in hr.shape[:2]) + (3,):
        hr = hr[: lr.shape[0] * scale, : lr.shape[1] * scale]
    differing = min(int((imresize(hr, 1 / scale, edges) != lr).any(axis=2).sum()) for edges in get_args(Edges))
    if not differing:
        return []
    return [f"{path} is not MATLAB's bicubic of {image.hr}: {differing:,} of {lr[..., 0].size:,} pixels differ"]


def estimate(n: int) -> dict[int, int]:
    """Return the bytes that the PNG entries of image ``n`` will take, by scale."""
    stored = _stored_images(n, list(_plan.formats))
    return {scale: _plan.formats[scale].estimate(pixels) for scale, pixels in stored}  # type: ignore[union-attr]


def encode(n: int, scales: list[int], slot: int) -> dict[int, Places]:
    """Write the entries of image ``n`` for the stores of some scales into a slot, and return them by scale."""
    buffer, filled, places = slot_bytes(_plan, slot), 0, {}
    for scale, pixels in _stored_images(n, scales):
        found = _plan.formats[scale].encode(n, _plan.images[n].name, pixels, buffer[filled:])
        places[scale] = [(key, filled + begin, filled + end) for key, begin, end in found]
        filled = places[scale][-1][2]
    return places


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
