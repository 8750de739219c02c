"""The parent's half of `prepare`: what the workers made goes into the stores, in order, and to disk."""
import collections
import contextlib
import math
import mmap
import os
import shutil

import numpy as np
import tqdm

from lkdn_basicsr.data.prepare_work import encode_into, room_for, sample_size, workers_with
from lkdn_basicsr.errors import InputError

COMMIT_BYTES = 64 << 20


@contextlib.contextmanager
def _closing(writers):
    try:
        yield
    finally:
        for writer in writers:
            writer.close()


def write_stores(plan, writers, workers, say, progress):
    """Write what the unfinished stores lack, picture by picture, in order."""
    pictures = plan.pictures
    unfinished = {scale: writer for scale, writer in writers.items() if not writer.finished}
    needed = _disk_needed(plan, unfinished, workers)
    done = {scale: _resume(plan, writer, scale, needed[scale]) for scale, writer in unfinished.items()}
    _refuse_full_disk(unfinished, needed, say)
    first = min(done.values())
    if first:
        say(f'Going on after {first:,} of {len(pictures):,} pictures.')
    # What a worker makes lies in memory shared with the parent; there are as many such places as pictures under way.
    room = max(room_for(plan, picture) for picture in pictures)
    plan.slots = tuple(mmap.mmap(-1, room) for _ in range(workers + 2))
    with workers_with(plan, workers) as pool, tqdm.tqdm(
            total=len(pictures), initial=first, desc='Preparing', unit='picture', disable=not progress) as bar:
        under_way, uncommitted = collections.deque(), 0

        def take():
            n, future = under_way.popleft()
            slot = memoryview(plan.slots[n % len(plan.slots)])
            size = 0
            for scale, entries in future.result().items():
                for key, begin, end in entries:
                    unfinished[scale].put(key, slot[begin:end])
                    size += end - begin
            bar.update()
            return size

        for n in range(first, len(pictures)):
            if len(under_way) == len(plan.slots):
                uncommitted += take()
            if uncommitted >= COMMIT_BYTES:
                uncommitted = 0
                for writer in unfinished.values():
                    writer.commit()
            wanted = tuple(scale for scale in unfinished if done[scale] <= n)
            under_way.append((n, pool.submit(encode_into, n, wanted, n % len(plan.slots))))
        while under_way:
            take()
    names = [picture.name for picture in pictures]
    for scale, writer in unfinished.items():
        index, texts = plan.format[scale].finish(writer.items(), names, [plan.cropped(p, scale) for p in pictures])
        head = {name: writer.settings[name] for name in ('format', 'version', 'role', 'scale')}
        writer.finish({**head, **index}, texts)


def _disk_needed(plan, scales, workers):
    """Bytes that the stores of some scales will take: exact for raw ones, by a sample of the pictures for PNG."""
    areas = [math.prod(plan.cropped(picture)) for picture in plan.pictures]
    if plan.format[1].suffix == '':
        page = mmap.PAGESIZE
        sizes = {scale: [plan.format[scale].capacity(plan.cropped(picture, scale)) for picture in plan.pictures]
                 for scale in scales}
        return {scale: sum(-(-(size + 16) // page) * page for size in sizes[scale]) + (1 << 20) for scale in scales}
    sample = sorted({round(n) for n in np.linspace(0, len(areas) - 1, 8)})
    with workers_with(plan, workers) as pool:
        measured = list(pool.map(sample_size, sample))
    per_pixel = {scale: sum(sizes[scale] for sizes in measured) / sum(areas[n] for n in sample) for scale in scales}
    return {scale: int(per_pixel[scale] * sum(areas) * 1.1) + (1 << 20) for scale in scales}


def _resume(plan, writer, scale, needed):
    """Open a store; returns how many pictures it holds already."""
    format = plan.format[scale]
    capacity = sum(format.capacity(plan.cropped(picture, scale)) + 2 * mmap.PAGESIZE for picture in plan.pictures)
    entries = writer.open(max(needed, capacity) + (64 << 20) + 4096 * sum(
        format.entries(plan.cropped(picture, scale)) for picture in plan.pictures))
    pictures = 0
    while entries > 0:
        entries -= format.entries(plan.cropped(plan.pictures[pictures], scale))
        pictures += 1
    if entries:
        raise InputError(f'{writer.partial} holds part of a picture only, as no interruption leaves it; delete it to '
                         'begin again.')
    return pictures


def _refuse_full_disk(unfinished, needed, say):
    folder = os.path.dirname(next(iter(unfinished.values())).path)
    there = sum(os.stat(os.path.join(writer.partial, 'data.mdb')).st_blocks * 512 for writer in unfinished.values())
    total, free = sum(needed.values()), shutil.disk_usage(folder).free
    say(f'The stores take {bytes_in_words(total)} in {folder}, where {bytes_in_words(free)} are free.')
    if total - there > free:
        raise InputError(f'{folder} has {bytes_in_words(free)} of free space, and {bytes_in_words(total - there)} are '
                         'needed; make room or choose another --out.')


def bytes_in_words(size):
    return f'{size / 1e9:,.1f} GB' if size >= 1e9 else f'{size / 1e6:,.1f} MB'
