import os
import random

import lmdb
import pytest

from lkdn_basicsr.data.lmdb_file import count_entries, locate
from tests.support.images import flipped


def make(path, rounds):
    """Make an LMDB with values of all sizes, written and overwritten in several transactions; return its content."""
    rng = random.Random(0)
    with lmdb.open(path, map_size=1 << 28, lock=False) as environment:
        for n in range(rounds):
            keys = [f'{rng.randrange(100 + 50 * n):08d}'.encode() for _ in range(220)]
            with environment.begin(write=True) as transaction:
                for key in keys[:200]:
                    transaction.put(key, rng.randbytes(rng.choice((0, 1, 100, 2000, 2100, 4000, 4096, 9000))))
                for key in keys[200:]:
                    transaction.delete(key)
        with environment.begin() as transaction:
            return dict(transaction.cursor())


@pytest.mark.parametrize('rounds', [0, 1, 12])
def test_values_are_where_lmdb_reads_them(tmp_path, rounds):
    expected = make(str(tmp_path), rounds)
    path = tmp_path / 'data.mdb'
    places, page = locate(path)
    assert page == os.sysconf('SC_PAGESIZE') and list(places) == sorted(expected)
    assert count_entries(path) == len(expected)
    data = path.read_bytes()
    assert {key: data[begin : begin + size] for key, (begin, size) in places.items()} == expected


def test_the_tree_may_be_deep(tmp_path):
    with lmdb.open(str(tmp_path), map_size=1 << 28, lock=False) as environment:
        with environment.begin(write=True) as transaction:
            for n in range(3000):
                transaction.put(f'{n:0300d}'.encode(), b'%d' % n)
        assert environment.stat()['depth'] >= 3
    places, _ = locate(tmp_path / 'data.mdb')
    data = (tmp_path / 'data.mdb').read_bytes()
    assert [data[begin : begin + size] for begin, size in places.values()] == [b'%d' % n for n in range(3000)]


@pytest.mark.slow
def test_other_files_short_files_and_damaged_trees_end_in_a_value_error(tmp_path):
    make(str(tmp_path), 3)
    path = tmp_path / 'data.mdb'
    content = path.read_bytes()
    for damaged in (b'', b'no', bytes(10000), content[:100], content[:5000], content[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            locate(path)
    rng = random.Random(0)
    for _ in range(500):  # any flip: either detected, or all places are still in the file
        path.write_bytes(flipped(content, rng.randrange(len(content)), 1 << rng.randrange(8)))
        try:
            places, _ = locate(path)
        except ValueError:
            continue
        assert all(begin + size <= len(content) for begin, size in places.values())
