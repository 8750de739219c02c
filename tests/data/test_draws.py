import numpy as np

from lkdn_basicsr.data.sampler import crop_and_flips, random_words


def test_the_stream_never_changes_between_versions():
    """A run that is resumed with a newer version must go on with the same crops."""
    assert random_words(b'test', 0, 0, 2) == (17778955967525898223, 13608717468237111814)
    assert crop_and_flips(10, 1234567, 73, 98) == (39, 71, True, False, True)


def test_seed_position_and_purpose_each_give_other_words():
    words = [
        random_words(purpose, seed, position, 1)[0]
        for purpose in (b'a', b'b')
        for seed in (0, 1, 2**63)
        for position in (0, 1, 2**40)
    ]
    assert len(set(words)) == len(words)


def test_crops_and_flips_are_uniform():
    tops, lefts, draws = 5, 3, 24000
    counts = np.zeros((tops, lefts, 2, 2, 2))
    for position in range(draws):
        top, left, hflip, vflip, rot90 = crop_and_flips(3, position, tops, lefts)
        counts[top, left, int(hflip), int(vflip), int(rot90)] += 1
    expected = draws / counts.size
    # 120 equally likely cells: chi-square with 119 degrees of freedom stays under 202 with probability 1 - 3e-6.
    assert ((counts - expected) ** 2 / expected).sum() < 202
