"""What the tests share: where the reference data lies, and networks and inputs made by formula."""

from pathlib import Path

import numpy as np
import pytest
import torch

import lkdn_basicsr  # noqa: F401  before any module of BasicSR, which do not import without it
from tests.support import runs

torch.set_num_threads(1)  # the tensors are tiny; and the tests must not depend on the number of cores

SHARED = Path(__file__).resolve().parents[2] / 'shared'


@pytest.fixture
def shared():
    """The folder with the official code's numbers, weights and pictures, which a checkout may lack."""
    if not SHARED.is_dir():
        pytest.skip('the reference data (../shared) is not here')
    return SHARED


def fill(network):
    """Weights by the formula of the golden values, in float64. Returns the network."""
    state = network.state_dict()
    for k, (name, value) in enumerate(state.items()):
        i = np.arange(value.numel(), dtype=np.float64)
        n = value[0].numel() if value.dim() > 1 else 8
        filled = np.sin(0.7 * i + 0.31 * k + 0.1) / np.sqrt(max(1, n))
        if name.endswith('pixel_norm.weight'):
            filled = 0.1 + 0.02 * filled
        if name.endswith('running_var'):
            filled = 1 + filled
        state[name] = torch.from_numpy(filled).float().reshape(value.shape)
    network.load_state_dict(state)
    return network.double()


def picture(height, width, channels=3):
    """An input by the formula of the golden values, (1, channels, height, width) float64 in [0, 1]."""
    j = np.arange(channels * height * width)
    values = (np.sin(0.37 * j) + np.sin(0.011 * 1.7 * j) + 2) / 4
    return torch.from_numpy(values.astype(np.float32)).double().reshape(1, channels, height, width)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The current folder, with images and option files to train and to test on."""
    monkeypatch.chdir(tmp_path)
    runs.write_run(tmp_path)
    runs.reset_log()
    yield tmp_path
    runs.reset_log()
