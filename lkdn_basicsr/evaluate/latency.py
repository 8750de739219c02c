"""How long a network takes on this machine, and what this machine is called."""

import statistics
import time

import torch

from lkdn_basicsr.evaluate.complexity import lr_size

RUNS, SECONDS = 5, 10  # a median of so many, or of those that fit into so many seconds; at least one


def device():
    """Where networks run: the first GPU, or the CPU."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def device_name():
    """What latencies are told with: the GPU's name, or the CPU's and how many threads torch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = 'CPU'
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            models = [line.partition(':')[2].strip() for line in file if line.startswith('model name')]
        name = ' '.join(models[0].split()) if models else name
    except OSError:  # not Linux
        pass
    threads = torch.get_num_threads()
    return f'{name}, {threads} thread{"s" * (threads > 1)}'


@torch.inference_mode()
def latency(network, scale):
    """Seconds that a network takes for an output of 1280×720: the median of a few runs after one more.

    In float32 with torch's own settings, which let a GPU compute convolutions in TF32.

    Args:
        network (nn.Module): (1, 3, H, W) to (1, 3, scale·H, scale·W), in evaluation mode.
        scale (int): upscaling factor.

    Returns:
        float
    """
    where = next(network.parameters()).device
    picture = torch.full((1, 3, *lr_size(scale)), 0.5, device=where)
    _timed(network, picture)
    times = [_timed(network, picture)]
    while len(times) < RUNS and sum(times) < SECONDS:
        times.append(_timed(network, picture))
    return statistics.median(times)


def _timed(network, picture):
    if picture.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    network(picture)
    if picture.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start
