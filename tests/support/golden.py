"""Weights and inputs by the formula of the golden values in shared/golden."""

import numpy as np
import torch


def fill(network):
    """Fill a network with the golden weights, in float64, and return it."""
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


def image(height, width, channels=3):
    """Return the golden input, (1, channels, height, width) float64 in [0, 1]."""
    j = np.arange(channels * height * width)
    values = (np.sin(0.37 * j) + np.sin(0.011 * 1.7 * j) + 2) / 4
    return torch.from_numpy(values.astype(np.float32)).double().reshape(1, channels, height, width)
