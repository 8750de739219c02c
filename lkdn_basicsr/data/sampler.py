"""The order of the samples: one endless stream that every rank, worker and restart agrees on.

A run draws samples at positions 0, 1, 2, … of a stream. Every ``num_samples`` positions are a pseudo-random permutation
of the (enlarged) data set, keyed by the seed and computed entry by entry: a Feistel network over the next power of two,
walked until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Nothing is stored, so
DF2K's 14 million samples an epoch cost no memory, and any position of the run can be entered at once.
"""

import hashlib
import random
import struct

import numpy as np
import torch
from torch.utils.data import Dataset

_U64 = (1 << 64) - 1


def random_words(purpose, seed, counter, count):
    """``count`` (at most 8) independent 64-bit words, a pure function of the other arguments.

    Args:
        purpose (bytes): At most 16 bytes; another purpose gives unrelated words for the same seed and counter.
        seed (int): Any integer; taken modulo 2**64.
        counter (int): The position in the run, the epoch, …; taken modulo 2**64.

    Returns:
        tuple[int]: ``count`` integers, uniform on [0, 2**64).
    """
    data = struct.pack('<QQ', seed & _U64, counter & _U64)
    return struct.unpack(f'<{count}Q', hashlib.blake2b(data, digest_size=8 * count, person=purpose).digest())


def crop_and_flips(seed, position, num_tops, num_lefts):
    """Where the sample at a position of the run is cropped, and how it is turned.

    Args:
        seed (int): Seed of the run.
        position (int): Position in the run's stream of samples.
        num_tops, num_lefts (int): Number of possible crop origins, vertically and horizontally.

    Returns:
        tuple: ``top`` uniform on [0, num_tops), ``left`` uniform on [0, num_lefts), and three booleans, each true with
        probability one half: horizontal flip, vertical flip, transposition, as BasicSR's ``augment`` draws them.
    """
    top, left, bits = random_words(b'lkdn crop', seed, position, 3)
    # The high half of a 128-bit product: uniform to within num_tops / 2**64.
    return top * num_tops >> 64, left * num_lefts >> 64, bool(bits & 1), bool(bits & 2), bool(bits & 4)


_ROUNDS = 16
_BLOCK = 4096  # positions worked out at a time: numpy's overhead is spread, the first batch still comes at once


class SampleIndex(int):
    """A data set index that knows where in the run it is drawn.

    An ``int``, so that any BasicSR data set takes it; ``PairedCropDataset`` keys its crop and flips by the other two.

    Attributes:
        position (int): Position in the run's stream of samples.
        seed (int): Seed of the run.
    """

    def __new__(cls, index, position, seed):
        draw = super().__new__(cls, index)
        draw.position = position
        draw.seed = seed
        return draw

    def __reduce__(self):
        return SampleIndex, (int(self), self.position, self.seed)


def _round_function(half, key):
    """A well mixed uint64 for each (half, key): the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = half + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _feistel(x, keys, bits):
    """A permutation of [0, 2**bits): uint64 (n,) to uint64 (n,); ``keys`` is uint64 (n, rounds)."""
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << bits // 2) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high, low = x >> low_bits, x & low_mask
    for i in range(0, keys.shape[1], 2):
        high = high ^ (_round_function(low, keys[:, i]) & high_mask)
        low = low ^ (_round_function(high, keys[:, i + 1]) & low_mask)
    return (high << low_bits) | low


def stream_entries(positions, num_samples, seed):
    """What the stream holds at some positions: for each run of ``num_samples`` positions, a permutation of its own.

    Args:
        positions (ndarray): (n,), integers from 0.
        num_samples (int): Length of a permutation, from 1.
        seed (int): Seed of the run.

    Returns:
        ndarray: (n,) int64, in [0, num_samples).
    """
    epochs, offsets = np.divmod(np.asarray(positions, np.uint64), np.uint64(num_samples))
    distinct, which = np.unique(epochs, return_inverse=True)
    keys = np.array(
        [
            random_words(b'lkdn order a', seed, int(e), 8) + random_words(b'lkdn order b', seed, int(e), 8)
            for e in distinct
        ],
        np.uint64,
    ).reshape(-1, _ROUNDS)[which]
    bits = max(2, (num_samples - 1).bit_length())
    entries = _feistel(offsets, keys, bits)
    while True:  # fewer than half of the values lie outside, so a few turns bring all of them in
        outside = np.flatnonzero(entries >= num_samples)
        if outside.size == 0:
            return entries.astype(np.int64)
        entries[outside] = _feistel(entries[outside], keys[outside], bits)


class StreamSampler:
    """Deals the run's stream of samples out to batches and ranks; takes the place of BasicSR's ``EnlargedSampler``.

    Iteration ``t`` (from 0) of the run takes positions ``[t * world_size * batch_size, (t + 1) * world_size *
    batch_size)``, rank ``r`` every ``world_size``-th of them from the ``r``-th: the same global batch holds the same
    samples for any number of ranks. An epoch of BasicSR's loop is the whole batches of one pass over the enlarged data
    set; samples that do not fill a batch are not lost, the next epoch's first batch begins with them.

    ::

        for epoch in range(sampler.start_epoch, sampler.num_epochs):
            sampler.set_epoch(epoch)
            for batch in loader:  # DataLoader(dataset, batch_size, sampler=sampler)
                ...

    runs iterations ``start_iter`` to ``total_iter - 1``, each once, and so does BasicSR's
    ``range(start_epoch, total_epochs + 1)`` with ``total_epochs = num_epochs - 1``.

    Args:
        dataset_size (int): Length of the data set.
        seed (int): Seed of the run, the same on every rank.
        batch_size (int): Samples a rank and iteration.
        world_size (int): Number of ranks. Default: 1.
        rank (int): This rank. Default: 0.
        ratio (float): How many times the data set is gone through in one epoch. Default: 1.
        total_iter (int | None): Iterations of the whole run; None for endless epochs. Default: None.
        start_iter (int): Iterations done before, on a resume. Default: 0.

    Raises:
        ValueError: The enlarged data set has fewer samples than one global batch.
    """

    def __init__(self, dataset_size, seed, batch_size, world_size=1, rank=0, ratio=1, total_iter=None, start_iter=0):
        if not 0 <= rank < world_size:
            raise ValueError(f'rank {rank} is not one of {world_size} ranks.')
        self.dataset_size = dataset_size
        self.seed = seed
        self.batch_size = batch_size
        self.world_size = world_size
        self.rank = rank
        self.num_samples = round(dataset_size * ratio)
        self.total_iter = total_iter
        self.start_iter = start_iter
        self.global_batch_size = batch_size * world_size
        self.iters_per_epoch = self.num_samples // self.global_batch_size
        if self.iters_per_epoch == 0:
            raise ValueError(f'{self.num_samples} samples do not fill one batch of {self.global_batch_size}.')
        self.epoch = self.start_epoch

    @property
    def start_epoch(self):
        """int: The epoch that holds iteration ``start_iter``."""
        return self.start_iter // self.iters_per_epoch

    @property
    def num_epochs(self):
        """int | None: The number of epochs, the last one perhaps shorter; None where ``total_iter`` is None."""
        return None if self.total_iter is None else -(-self.total_iter // self.iters_per_epoch)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def _iterations(self):
        begin, end = self.epoch * self.iters_per_epoch, (self.epoch + 1) * self.iters_per_epoch
        if self.total_iter is not None:
            end = min(end, self.total_iter)
        return range(max(begin, self.start_iter), end)

    def __len__(self):
        """Samples that this rank still draws in the epoch set."""
        return len(self._iterations()) * self.batch_size

    def __iter__(self):
        """Yields a ``SampleIndex`` for each sample of this rank in the epoch set, from ``start_iter`` on."""
        iterations = self._iterations()
        in_batch = np.arange(self.batch_size, dtype=np.int64) * self.world_size + self.rank
        step = max(1, _BLOCK // self.batch_size)
        for i in range(0, len(iterations), step):
            block = np.array(iterations[i : i + step], np.int64)
            positions = (block[:, None] * self.global_batch_size + in_batch).ravel()
            indices = stream_entries(positions, self.num_samples, self.seed) % self.dataset_size
            for index, position in zip(indices.tolist(), positions.tolist(), strict=True):
                yield SampleIndex(index, position, self.seed)


class SeededDataset(Dataset):
    """Any data set, with its random draws made a function of (seed, position) of the ``SampleIndex`` that is its index.

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
