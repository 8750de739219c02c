"""Draws without a state for data sets that draw from the global generators, as BasicSR's do."""

import random

import numpy as np
import torch
from torch.utils.data import Dataset

from lkdn_basicsr.data.draws import random_words


class DrawnDataset(Dataset):
    """Any data set, with its random draws made a function of (seed, position) of the ``Draw`` that is its index.

    BasicSR seeds Python's and numpy's generators once in each worker: what a sample looks like then depends on how many
    workers and ranks there are and on all samples before, and a resumed run goes on differently. Here the generators
    are seeded for each sample, and put back after it. Everything else is the wrapped data set's.

    Args:
        dataset (Dataset): Its samples may draw from ``random``, ``numpy.random`` and torch's CPU generator.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getattr__(self, name):
        if name == 'dataset':  # asked for by pickle before it is there
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, draw):
        state = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
        words = random_words(b'lkdn data set', draw.seed, draw.position, 3)
        random.seed(words[0])
        np.random.seed(words[1] & 0xFFFFFFFF)
        torch.default_generator.manual_seed(words[2] >> 1)  # torch.manual_seed would seed the GPUs as well
        try:
            return self.dataset[int(draw)]
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
            torch.default_generator.set_state(state[2])
