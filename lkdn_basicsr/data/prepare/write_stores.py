"""Write the entries that the workers encode into the stores, in order, and flush them to the disk."""

import contextlib
import itertools
import math
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import numpy as np
import tqdm

from lkdn_basicsr.data.prepare.formats import Places
from lkdn_basicsr.data.prepare.store_writer import StoreWriter
from lkdn_basicsr.data.prepare.workers import Plan, encode, estimate, shared_memory, slot_bytes, start_workers
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import partial_folder

COMMIT_BYTES = 64 << 20


def write_stores(plan: Plan, stores: dict[int, tuple[str, dict[str, Any]]], log: Callable[[str], None]) -> None:
    """Write unfinished stores (scale to path and settings) in one pass over the images, and finish them.

    Raises:
        InputError: Too little space, a full disk, an image that cannot be decoded, a worker that was killed.
    """
    _check_free_space([path for path, _ in stores.values()], _estimate_disk(plan, list(stores)), log)
    with contextlib.ExitStack() as stack:
        writers = {
            scale: stack.enter_context(StoreWriter(*store, _map_size(plan, scale))) for scale, store in stores.items()
        }
        done = {scale: _count_committed(plan, writer, scale) for scale, writer in writers.items()}
        if any(done.values()):
            log(f'Resuming after {min(done.values()):,} of {len(plan.images):,} images.')
        _write_images(plan, writers, done)
        names = [image.name for image in plan.images]
        for scale, writer in writers.items():
            writer.commit()
            writer.close()
            writer.finish(*plan.formats[scale].index(writer.read_heads(), names, plan.stored_shapes(scale)))


def _write_images(plan: Plan, writers: dict[int, StoreWriter], done: dict[int, int]) -> None:
    """Write the images from the first that a store lacks, in order, so that what is committed is always a beginning."""
    first, total, uncommitted = min(done.values()), len(plan.images), 0
    capacities = ([format.capacity(shape) for shape in plan.stored_shapes(n)] for n, format in plan.formats.items())
    capacity = max(map(sum, zip(*capacities, strict=True)))
    plan.slots = [shared_memory(capacity) for _ in range(plan.workers + 2)]
    bar = tqdm.tqdm(desc='Preparing', total=total, initial=first, unit='image', disable=None if plan.progress else True)
    with start_workers(plan) as pool, bar:
        for slot, places in _encode_in_order(pool, plan, first, done):
            for scale, of_store in places.items():
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
) -> Iterator[tuple[memoryview, dict[int, Places]]]:
    """Yield, image by image, the slot with its encoded entries and where they are in it: see `workers.encode`.

    Workers encode ahead, up to one image per slot. A slot is used again as soon as the next image is requested.
    """
    futures: dict[int, Future] = {}
    for n in range(first, len(plan.images) + len(plan.slots)):
        slot = n % len(plan.slots)
        if slot in futures:
            yield slot_bytes(plan, slot), futures.pop(slot).result()
        if n < len(plan.images):
            scales = [scale for scale, count in done.items() if count <= n]
            futures[slot] = pool.submit(encode, n, scales, slot)


def _estimate_disk(plan: Plan, scales: list[int]) -> int:
    """Return the bytes that the stores will take: exact for raw ones, from a sample of the images for PNG."""
    page, overhead = mmap.PAGESIZE, len(scales) << 20
    if plan.formats[1].suffix == '':
        sizes = [plan.formats[scale].capacity(shape) for scale in scales for shape in plan.stored_shapes(scale)]
        return sum(-(-(size + 16) // page) * page for size in sizes) + overhead
    areas = [math.prod(shape) for shape in plan.stored_shapes()]
    sample = sorted({round(n) for n in np.linspace(0, len(areas) - 1, 8)})
    with start_workers(plan) as pool:
        measured = sum(size for sizes in pool.map(estimate, sample) for scale, size in sizes.items() if scale in scales)
    total = measured * sum(areas) / sum(areas[n] for n in sample)
    # An entry ends in a page that is half empty on average. A tenth is added, because the sample may be off.
    entries = len(scales) * sum(map(plan.formats[1].entries, plan.stored_shapes()))
    return int((total + page // 2 * entries) * 1.1) + overhead


def _map_size(plan: Plan, scale: int) -> int:
    """Return twice what a store can need: address space is free, and LMDB has pages of its own and unused ones."""
    format, shapes = plan.formats[scale], plan.stored_shapes(scale)
    return 2 * sum(format.capacity(shape) + mmap.PAGESIZE * format.entries(shape) for shape in shapes) + (64 << 20)


def _count_committed(plan: Plan, writer: StoreWriter, scale: int) -> int:
    """Return how many images a partial store contains."""
    committed = writer.committed()
    ends = [0, *itertools.accumulate(map(plan.formats[scale].entries, plan.stored_shapes(scale)))]
    if committed not in ends:
        reason = 'contains an incomplete image, which no interruption leaves'
        raise InputError(f'{writer.partial} {reason}; delete it to begin again.')
    return ends.index(committed)


def _check_free_space(paths: list[str], needed: int, log: Callable[[str], None]) -> None:
    folder = os.path.dirname(paths[0])
    partial = [os.path.join(partial_folder(path), 'data.mdb') for path in paths]
    written = sum(bytes_on_disk(data) for data in partial if os.path.exists(data))
    free = shutil.disk_usage(folder).free
    log(f'The stores take {format_bytes(needed)} in {folder}, where {format_bytes(free)} are free.')
    if needed - written > free:
        sizes = f'{format_bytes(free)} of free space, and {format_bytes(needed - written)} are needed'
        raise InputError(f'{folder} has {sizes}; make room or choose another --out.')


def bytes_on_disk(path: str) -> int:
    status = os.stat(path)
    return status.st_blocks * 512 if hasattr(status, 'st_blocks') else status.st_size


def format_bytes(size: int) -> str:
    return f'{size / 1e9:,.1f} GB' if size >= 1e9 else f'{size / 1e6:,.1f} MB'
