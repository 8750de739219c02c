"""The parent's half of `prepare`: what the workers made goes into the stores, in order, and to disk."""

import collections
import math
import mmap
import os
import shutil

import numpy as np
import tqdm

from lkdn_basicsr.data.prepare.workers import encode_into, estimate, room_for, workers_with
from lkdn_basicsr.errors import InputError

COMMIT_BYTES = 64 << 20


def write_stores(plan, writers, workers, say, progress):
    """Write what writers stores lack, in one pass over the pictures, and finish them.

    Args:
        plan (Plan): With the pictures' shapes.
        writers (dict[int, StoreWriter]): The writers stores by scale; 1 is HR.
        workers (int): Processes.
        say (Callable[[str], None]): Receives lines for the user.
        progress (bool): Show a progress bar.

    Raises:
        InputError: No room, a full disk, a picture that cannot be decoded, a worker that was killed.
    """
    try:
        needed = _disk_needed(plan, writers, workers)
        done = {scale: _resume(plan, writer, scale) for scale, writer in writers.items()}
        _refuse_full_disk(writers, needed, say)
        if any(done.values()):
            say(f'Going on after {min(done.values()):,} of {len(plan.pictures):,} pictures.')
        _write_pictures(plan, writers, done, workers, progress)
        names = [picture.name for picture in plan.pictures]
        for scale, writer in writers.items():
            shapes = [plan.cropped(picture, scale) for picture in plan.pictures]
            index, texts = plan.format[scale].finish(writer.heads(), names, shapes)
            writer.finish(index, texts)
    finally:
        for writer in writers.values():
            writer.close()


def _write_pictures(plan, writers, done, workers, progress):
    """Write the pictures from the first that a store lacks, in order: what is committed is then always a beginning."""
    # What a worker makes lies in memory shared with the parent; there are as many such places as pictures under way.
    room = max(room_for(plan, picture) for picture in plan.pictures)
    plan.slots = tuple(mmap.mmap(-1, room) for _ in range(workers + 2))
    first, total = min(done.values()), len(plan.pictures)
    under_way, uncommitted = collections.deque(), 0
    with (
        workers_with(plan, workers) as pool,
        tqdm.tqdm(desc='Preparing', total=total, initial=first, unit='picture', disable=not progress) as bar,
    ):
        for n in range(first, total + len(plan.slots)):
            if under_way and n - under_way[0][0] == len(plan.slots):
                taken, future = under_way.popleft()
                slot = memoryview(plan.slots[taken % len(plan.slots)])
                for scale, entries in future.result().items():
                    for key, begin, end in entries:
                        writers[scale].put(key, slot[begin:end])
                        uncommitted += end - begin
                bar.update()
            if uncommitted >= COMMIT_BYTES:
                uncommitted = 0
                for writer in writers.values():
                    writer.commit()
            if n < total:
                wanted = tuple(scale for scale in writers if done[scale] <= n)
                under_way.append((n, pool.submit(encode_into, n, wanted, n % len(plan.slots))))


def _disk_needed(plan, scales, workers):
    """Bytes that the stores of some scales will take: exact for raw ones, by a sample of the pictures for PNG."""
    areas = [math.prod(plan.cropped(picture)) for picture in plan.pictures]
    if plan.format[1].suffix == '':
        page = mmap.PAGESIZE
        sizes = {
            scale: [plan.format[scale].capacity(plan.cropped(picture, scale)) for picture in plan.pictures]
            for scale in scales
        }
        return {scale: sum(-(-(size + 16) // page) * page for size in sizes[scale]) + (1 << 20) for scale in scales}
    sample = sorted({round(n) for n in np.linspace(0, len(areas) - 1, 8)})
    with workers_with(plan, workers) as pool:
        measured = list(pool.map(estimate, sample))
    per_pixel = {scale: sum(sizes[scale] for sizes in measured) / sum(areas[n] for n in sample) for scale in scales}
    # An entry ends in a page that is half empty on average. A tenth more, for the sample may be off.
    pages = mmap.PAGESIZE // 2 * sum(plan.format[1].entries(plan.cropped(picture)) for picture in plan.pictures)
    return {scale: int((per_pixel[scale] * sum(areas) + pages) * 1.1) + (1 << 20) for scale in scales}


def _resume(plan, writer, scale):
    """Open a store; returns how many pictures it holds already."""
    format = plan.format[scale]
    shapes = [plan.cropped(picture, scale) for picture in plan.pictures]
    # Address space is free, so twice what could be needed, for LMDB's own pages and those it has no use for any more.
    entries = writer.open(
        2 * sum(format.capacity(shape) + mmap.PAGESIZE * format.entries(shape) for shape in shapes) + (64 << 20)
    )
    pictures = 0
    while entries > 0 and pictures < len(shapes):
        entries -= format.entries(shapes[pictures])
        pictures += 1
    if entries:
        raise InputError(
            f'{writer.partial} holds part of a picture only, as no interruption leaves it; delete it to begin again.'
        )
    return pictures


def _refuse_full_disk(writers, needed, say):
    folder = os.path.dirname(next(iter(writers.values())).path)
    there = sum(os.stat(os.path.join(writer.partial, 'data.mdb')).st_blocks * 512 for writer in writers.values())
    total, free = sum(needed.values()), shutil.disk_usage(folder).free
    say(f'The stores take {bytes_in_words(total)} in {folder}, where {bytes_in_words(free)} are free.')
    if total - there > free:
        raise InputError(
            f'{folder} has {bytes_in_words(free)} of free space, and {bytes_in_words(total - there)} are '
            'needed; make room or choose another --out.'
        )


def bytes_in_words(size):
    return f'{size / 1e9:,.1f} GB' if size >= 1e9 else f'{size / 1e6:,.1f} MB'
