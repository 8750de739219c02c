"""Measure methods on benchmarks, and keep the results in a cache.

The protocol is the usual one: the output is clipped and rounded to 8 bits; PSNR and SSIM are BasicSR's, on Y of YCbCr,
without a border of ``scale`` pixels. The cache has a folder ``NAME-DIGEST`` for each method with

- ``BENCHMARK/IMAGE.png``: the SR images,
- ``BENCHMARK.json``: their scores,
- ``cost.json``: parameters, Multi-Adds, and latency by device.

A JSON file also contains what its results are valid for (weights, images, scale, protocol); one that is valid for
something else is ignored and replaced. What is damaged is measured again, with a warning.
"""

import functools
import glob
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import tensor2img
from tqdm import tqdm

from lkdn_basicsr.data.image_files import probe_image
from lkdn_basicsr.data.imresize import imresize
from lkdn_basicsr.devices import exact_arithmetic, is_out_of_memory
from lkdn_basicsr.errors import InputError, one_line
from lkdn_basicsr.evaluate import complexity, latency
from lkdn_basicsr.evaluate.benchmarks import Benchmark
from lkdn_basicsr.evaluate.loading.load import LoadedNetwork, load
from lkdn_basicsr.evaluate.results import BenchmarkScores, Result
from lkdn_basicsr.files import write_file
from lkdn_basicsr.structure import NATURAL, matches, read_json

PROTOCOL = 1  # version of the measurement; increase it when anything is measured differently, to ignore older caches
BICUBIC = 'Bicubic'

_COST = {'params': NATURAL, 'multi_adds': NATURAL, 'latency': {str: float}}
_SCORES = {'psnr': {str: float}, 'ssim': {str: float}}

Upscale = Callable[[np.ndarray, str], np.ndarray]  # see _upscale


def measure(
    path: str | LoadedNetwork,
    benchmarks: Sequence[Benchmark],
    scale: int,
    cache: str,
    name: str | None = None,
    progress: bool = False,
    timed: bool = True,
) -> Result:
    """Measure the complexity, the latency and the scores of a network.

    Results in the cache are not measured again: an additional method or benchmark costs only itself, and a measurement
    that was killed continues with the next image.

    Args:
        path: A file, see :func:`loading.load.load`, or a loaded network.
        benchmarks: At this scale, with different names.
        cache: Folder; created if it does not exist.
        name: Name of the method; None for that of the file.
        progress: Show a progress bar if the output is a terminal.
        timed: Measure the latency. Use False while other processes are busy.

    Raises:
        InputError: The file or an image cannot be used, the output is not finite, or memory does not suffice.
        OSError: The cache cannot be written.
    """
    loaded = path if isinstance(path, LoadedNetwork) else load(path, scale)
    name = name or loaded.name
    folder = _method_folder(cache, name, loaded.digest)
    params, multi_adds, seconds = _measure_cost(name, loaded, folder, progress, timed)
    upscale = functools.partial(_upscale, loaded)
    score = functools.partial(_measure_scores, name, upscale, folder, loaded.digest, progress)
    scores = {benchmark.name: score(benchmark) for benchmark in benchmarks}
    loaded.network.cpu()  # free the GPU's memory for the next network
    return Result(name, scale, scores, params, multi_adds, seconds)


def measure_bicubic(benchmarks: Sequence[Benchmark], scale: int, cache: str, progress: bool = False) -> Result:
    """Measure the scores of MATLAB's bicubic interpolation, see :func:`measure`."""
    folder, digest = os.path.join(cache, f'{BICUBIC}_x{scale}'), f'bicubic x{scale}'
    score = functools.partial(_measure_scores, BICUBIC, lambda lq, label: imresize(lq, scale), folder, digest, progress)
    return Result(BICUBIC, scale, {benchmark.name: score(benchmark) for benchmark in benchmarks})


@torch.inference_mode()
def _upscale(loaded: LoadedNetwork, lq: np.ndarray, label: str) -> np.ndarray:
    """Map (H, W, 3) uint8 BGR to (scale·H, scale·W, 3) uint8 BGR; ``label`` names the image in errors."""
    image = torch.from_numpy(np.ascontiguousarray(lq[..., ::-1].transpose(2, 0, 1))).float().div_(255)[None]
    device = latency.device()
    try:
        with exact_arithmetic():
            output = loaded.network.to(device)(image.to(device)).float().cpu()
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:  # raised by third-party code
        reason = f'{loaded.path} fails for {label} ({one_line(error)}): leave the network or that benchmark out'
        if is_out_of_memory(error):
            reason = (
                f'the memory of {latency.device_name()} does not suffice for {label} ({lq.shape[1]}×{lq.shape[0]} '
                'pixels): leave that benchmark out, or measure on a machine with more; results so far are kept'
            )
        raise InputError(reason) from None
    if not torch.isfinite(output).all():
        advice = 'give a checkpoint of a training that did not diverge'
        raise InputError(f'{loaded.path} gives NaN or infinite pixels for {label}: {advice}')
    return tensor2img(output)


def _measure_cost(
    method: str, loaded: LoadedNetwork, folder: str, progress: bool, timed: bool
) -> tuple[int, int, float | None]:
    """Return parameters, Multi-Adds and the latency in seconds, None if it is neither in the cache nor measured."""
    path = os.path.join(folder, 'cost.json')
    cost = _read_record(path, _COST, digest=loaded.digest)
    device, latencies = latency.device_name(), cost.setdefault('latency', {})
    must_count, must_time = 'params' not in cost, timed and device not in latencies
    if must_count or must_time:
        title = f'{method}: Multi-Adds and latency'
        with tqdm(desc=title, bar_format='{desc} …', leave=False, disable=None if progress else True):
            if must_count:
                try:
                    cost['params'], cost['multi_adds'] = complexity.count(loaded.network, loaded.scale)
                except RuntimeError as error:
                    reason = f'the Multi-Adds of {loaded.path} cannot be counted ({one_line(error)})'
                    raise InputError(f'{reason}: leave it out, or measure on a machine with more memory') from None
            if must_time and (seconds := _time(loaded, device)) is not None:
                latencies[device] = seconds
        _write_record(path, cost)
    return cost['params'], cost['multi_adds'], latencies.get(device)


def _time(loaded: LoadedNetwork, device: str) -> float | None:
    """Return the latency in seconds; None if memory does not suffice for 1280×720."""
    try:
        return latency.latency(loaded.network.to(latency.device()), loaded.scale)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = f'the memory of {device} does not suffice for an output of 1280×720'
        logging.getLogger('basicsr').warning(f'{loaded.path} is not timed: {reason}.')
        return None


def _measure_scores(
    method: str, upscale: Upscale, folder: str, digest: str, progress: bool, benchmark: Benchmark
) -> BenchmarkScores:
    """Return the scores on a benchmark. Images that the cache lacks are measured and written one by one."""
    record, sr_folder = os.path.join(folder, f'{benchmark.name}.json'), os.path.join(folder, benchmark.name)
    scores = _read_record(record, _SCORES, digest=digest, checksum=benchmark.checksum, scale=benchmark.scale)
    psnr, ssim = scores.setdefault('psnr', {}), scores.setdefault('ssim', {})
    sr_paths = {name: os.path.join(sr_folder, f'{name}.png') for name in benchmark.images}
    missing = [
        name
        for name, path in sr_paths.items()
        if not (name in psnr and name in ssim and _is_intact(path, benchmark.images[name][0]))
    ]
    hide = None if progress and missing else True  # None shows the bar on a terminal only
    for name in tqdm(missing, f'{method} on {benchmark.name}', unit='image', leave=False, disable=hide):
        label = f'{name} of {benchmark.name}'
        gt, lq = benchmark.read(name)
        sr = upscale(lq, label)
        if sr.shape != gt.shape:
            found, expected = (f'{image.shape[1]}×{image.shape[0]}' for image in (sr, gt))
            reason = f'makes {found} pixels of {label}, but the HR image has {expected}'
            raise InputError(f'{method} {reason}: leave the method out')
        options = {'crop_border': benchmark.scale, 'test_y_channel': True}
        psnr[name] = float(calculate_psnr(sr, gt, **options))
        ssim[name] = float(calculate_ssim(sr, gt, **options))
        write_file(sr_paths[name], cv2.imencode('.png', sr)[1].tobytes())
        _write_record(record, scores)
    psnr, ssim = ({name: values[name] for name in benchmark.images} for values in (psnr, ssim))
    return BenchmarkScores(psnr, ssim, sr_folder)


def _method_folder(cache: str, name: str, digest: str) -> str:
    """Return the folder with this digest, whatever the method was called when it was created, or a new path."""
    suffix = f'-{digest[:12]}'
    known = sorted(glob.glob(os.path.join(glob.escape(cache), f'*{suffix}')))
    stem = re.sub(r'[^-+.()\w]+', '_', name).encode()[:200].decode(errors='ignore')  # a name has up to 255 bytes
    return known[0] if known else os.path.join(cache, stem + suffix)


def _is_intact(path: str, hr: str) -> bool:
    """Return whether an SR image is in the cache; one that is damaged, or not as large as the HR image, is not."""
    if not os.path.isfile(path):
        return False
    try:
        if probe_image(path) == probe_image(hr, 'header'):
            return True
        problem = f'{path} has another size than {hr}'
    except InputError as error:
        problem = str(error)
    logging.getLogger('basicsr').warning(f'{problem}: this image is measured again.')
    return False


def _read_record(path: str, form: dict[str, Any], **identity: Any) -> dict[str, Any]:
    """Return the contents of a JSON file if they are valid for ``identity``, else a new record with ``identity``."""
    identity['protocol'] = PROTOCOL
    try:
        record = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return identity
    except (OSError, ValueError) as error:
        problem = one_line(error)
    else:
        if isinstance(record, dict) and any(record.get(key, value) != value for key, value in identity.items()):
            return identity  # measured of something else, or in another way
        if matches(record, form) and identity.keys() <= record.keys():
            return record
        problem = 'it is not a record of results'
    logging.getLogger('basicsr').warning(f'{path} is damaged ({problem}): its results are measured again.')
    return identity


def _write_record(path: str, record: dict[str, Any]) -> None:
    write_file(path, json.dumps(record, indent=1))
