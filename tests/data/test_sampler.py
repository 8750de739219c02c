import itertools
import math
import pickle
import tracemalloc
from collections import Counter

import numpy as np
import pytest
import torch

from lkdn_basicsr.data.sampler import SampleIndex, StreamSampler, crop_and_flips, random_words, stream_entries


def as_tuples(indices):
    return [(int(index), index.position, index.seed) for index in indices]


def complete_run(*args, **kwargs):
    """Return all indices of a run, as BasicSR's loop requests them: epochs ``start_epoch`` to ``total_epochs``."""
    sampler, indices = StreamSampler(*args, **kwargs), []
    for epoch in range(sampler.start_epoch, (sampler.num_epochs - 1) + 1):
        sampler.set_epoch(epoch)
        before = len(indices)
        indices += sampler
        assert len(indices) - before == len(sampler)
    return indices


@pytest.mark.parametrize('num_samples', [1, 2, 3, 7, 64, 65, 1000, 4099])
def test_each_epoch_of_the_stream_is_a_permutation(num_samples):
    entries = stream_entries(np.arange(5 * num_samples), num_samples, seed=7).reshape(5, num_samples)
    assert (np.sort(entries, axis=1) == np.arange(num_samples)).all()


def test_samples_and_crops_never_change_between_versions():
    """A run that is resumed with a newer version must continue with the same ones."""
    assert stream_entries(np.arange(10, 20), 10, seed=0).tolist() == [6, 2, 5, 8, 7, 1, 4, 0, 3, 9]
    assert stream_entries([0, 10**12], 13_999_500, seed=2**63).tolist() == [10616690, 4857128]
    assert random_words(b'test', 0, 0, 2) == (17778955967525898223, 13608717468237111814)
    assert crop_and_flips(10, 1234567, 73, 98) == (39, 71, True, False, True)


def test_epochs_and_seeds_have_different_orders():
    epochs = stream_entries(np.arange(3000), 1000, seed=7).reshape(3, 1000)
    orders = [*epochs, stream_entries(np.arange(1000), 1000, seed=8), np.arange(1000)]
    for a, b in itertools.combinations(orders, 2):
        assert (a == b).sum() < 10  # two unrelated permutations agree in one place on average


@pytest.mark.parametrize('num_samples, bound', [(3, 31), (4, 66), (5, 202)])
def test_all_orders_are_equally_likely(num_samples, bound):
    epochs = 24000
    orders = stream_entries(np.arange(num_samples * epochs), num_samples, seed=1).reshape(epochs, num_samples)
    counts = Counter(map(tuple, orders.tolist()))
    possible = math.factorial(num_samples)
    expected = epochs / possible
    assert len(counts) == possible
    # Chi-square with n! - 1 degrees of freedom stays under the bound with probability 1 - 1e-5 or more.
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < bound


def test_every_sample_is_at_every_position_equally_often():
    size, epochs = 50, 10000
    orders = stream_entries(np.arange(size * epochs), size, seed=2).reshape(epochs, size)
    counts = np.array([np.bincount(place, minlength=size) for place in orders.T])
    expected = epochs / size
    # 49 * 49 = 2401 degrees of freedom: mean 2401, deviation 69; five deviations.
    assert ((counts - expected) ** 2 / expected).sum() < 2750


def test_the_ratio_enlarges_an_epoch_or_draws_a_part_of_the_dataset():
    enlarged = StreamSampler(10, seed=0, batch_size=5, ratio=4)
    assert Counter(map(int, enlarged)) == Counter({i: 4 for i in range(10)})
    part = list(StreamSampler(10, seed=0, batch_size=2, ratio=0.6))
    assert len(part) == 6 and len(set(map(int, part))) == 6
    with pytest.raises(ValueError, match='6 samples do not fill one batch of 8'):
        StreamSampler(3, 0, 4, world_size=2, ratio=2)


def test_a_sample_index_is_an_int_that_can_be_pickled():
    index = next(iter(StreamSampler(10, seed=3, batch_size=2)))
    assert isinstance(index, int) and list('abcdefghij')[index] and (index.position, index.seed) == (0, 3)
    index = pickle.loads(pickle.dumps(SampleIndex(5, 2**40, 9)))
    assert (type(index), int(index), index.position, index.seed) == (SampleIndex, 5, 2**40, 9)


RUNS = [(12, 5, 1, 60), (12, 4, 1, 10), (12, 12, 1, 3), (5, 2, 7, 40), (100, 3, 2.5, 83), (12, 5, 1, 1)]
RUNS += [(3, 2, 3000, 5000)]  # more samples than are drawn at a time


@pytest.mark.parametrize('dataset_size, batch_size, ratio, total_iter', RUNS)
def test_a_run_has_exactly_total_iter_batches(dataset_size, batch_size, ratio, total_iter):
    """Samples that do not fill a batch, which BasicSR drops, are in the next epoch."""
    indices = complete_run(dataset_size, 0, batch_size, ratio=ratio, total_iter=total_iter)
    assert [index.position for index in indices] == list(range(total_iter * batch_size))


@pytest.mark.parametrize('world_size', [2, 3, 4])
def test_the_stream_of_one_rank_is_sharded(world_size):
    one = as_tuples(complete_run(50, 1, 12, ratio=3, total_iter=30))
    ranks = [as_tuples(complete_run(50, 1, 12 // world_size, world_size, r, 3, 30)) for r in range(world_size)]
    assert [index for of_ranks in zip(*ranks, strict=True) for index in of_ranks] == one


@pytest.mark.parametrize('start_iter', [0, 1, 6, 7, 8, 20, 29, 30])
def test_a_resumed_run_continues_in_the_middle_of_an_epoch(start_iter):
    args = {'dataset_size': 29, 'seed': 1, 'batch_size': 4, 'total_iter': 30}
    uninterrupted = as_tuples(complete_run(**args))
    assert as_tuples(complete_run(**args, start_iter=start_iter)) == uninterrupted[start_iter * 4 :]
    sampler = StreamSampler(**args, start_iter=start_iter)
    assert as_tuples(sampler) == as_tuples(sampler)  # BasicSR's prefetchers begin the first epoch twice


def test_a_loader_yields_the_batches_of_the_sampler():
    sampler = StreamSampler(29, 1, 4, total_iter=30)
    loader = torch.utils.data.DataLoader(range(29), 4, sampler=sampler, drop_last=True)
    assert len(loader) == 7
    assert torch.cat(list(loader)).tolist() == list(map(int, sampler))


def test_fourteen_million_samples_cost_no_memory():
    tracemalloc.start()
    sampler = StreamSampler(139_995, 0, 64, ratio=100, total_iter=1_000_000)
    assert sum(1 for _ in itertools.islice(sampler, 10_000)) == 10_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sampler) == 13_999_488
    # A list of 14 million integers would be 112 MB; the blocks of positions are a few hundred kB.
    assert peak < 4e6


def test_seed_position_and_purpose_each_change_the_words():
    arguments = list(itertools.product((b'a', b'b'), (0, 1, 2**63), (0, 1, 2**40)))
    assert len({random_words(*args, 1) for args in arguments}) == len(arguments)


def test_crops_and_flips_are_uniform():
    tops, lefts, draws = 5, 3, 24000
    counts = np.zeros((tops, lefts, 2, 2, 2))
    for position in range(draws):
        counts[tuple(map(int, crop_and_flips(3, position, tops, lefts)))] += 1
    expected = draws / counts.size
    # 120 equally likely cells: chi-square with 119 degrees of freedom stays under 202 with probability 1 - 3e-6.
    assert ((counts - expected) ** 2 / expected).sum() < 202
