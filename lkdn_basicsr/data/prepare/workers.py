"""What `prepare` does to single pictures, in worker processes."""

import concurrent.futures.process
import contextlib
import dataclasses
import math
import multiprocessing.connection
import os
import signal
import threading

import cv2
import tqdm

from lkdn_basicsr.data.image_files import probe_image, read_image
from lkdn_basicsr.data.imresize import imresize
from lkdn_basicsr.errors import InputError


@dataclasses.dataclass
class Plan:
    """What is to be made of which pictures.

    Attributes:
        pictures (list[ImagePair]): In stored order.
        format (dict[int, RawFormat | PngFormat]): How a store holds its pictures, by scale; 1 is HR.
        scales (tuple[int]): Of the LR stores.
        multiple (int): What the sides of the HR pictures are cropped to a multiple of.
        verify_lr (bool): Compare LR pictures that are given with those that `imresize` makes.
        slots (tuple[mmap.mmap]): Memory shared with the workers, one place for each picture under way.
    """

    pictures: list
    format: dict
    scales: tuple
    multiple: int = 1
    verify_lr: bool = False
    slots: tuple = ()

    def cropped(self, picture, scale=1):
        """(height, width) that the store of a scale holds of a picture."""
        return tuple((side - side % self.multiple) // scale for side in picture.shape)


_plan = None


@contextlib.contextmanager
def workers_with(plan, count):
    """A pool of forked processes that have the plan.

    Forked, for the package they run is in memory already: importing it again, with torch, takes seconds and most of a
    gigabyte each.
    """
    # A forked child inherits OpenCV's settings but none of its threads, and would wait for them.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with concurrent.futures.ProcessPoolExecutor(
            count, multiprocessing.get_context('fork'), initializer=_start, initargs=(plan,)
        ) as pool:
            try:
                yield pool
            except concurrent.futures.process.BrokenProcessPool:
                raise InputError(
                    'A worker process was killed, most likely for want of memory; run the same command '
                    'again to go on, with fewer --workers.'
                ) from None
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        cv2.setNumThreads(threads)


def _start(plan):
    global _plan
    _plan = plan
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def die_with_the_parent():
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=die_with_the_parent, daemon=True).start()


def check_pictures(plan, workers, progress):
    """Look at every picture and note its shape; returns what is wrong, in words."""
    problems = []
    with workers_with(plan, workers) as pool:
        looks = pool.map(_look, range(len(plan.pictures)))
        bar = tqdm.tqdm(looks, 'Checking', len(plan.pictures), unit='picture', disable=not progress)
        for picture, (shape, found) in zip(plan.pictures, bar, strict=True):
            picture.shape = shape
            problems += found
    return problems


def _look(n):
    """Shape of a picture, and what is wrong with it or its LR pictures."""
    picture = _plan.pictures[n]
    try:
        shape = probe_image(picture.hr)
    except InputError as error:
        return None, [str(error)]
    problems = []
    cropped = _plan.cropped(dataclasses.replace(picture, shape=shape))
    if 0 in cropped:
        problems.append(f'{picture.hr} is too small ({shape[1]}x{shape[0]}) for scale {_plan.multiple}')
    else:
        reason = _plan.format[1].check(picture.name, cropped)
        problems += [f'{picture.hr} ({shape[1]}x{shape[0]}) {reason}'] if reason else []
    for scale, path in picture.lr.items():
        try:
            lr = probe_image(path)
        except InputError as error:
            problems.append(str(error))
            continue
        # Of an HR picture that is no multiple of the scale, the LR picture has one row of pixels less or more.
        if any(small not in (large // scale, -(-large // scale)) for small, large in zip(lr, shape, strict=True)):
            problems.append(
                f'{path} is {lr[1]}x{lr[0]}, but {picture.hr} is {shape[1]}x{shape[0]}, not {scale} times as large'
            )
        elif _plan.verify_lr and not problems:
            problems += _compare(picture, scale, path)
    return shape, problems


def _compare(picture, scale, path):
    hr, lr = read_image(picture.hr), read_image(path)
    if lr.shape != tuple(math.ceil(side / scale) for side in hr.shape[:2]) + (3,):
        hr = hr[: lr.shape[0] * scale, : lr.shape[1] * scale]
    differing = min(int((imresize(hr, 1 / scale, edges) != lr).any(axis=2).sum()) for edges in ('mirror', 'repeat'))
    if not differing:
        return []
    return [f"{path} is not MATLAB's bicubic of {picture.hr}: {differing:,} of {lr[..., 0].size:,} pixels differ"]


def estimate(n):
    """Bytes that the entries of picture ``n`` will take, by scale."""
    return {scale: _plan.format[scale].estimate(image) for scale, image in _images(n, (1, *_plan.scales))}


def encode_into(n, scales, slot):
    """Fill a slot with the entries of picture ``n`` for the stores of some scales (1 is HR).

    Returns:
        dict[int, list]: Scale to entries: key, begin and end in the slot.
    """
    buffer, filled, entries = memoryview(_plan.slots[slot]), 0, {}
    for scale, image in _images(n, scales):
        found = _plan.format[scale].encode(n, _plan.pictures[n].name, image, buffer[filled:])
        entries[scale] = [(key, filled + begin, filled + end) for key, begin, end in found]
        filled = entries[scale][-1][2]
    return entries


def room_for(plan, picture):
    """Bytes of a slot that suffice for a picture."""
    return sum(plan.format[scale].capacity(plan.cropped(picture, scale)) for scale in (1, *plan.scales))


def _images(n, scales):
    """Yield each scale with what its store holds of picture ``n``."""
    picture, order = _plan.pictures[n], _plan.format[1].order
    if any(scale not in picture.lr for scale in scales):  # always so for HR
        hr = _read_as_checked(picture.hr, order, *_plan.cropped(picture))
    for scale in scales:
        if scale == 1:
            yield scale, hr
        elif scale in picture.lr:
            yield scale, _read_as_checked(picture.lr[scale], order, *_plan.cropped(picture, scale))
        else:
            yield scale, imresize(hr, 1 / scale)


def _read_as_checked(path, order, height, width):
    image = read_image(path, order)[:height, :width]
    if image.shape[:2] != (height, width):
        raise InputError(f'{path} has another size than when it was checked; run the same command again.')
    return image
