import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.networks import small_lkdn

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu_layout

    return gpu_layout


def test_layouts_differ_in_strides_and_not_in_the_output(module):
    network, image, contiguous, outputs = small_lkdn(num_block=2), torch.rand(1, 3, 8, 9), [], []
    network.B2.c1_r.register_forward_pre_hook(lambda _, inputs: contiguous.append(inputs[0].is_contiguous()))
    for layout in (*module.LAYOUTS, module.LAYOUTS[0]):
        module.set_layout(network, layout)
        outputs.append(network(image))
    assert contiguous == [False, True, False]
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=1e-5, atol=1e-6)  # sums in another order


@pytest.mark.parametrize('ratios, word', [((0.9, 1.01), 'default'), ((1.2, 0.99), 'NCHW'), ((0.9, 1.1), 'none')])
def test_recommendation_follows_the_ratios(module, ratios, word):
    assert word in module.recommend(ratios)


@pytest.mark.slow
def test_the_layout_benchmark_runs():
    command = [sys.executable, BENCHMARKS / 'gpu_layout.py', '--repeats', '1', '--seconds', '0', '--json']
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert len(result['tasks']) == 2 and all(task['ratio'] > 0 for task in result['tasks'].values())
