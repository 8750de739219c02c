"""Latency of a network on this machine, and the name of the machine's device."""

import contextlib
import functools
import statistics
import time

import torch
from torch import nn

from lkdn_basicsr.devices import check_cuda
from lkdn_basicsr.evaluate.complexity import lr_size

MAX_RUNS, MAX_SECONDS = 5, 10  # on a CPU: at most so many runs, begun within so many seconds; at least one
GPU_RUNS, GPU_WARM_UP = 50, 0.5  # the seconds raise the clock of an idle GPU


@functools.cache
def device() -> torch.device:
    """Return the first GPU, or the CPU if there is none; raise InputError if PyTorch cannot use the GPU."""
    if torch.cuda.device_count() == 0:
        return torch.device('cpu')
    check_cuda('run with CUDA_VISIBLE_DEVICES= in the environment to measure on the CPU')
    return torch.device('cuda')


def device_name() -> str:
    """Return the name of the GPU, or that of the CPU with the number of threads that torch uses."""
    if device().type == 'cuda':
        return torch.cuda.get_device_name()
    name = 'CPU'
    with contextlib.suppress(OSError), open('/proc/cpuinfo', encoding='utf-8') as file:  # only Linux has it
        models = [line.partition(':')[2] for line in file if line.startswith('model name')]
        name = ' '.join(models[0].split()) if models else name
    threads = torch.get_num_threads()
    return f'{name}, {threads} thread{"s" * (threads > 1)}'


@torch.inference_mode()
def latency(network: nn.Module, scale: int) -> float:
    """Return the seconds for an output of 1280×720: the median of several runs after a warm-up.

    In float32 with torch's default settings, which allow TF32 convolutions on a GPU. The network is in evaluation mode.
    """
    image = torch.full((1, 3, *lr_size(scale)), 0.5, device=next(network.parameters()).device)
    return statistics.median(_gpu_times(network, image) if image.is_cuda else _cpu_times(network, image))


def _cpu_times(network: nn.Module, image: torch.Tensor) -> list[float]:
    network(image)
    times: list[float] = []
    while not times or (len(times) < MAX_RUNS and sum(times) < MAX_SECONDS):
        start = time.perf_counter()
        network(image)
        times.append(time.perf_counter() - start)
    return times


def _gpu_times(network: nn.Module, image: torch.Tensor) -> list[float]:
    warm = time.perf_counter() + GPU_WARM_UP
    while time.perf_counter() < warm:
        network(image)
        torch.cuda.synchronize()
    times = []
    for _ in range(GPU_RUNS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        network(image)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return times
