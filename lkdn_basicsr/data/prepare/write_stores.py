"""Write the entries that the workers encode into the stores, in order, and flush them to the disk."""

import collections
import contextlib
import math
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import numpy as np
import tqdm

from lkdn_basicsr.data.prepare.store_writer import StoreWriter
from lkdn_basicsr.data.prepare.workers import Plan, encode, estimate, start_workers
from lkdn_basicsr.errors import InputError

COMMIT_BYTES = 64 << 20


def write_stores(plan: Plan, stores: dict[int, tuple[str, dict[str, Any]]], log: Callable[[str], None]) -> None:
    """Write unfinished stores in one pass over the images, from where they were interrupted, and finish them.

    Args:
        plan: With the shapes of the images.
        stores: Scale to path and settings; 1 is HR.

    Raises:
        InputError: Too little space, a full disk, an image that cannot be decoded, a worker that was killed.
    """
    needed = _estimate_disk(plan, list(stores))
    with contextlib.ExitStack() as stack:
        writers = {
            scale: stack.enter_context(StoreWriter(path, settings, _map_size(plan, scale)))
            for scale, (path, settings) in stores.items()
        }
        done = {scale: _count_committed(plan, writer, scale) for scale, writer in writers.items()}
        _check_free_space(list(writers.values()), needed, log)
        if any(done.values()):
            log(f'Resuming after {min(done.values()):,} of {len(plan.images):,} images.')
        _write_images(plan, writers, done)
        for scale, writer in writers.items():
            writer.commit()
            writer.close()
            names = [image.name for image in plan.images]
            shapes = [plan.stored_shape(image, scale) for image in plan.images]
            index, texts = plan.formats[scale].index(writer.read_heads(), names, shapes)
            writer.finish(index, texts)


def _write_images(plan: Plan, writers: dict[int, StoreWriter], done: dict[int, int]) -> None:
    """Write the images from the first that a store lacks, in order, so that what is committed is always a beginning."""
    first, total, uncommitted = min(done.values()), len(plan.images), 0
    capacity = max(
        sum(format.capacity(plan.stored_shape(image, scale)) for scale, format in plan.formats.items())
        for image in plan.images
    )
    plan.slots = [mmap.mmap(-1, capacity) for _ in range(plan.workers + 2)]
    with (
        start_workers(plan) as pool,
        tqdm.tqdm(desc='Preparing', total=total, initial=first, unit='image', disable=not plan.progress) as bar,
    ):
        for slot, entries in _encode_in_order(pool, plan, first, done):
            for scale, of_store in entries.items():
                for key, begin, end in of_store:
                    writers[scale].put(key, slot[begin:end])
                    uncommitted += end - begin
            if uncommitted >= COMMIT_BYTES:
                uncommitted = 0
                for writer in writers.values():
                    writer.commit()
            bar.update()


def _encode_in_order(
    pool: ProcessPoolExecutor, plan: Plan, first: int, done: dict[int, int]
) -> Iterator[tuple[memoryview, dict[int, list[tuple[bytes, int, int]]]]]:
    """Yield, image by image, the slot with its encoded entries and where they are in it: see `workers.encode`.

    Workers encode ahead, up to one image per slot. The slot of a yielded image is used again as soon as the next one is
    requested.
    """
    in_progress: collections.deque[tuple[int, Future]] = collections.deque()
    for n in range(first, len(plan.images)):
        if len(in_progress) == len(plan.slots):
            slot, future = in_progress.popleft()
            yield memoryview(plan.slots[slot]), future.result()
        scales = [scale for scale, count in done.items() if count <= n]
        slot = n % len(plan.slots)
        in_progress.append((slot, pool.submit(encode, n, scales, slot)))
    for slot, future in in_progress:
        yield memoryview(plan.slots[slot]), future.result()


def _estimate_disk(plan: Plan, scales: list[int]) -> int:
    """Return the bytes that the stores will take: exact for raw ones, from a sample of the images for PNG."""
    page, overhead = mmap.PAGESIZE, len(scales) << 20
    if plan.formats[1].suffix == '':
        sizes = [
            plan.formats[scale].capacity(plan.stored_shape(image, scale)) for image in plan.images for scale in scales
        ]
        return sum(-(-(size + 16) // page) * page for size in sizes) + overhead
    areas = [math.prod(plan.stored_shape(image)) for image in plan.images]
    sample = sorted({round(n) for n in np.linspace(0, len(areas) - 1, 8)})
    with start_workers(plan) as pool:
        measured = sum(size for sizes in pool.map(estimate, sample) for scale, size in sizes.items() if scale in scales)
    total = measured * sum(areas) / sum(areas[n] for n in sample)
    # An entry ends in a page that is half empty on average. A tenth is added, because the sample may be off.
    entries = len(scales) * sum(plan.formats[1].entries(plan.stored_shape(image)) for image in plan.images)
    return int((total + page // 2 * entries) * 1.1) + overhead


def _map_size(plan: Plan, scale: int) -> int:
    """Return twice what a store can need: address space is free, and LMDB has pages of its own and unused ones."""
    format, shapes = plan.formats[scale], [plan.stored_shape(image, scale) for image in plan.images]
    return 2 * sum(format.capacity(shape) + mmap.PAGESIZE * format.entries(shape) for shape in shapes) + (64 << 20)


def _count_committed(plan: Plan, writer: StoreWriter, scale: int) -> int:
    """Return how many images a partial store contains."""
    entries, images = writer.committed(), 0
    while entries > 0 and images < len(plan.images):
        entries -= plan.formats[scale].entries(plan.stored_shape(plan.images[images], scale))
        images += 1
    if entries:
        raise InputError(
            f'{writer.partial} contains an incomplete image, which no interruption leaves; delete it to begin again.'
        )
    return images


def _check_free_space(writers: list[StoreWriter], needed: int, log: Callable[[str], None]) -> None:
    folder = os.path.dirname(writers[0].path)
    written = sum(os.stat(os.path.join(writer.partial, 'data.mdb')).st_blocks * 512 for writer in writers)
    free = shutil.disk_usage(folder).free
    log(f'The stores take {format_bytes(needed)} in {folder}, where {format_bytes(free)} are free.')
    if needed - written > free:
        raise InputError(
            f'{folder} has {format_bytes(free)} of free space, and {format_bytes(needed - written)} are needed; make '
            'room or choose another --out.'
        )


def format_bytes(size: int) -> str:
    return f'{size / 1e9:,.1f} GB' if size >= 1e9 else f'{size / 1e6:,.1f} MB'
