import multiprocessing
import os
import random

import lmdb
import pytest

from lkdn_basicsr.data.lmdb_file import BRANCH, LEAF, PAGE, locate
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


def test_other_files_and_short_files_end_in_a_value_error(tmp_path):
    make(str(tmp_path), 3)
    path = tmp_path / 'data.mdb'
    content = path.read_bytes()
    for damaged in (b'', b'no', bytes(10000), content[:100], content[:5000], content[:-1], bytes(len(content))):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            locate(path)


@pytest.fixture
def tree(tmp_path):
    """The content of an LMDB whose values all have pages of their own, and the places of the bytes of its tree."""
    rng = random.Random(0)
    for part in range(2):
        with lmdb.open(str(tmp_path), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
            for n in range(250):
                transaction.put(f'{2 * n + part:04d}_s001'.encode(), rng.randbytes(rng.choice((2100, 5000))))
    content = (tmp_path / 'data.mdb').read_bytes()
    pages = [page for page in range(2, len(content) // 4096) if PAGE.unpack_from(content, page * 4096)[0] == page]
    pages = [page for page in pages if PAGE.unpack_from(content, page * 4096)[1] in (BRANCH, LEAF)]
    return content, [byte for begin in (0, 4096) for byte in range(begin, begin + 152)] + [
        page * 4096 + byte for page in pages for byte in range(4096)
    ]


def test_flipped_bits_are_detected_or_places_are_inside_the_file_and_do_not_overlap(tmp_path, tree):
    content, places = tree
    path, rng, detected = tmp_path / 'data.mdb', random.Random(0), 0
    for _ in range(150):
        path.write_bytes(flipped(content, rng.choice(places), 1 << rng.randrange(8)))
        try:
            found = sorted(locate(path)[0].values())
        except ValueError:
            detected += 1
            continue
        ends = [begin + size for begin, size in found]
        assert all(end <= begin for end, (begin, _) in zip(ends, found[1:], strict=False)) and ends[-1] <= len(content)
    assert detected > 30


def read_all(folder, keys):
    with lmdb.open(folder, readonly=True, lock=False) as environment, environment.begin() as transaction:
        assert all(transaction.get(key) is not None for key in keys)


@pytest.mark.slow
def test_lmdb_can_read_what_is_accepted(tmp_path, tree):
    """py-lmdb ends the process where it follows a damaged tree."""
    content, places = tree
    path, rng, read = tmp_path / 'data.mdb', random.Random(1), 0
    expected = list(locate(path)[0])
    for _ in range(60):
        path.write_bytes(flipped(content, rng.choice(places[:304] if read % 2 else places), 1 << rng.randrange(8)))
        try:
            keys = list(locate(path)[0])
        except ValueError:
            continue
        if keys != expected:  # refused by a comparison with meta_info.txt
            continue
        process = multiprocessing.get_context('fork').Process(target=read_all, args=(str(tmp_path), keys))
        process.start()
        process.join()
        assert process.exitcode == 0
        read += 1
    assert read > 10
