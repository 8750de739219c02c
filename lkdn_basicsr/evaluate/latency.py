"""Latency of a network on this machine, and the name of the machine's device."""

import contextlib
import statistics
import time

import torch
from torch import nn

from lkdn_basicsr.evaluate.complexity import lr_size

MAX_RUNS, MAX_SECONDS = 5, 10  # the median is of at most so many runs, begun within so many seconds; at least one


def device() -> torch.device:
    """Return the device that networks run on: the first GPU, or the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def device_name() -> str:
    """Return the name of the GPU, or that of the CPU with the number of threads that torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = 'CPU'
    with contextlib.suppress(OSError), open('/proc/cpuinfo', encoding='utf-8') as file:  # only Linux has it
        models = [line.partition(':')[2] for line in file if line.startswith('model name')]
        name = ' '.join(models[0].split()) if models else name
    threads = torch.get_num_threads()
    return f'{name}, {threads} thread{"s" * (threads > 1)}'


@torch.inference_mode()
def latency(network: nn.Module, scale: int) -> float:
    """Return the seconds for an output of 1280×720: the median of a few runs after a warm-up.

    In float32 with torch's default settings, which allow TF32 convolutions on a GPU.

    Args:
        network: Maps (1, 3, H, W) to (1, 3, scale·H, scale·W); in evaluation mode.
    """
    image = torch.full((1, 3, *lr_size(scale)), 0.5, device=next(network.parameters()).device)
    _run(network, image)
    times = [_run(network, image)]
    while len(times) < MAX_RUNS and sum(times) < MAX_SECONDS:
        times.append(_run(network, image))
    return statistics.median(times)


def _run(network: nn.Module, image: torch.Tensor) -> float:
    """Run the network and return the seconds that it took."""
    if image.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    network(image)
    if image.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
