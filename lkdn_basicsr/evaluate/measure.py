"""Methods measured on test sets, and never twice.

The protocol is the field's: the output is clipped and rounded to 8 bits, PSNR and SSIM are those of BasicSR, on Y of
YCbCr, without a border of ``scale`` pixels. In a cache folder every method has one of its own, ``NAME-DIGEST``, with
the SR pictures of every set, ``SET/PICTURE.png``, their scores, ``SET.json``, and what it costs, ``cost.json``.
"""

import glob
import json
import logging
import os
import re

import cv2
import numpy as np
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import tensor2img
from tqdm import tqdm

from lkdn_basicsr.data.imresize import imresize
from lkdn_basicsr.errors import InputError, one_line
from lkdn_basicsr.evaluate import complexity, latency
from lkdn_basicsr.evaluate.loading.load import LoadedNetwork, load
from lkdn_basicsr.evaluate.results import BenchmarkScores, Result
from lkdn_basicsr.files import write_file

PROTOCOL = 1  # of what is in a cache; a change in how anything is measured makes it another number
BICUBIC = 'Bicubic'


def measure(path, sets, scale, cache, name=None, progress=False, timed=True):
    """Measure a network: what it costs, and its pictures on test sets.

    What the cache holds of the same weights, pictures and scale is not done again, so that a new method or set costs
    itself alone, and a killed measurement goes on at the picture where it was.

    Args:
        path (str | LoadedNetwork): see ``networks.load``.
        sets (Sequence[Benchmark]): of the scale, with different names.
        scale (int): upscaling factor.
        cache (str): a folder for scores and SR pictures; made if it is missing.
        name (str | None): of the method. Default: None, that of the file.
        progress (bool): show a bar on a terminal.
        timed (bool): measure the latency. Default: True; False where other processes are busy.

    Returns:
        Result

    Raises:
        InputError: the file or a picture cannot be used, the network's output is not finite, the memory does not
            suffice, or the cache cannot be written.
    """
    loaded = path if isinstance(path, LoadedNetwork) else load(path, scale)
    name = name or loaded.name
    folder = _folder(cache, name, loaded.digest)
    network = _OnDevice(loaded)
    params, multi_adds, seconds = _cost(name, loaded, network, folder, progress, timed)
    scores = {
        benchmark.name: _measure_set(name, network.super_resolve, benchmark, folder, loaded.digest, progress)
        for benchmark in sets
    }
    loaded.network.cpu()  # the next one needs the GPU's memory
    return Result(name, scale, scores, params, multi_adds, seconds)


def measure_bicubic(sets, scale, cache, progress=False):
    """The same for MATLAB's bicubic, which has no costs.

    Returns:
        Result: of the method ``Bicubic``.
    """

    def enlarge(lq, what):
        return imresize(lq, scale)

    digest = f'bicubic x{scale}'
    folder = os.path.join(cache, f'{BICUBIC}_x{scale}')
    scores = {benchmark.name: _measure_set(BICUBIC, enlarge, benchmark, folder, digest, progress) for benchmark in sets}
    return Result(BICUBIC, scale, scores)


class _OnDevice:
    """A network, brought to the device when it is first needed: what is in the cache needs none."""

    def __init__(self, loaded):
        self.loaded, self.network = loaded, None

    def get(self):
        if self.network is None:
            self.network = self.loaded.network.to(latency.device())
        return self.network

    @torch.inference_mode()
    def super_resolve(self, lq, what):
        """(H, W, 3) uint8 BGR to (scale·H, scale·W, 3) uint8 BGR; ``what`` names the picture in errors."""
        picture = torch.from_numpy(np.ascontiguousarray(lq[..., ::-1].transpose(2, 0, 1))).float().div_(255)[None]
        network = self.get()
        try:
            # Not TF32, which a GPU would compute convolutions in: scores must not depend on the machine.
            with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
                output = network(picture.to(latency.device())).float().cpu()
        except (RuntimeError, ValueError, TypeError) as error:  # code of anyone; out of memory is a RuntimeError
            if 'memory' in str(error):
                height, width = lq.shape[:2]
                raise InputError(
                    f'the memory of {latency.device_name()} does not suffice for {what} ({width}×{height} '
                    'pixels): leave that set out, or measure where there is more; what was measured is '
                    'kept'
                ) from None
            raise InputError(
                f'{self.loaded.path} fails for {what} ({one_line(error)}): leave the network or that set out'
            ) from None
        if not torch.isfinite(output).all():
            raise InputError(
                f'{self.loaded.path} gives NaN or infinite pixels for {what}: give a checkpoint of a '
                'training that did not diverge'
            )
        return tensor2img(output)


def _cost(method, loaded, network, folder, progress, timed):
    """Parameters, Multi-Adds and seconds, from the cache or measured; None for seconds that are in neither."""
    path = os.path.join(folder, 'cost.json')
    cost = _read(path, digest=loaded.digest)
    where = latency.device_name()
    times = cost.setdefault('latency', {})
    if 'params' not in cost or timed and where not in times:
        with tqdm(
            desc=f'{method}: Multi-Adds and latency',
            bar_format='{desc} …',
            leave=False,
            disable=None if progress else True,
        ):
            if 'params' not in cost:
                cost['params'], cost['multi_adds'] = _count(loaded)
            if timed and where not in times:
                _time(loaded, network, times, where)
        _write(path, cost)
    return cost['params'], cost['multi_adds'], times.get(where)


def _count(loaded):
    try:
        return complexity.count(loaded.network, loaded.scale)
    except RuntimeError as error:
        raise InputError(
            f'the Multi-Adds of {loaded.path} cannot be counted ({one_line(error)}): leave it out, or '
            'measure where there is more memory'
        ) from None


def _time(loaded, network, times, where):
    """Add the latency on this machine, unless its memory does not suffice for 1280×720."""
    try:
        times[where] = latency.latency(network.get(), loaded.scale)
    except RuntimeError as error:
        if 'memory' not in str(error):
            raise
        logging.getLogger('basicsr').warning(
            f'{loaded.path} is not timed: the memory of {where} does not suffice for an output of 1280×720.'
        )


def _measure_set(method, super_resolve, benchmark, folder, digest, progress):
    """The scores of a set; what the cache lacks is measured, and written picture by picture, the scores last."""
    record = os.path.join(folder, f'{benchmark.name}.json')
    pictures = os.path.join(folder, benchmark.name)
    scores = _read(record, digest=digest, checksum=benchmark.checksum, scale=benchmark.scale)
    psnr, ssim = scores.setdefault('psnr', {}), scores.setdefault('ssim', {})
    missing = [
        name
        for name in benchmark.images
        if name not in psnr or name not in ssim or not os.path.isfile(os.path.join(pictures, f'{name}.png'))
    ]
    with tqdm(
        total=len(missing),
        desc=f'{method} on {benchmark.name}',
        unit='picture',
        leave=False,
        disable=None if progress and missing else True,
    ) as bar:  # None: shown on a terminal only
        for name in missing:
            gt, lq = benchmark.read(name)
            sr = super_resolve(lq, f'{name} of {benchmark.name}')
            if sr.shape != gt.shape:
                raise InputError(
                    f'{method} makes {sr.shape[1]}×{sr.shape[0]} pixels of {name} of {benchmark.name}, '
                    f'whose HR picture has {gt.shape[1]}×{gt.shape[0]}: leave the method out'
                )
            options = {'crop_border': benchmark.scale, 'test_y_channel': True}
            psnr[name] = float(calculate_psnr(sr, gt, **options))
            ssim[name] = float(calculate_ssim(sr, gt, **options))
            _write(os.path.join(pictures, f'{name}.png'), cv2.imencode('.png', sr)[1].tobytes())
            _write(record, scores)
            bar.update()
    return BenchmarkScores(
        {name: psnr[name] for name in benchmark.images}, {name: ssim[name] for name in benchmark.images}, pictures
    )


# ------------------------------------------------------- cache ------------------------------------------------------ #


def _folder(cache, name, digest):
    """The folder of a network: the one that is known by its digest, whatever it was called then, or a new one."""
    short = digest[:12]
    known = sorted(glob.glob(os.path.join(glob.escape(cache), f'*-{short}')))
    plain = re.sub(r'[^-+.()\w]+', '_', name)
    return known[0] if known else os.path.join(cache, f'{plain}-{short}')


def _read(path, **identity):
    """What the cache holds under a path of this very thing; else the beginning of it, without results."""
    identity['protocol'] = PROTOCOL
    try:
        with open(path, encoding='utf-8') as file:
            found = json.load(file)
        if all(found[key] == value for key, value in identity.items()):
            return found
    except (OSError, ValueError, KeyError, TypeError):  # not there, or of another program
        pass
    return identity


def _write(path, contents):
    """Write bytes, or data as JSON."""
    write_file(path, contents if isinstance(contents, bytes) else json.dumps(contents, indent=1).encode())
