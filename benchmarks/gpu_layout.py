"""Memory layout of LKDN's features on a GPU: channels-last, as lkdn_basicsr leaves them, against contiguous NCHW.

The norm of each block works on channels-last tensors. The official code copies its output to NCHW; lkdn_basicsr does
not, so most depthwise convolutions get channels-last input. The outputs are equal up to rounding. Timed are a training
step of LKDN x4 (batch 64, LR 48x48) and an output of 1280x720, alternating between the two.
The last line is a recommendation. The default of the package was chosen on a CPU, and stays until it is measured to be
slower on a GPU. Without a GPU, this script uses small sizes, which only show that it works.

    python benchmarks/gpu_layout.py
    python benchmarks/gpu_layout.py --json
"""

import argparse
import json
import os
import statistics
import sys
import time

from common import environment

# The checkout's own package, installed or not.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

LAYOUTS = ('channels_last', 'contiguous')
TOLERANCE = 0.03  # of the ratio; smaller differences are noise


def set_layout(network, layout):
    """Copy the output of each norm to NCHW, as the official code does, or remove these copies."""

    def copy(_module, _inputs, output):  # (N, H, W, C), which the block permutes to (N, C, H, W)
        return output.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)

    for name, module in network.named_modules():
        if name.endswith('pixel_norm'):
            module._forward_hooks.clear()
            if layout == 'contiguous':
                module.register_forward_hook(copy)


def make_tasks(device, is_small):
    """Return the network, and the functions to time by task."""
    import torch

    from lkdn_basicsr.archs import LKDN
    from lkdn_basicsr.optim import Adan

    batch, side, (height, width) = (2, 16, (18, 32)) if is_small else (64, 48, (180, 320))
    torch.manual_seed(0)
    network = LKDN(upscale=4).to(device)
    optimizer = Adan(network.parameters(), lr=1e-5)
    lq, gt = (torch.rand(batch, 3, size, size, device=device) for size in (side, 4 * side))
    image = torch.rand(1, 3, height, width, device=device)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.l1_loss(network(lq), gt).backward()
        optimizer.step()

    @torch.inference_mode()
    def upscale():
        network(image)

    return network, {f'training_{batch}x{side}x{side}': step, f'image_{4 * width}x{4 * height}': upscale}


def compare(repeats, seconds):
    """Return the median seconds by task and layout, and the ratio of channels-last to contiguous."""
    import torch

    has_gpu = torch.cuda.is_available()
    torch.backends.cudnn.benchmark = True  # as in a training by BasicSR

    def run(function, duration):
        """Return the mean seconds of the runs in about this duration, at least one."""
        count, start = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - start < duration:
            function()
            count += 1
            if has_gpu and count % 5 == 0:  # so that the queue stays short
                torch.cuda.synchronize()
        if has_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    result = {}
    network, tasks = make_tasks('cuda' if has_gpu else 'cpu', not has_gpu)
    for task, function in tasks.items():
        times = {layout: [] for layout in LAYOUTS}
        for repeat in range(repeats + 1):
            for layout in LAYOUTS:
                set_layout(network, layout)
                measured = run(function, seconds)
                if repeat > 0:  # the first is the warm-up
                    times[layout].append(measured)
        medians = {layout: statistics.median(values) for layout, values in times.items()}
        ratio = medians['channels_last'] / medians['contiguous']
        result[task] = {'seconds': medians, 'ratio': ratio, 'runs': times}
    device = torch.cuda.get_device_name() if has_gpu else 'CPU, with small sizes'
    recommendation = recommend([task['ratio'] for task in result.values()]) if has_gpu else 'none without a GPU'
    return {'tasks': result, 'recommendation': recommendation, 'environment': environment(device=device)}


def recommend(ratios):
    """Return the layout for these ratios of channels-last to contiguous."""
    if max(ratios) <= 1 + TOLERANCE:
        return 'channels-last, the default'
    if min(ratios) >= 1 - TOLERANCE:
        return 'contiguous NCHW: change the default'
    return 'none: training and inference differ'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=7, help='measurements of each layout (default: 7)')
    parser.add_argument('--seconds', type=float, default=1, help='length of one measurement (default: 1)')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    arguments = parser.parse_args()
    result = compare(arguments.repeats, arguments.seconds)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f'{"milliseconds":24}{"channels-last":>14}{"contiguous":>12}{"ratio":>8}')
    for name, task in result['tasks'].items():
        last, contiguous = (1000 * task['seconds'][layout] for layout in LAYOUTS)
        print(f'{name:24}{last:14,.2f}{contiguous:12,.2f}{task["ratio"]:8.3f}')
    print(', '.join(f'{name} {value}' for name, value in result['environment'].items()))
    print(f'Recommendation: {result["recommendation"]}')


if __name__ == '__main__':
    main()
