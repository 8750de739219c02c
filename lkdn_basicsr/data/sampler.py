"""The order of the samples and their random draws, the same for every rank, worker and resumed run.

A run draws samples at positions 0, 1, 2, … of one endless stream. Every ``num_samples`` positions are a pseudo-random
permutation of the (enlarged) dataset, keyed by the seed. It is computed entry by entry: a Feistel network over the next
power of two, walked until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Nothing
is stored, so DF2K's 14 million samples per epoch cost no memory, and a run can resume at any position.

`StreamSampler` shards the stream across ranks and yields a `SampleIndex` per sample. What is random about a sample is a
function of the seed and the position in that index: `PairedCropDataset` calls `crop_and_flips` with them, and
`SeededDataset` seeds the generators that any other dataset uses.
"""

import dataclasses
import hashlib
import random
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from lkdn_basicsr.data.wrapped_dataset import WrappedDataset

_U64 = (1 << 64) - 1
_ROUNDS = 16  # of the Feistel network
_BLOCK = 4096  # positions computed at a time: enough to amortize numpy's overhead, few enough for a fast first batch


def random_words(purpose: bytes, seed: int, counter: int, count: int) -> tuple[int, ...]:
    """Return ``count`` (at most 8) independent 64-bit words, a pure function of the other arguments.

    Args:
        purpose: At most 16 bytes; another purpose gives unrelated words for the same seed and counter.
        seed, counter: Any integers, taken modulo 2**64; the counter is the position in the run, the epoch, …
    """
    data = struct.pack('<QQ', seed & _U64, counter & _U64)
    return struct.unpack(f'<{count}Q', hashlib.blake2b(data, digest_size=8 * count, person=purpose).digest())


def crop_and_flips(seed: int, position: int, num_tops: int, num_lefts: int) -> tuple[int, int, bool, bool, bool]:
    """Draw the crop and the augmentation of the sample at a position of the run.

    Returns:
        ``top`` uniform on [0, num_tops), ``left`` uniform on [0, num_lefts), and three booleans, each true with
        probability one half: horizontal flip, vertical flip, transposition, as in BasicSR's ``augment``.
    """
    top, left, bits = random_words(b'lkdn crop', seed, position, 3)
    # The high half of a 128-bit product: uniform to within num_tops / 2**64.
    return top * num_tops >> 64, left * num_lefts >> 64, bool(bits & 1), bool(bits & 2), bool(bits & 4)


class SampleIndex(int):
    """A dataset index with its position in the run. It is an ``int``, so any BasicSR dataset accepts it."""

    position: int  # in the run's stream of samples
    seed: int  # of the run

    def __new__(cls, index: int, position: int, seed: int) -> 'SampleIndex':
        self = super().__new__(cls, index)
        self.position, self.seed = position, seed
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleIndex, (int(self), self.position, self.seed)


@dataclasses.dataclass(eq=False)
class StreamSampler:
    """Shards the run's stream of samples into batches and ranks; replaces BasicSR's ``EnlargedSampler``.

    Iteration ``t`` (from 0) of the run takes positions ``[t * world_size * batch_size, (t + 1) * world_size *
    batch_size)``, rank ``r`` every ``world_size``-th of them from the ``r``-th: the same global batch has the same
    samples for any number of ranks. An epoch of BasicSR's loop is the full batches of one pass over the enlarged
    dataset; samples that do not fill a batch are not lost, the next epoch's first batch begins with them.

    The epochs ``range(start_epoch, num_epochs)``, each begun with `set_epoch`, are iterations ``start_iter`` to
    ``total_iter - 1``, each once. BasicSR runs ``range(start_epoch, total_epochs + 1)``: its ``total_epochs`` is
    ``num_epochs - 1``.

    Raises:
        ValueError: The enlarged dataset has fewer samples than one global batch.
    """

    dataset_size: int
    seed: int  # of the run, the same on every rank
    batch_size: int  # samples per rank and iteration
    world_size: int = 1
    rank: int = 0
    ratio: float = 1  # how many times the dataset is repeated in one epoch
    total_iter: int | None = None  # iterations of the complete run; None for endless epochs
    start_iter: int = 0  # iterations done before, on a resume

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f'rank {self.rank} is not one of {self.world_size} ranks.')
        self.num_samples = round(self.dataset_size * self.ratio)
        self.global_batch_size = self.batch_size * self.world_size
        self.iters_per_epoch = self.num_samples // self.global_batch_size
        if self.iters_per_epoch == 0:
            raise ValueError(f'{self.num_samples} samples do not fill one batch of {self.global_batch_size}.')
        self.epoch = self.start_epoch

    @property
    def start_epoch(self) -> int:
        """The epoch of iteration ``start_iter``."""
        return self.start_iter // self.iters_per_epoch

    @property
    def num_epochs(self) -> int | None:
        """The number of epochs, of which the last may be shorter; None where ``total_iter`` is None."""
        return None if self.total_iter is None else -(-self.total_iter // self.iters_per_epoch)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def _iterations(self) -> range:
        begin, end = self.epoch * self.iters_per_epoch, (self.epoch + 1) * self.iters_per_epoch
        return range(max(begin, self.start_iter), end if self.total_iter is None else min(end, self.total_iter))

    def __len__(self) -> int:
        """Return the number of samples that this rank still draws in the current epoch."""
        return len(self._iterations()) * self.batch_size

    def __iter__(self) -> Iterator[SampleIndex]:
        """Yield the samples of this rank in the current epoch, from ``start_iter`` on."""
        iterations = self._iterations()
        in_batch = np.arange(self.batch_size, dtype=np.int64) * self.world_size + self.rank
        step = max(1, _BLOCK // self.batch_size)
        for i in range(0, len(iterations), step):
            block = np.array(iterations[i : i + step], np.int64)
            positions = (block[:, None] * self.global_batch_size + in_batch).ravel()
            indices = stream_entries(positions, self.num_samples, self.seed) % self.dataset_size
            for index, position in zip(indices.tolist(), positions.tolist(), strict=True):
                yield SampleIndex(index, position, self.seed)


def stream_entries(positions: np.ndarray, num_samples: int, seed: int) -> np.ndarray:
    """Return the entries of the stream, (n,) int64 in [0, num_samples), at (n,) positions from 0.

    Each ``num_samples`` positions are one permutation.
    """
    epochs, offsets = np.divmod(np.asarray(positions, np.uint64), np.uint64(num_samples))
    distinct, which = np.unique(epochs, return_inverse=True)
    purposes = b'lkdn order a', b'lkdn order b'  # two times eight words
    words = [[random_words(purpose, seed, epoch, 8) for purpose in purposes] for epoch in distinct.tolist()]
    keys = np.array(words, np.uint64).reshape(-1, _ROUNDS)[which]
    bits = max(2, (num_samples - 1).bit_length())
    entries = _feistel(offsets, keys, bits)
    while True:  # fewer than half of the values are outside, so a few passes bring all of them inside
        outside = np.flatnonzero(entries >= num_samples)
        if outside.size == 0:
            return entries.astype(np.int64)
        entries[outside] = _feistel(entries[outside], keys[outside], bits)


def _feistel(x: np.ndarray, keys: np.ndarray, bits: int) -> np.ndarray:
    """Permute [0, 2**bits): uint64 (n,) to uint64 (n,); ``keys`` is uint64 (n, rounds)."""
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << bits // 2) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high, low = x >> low_bits, x & low_mask
    for i in range(0, keys.shape[1], 2):
        high = high ^ (_round_function(low, keys[:, i]) & high_mask)
        low = low ^ (_round_function(high, keys[:, i + 1]) & low_mask)
    return (high << low_bits) | low


def _round_function(half: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return a well mixed uint64 for each (half, key): the finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = half + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class SeededDataset(WrappedDataset):
    """Any dataset, with its random draws made a function of (seed, position) of the ``SampleIndex`` that is its index.

    BasicSR seeds Python's and numpy's generators once in each worker. A sample then depends on the number of workers
    and ranks and on all samples before it, and a resumed run continues differently. Here ``random``, ``numpy.random``
    and torch's CPU generator are seeded for each sample, and restored after it. All other attributes are those of the
    wrapped dataset.
    """

    def __getitem__(self, index: SampleIndex) -> Any:
        state = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
        # Changing the purpose would change the samples of runs that are resumed.
        words = random_words(b'lkdn data set', index.seed, index.position, 3)
        random.seed(words[0])
        np.random.seed(words[1] & 0xFFFFFFFF)
        torch.default_generator.manual_seed(words[2] >> 1)  # torch.manual_seed would seed the GPUs as well
        try:
            return self.dataset[int(index)]
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])
            torch.default_generator.set_state(state[2])
