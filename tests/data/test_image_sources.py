import lmdb
import pytest

from lkdn_basicsr.data.image_sources import LmdbSource, MetaEntry, read_meta_info
from lkdn_basicsr.errors import InputError


def test_meta_info_is_read_with_and_without_sizes(tmp_path):
    path = tmp_path / 'meta.txt'
    path.write_text('a.png (48,60,3) 1\nmy photo.png (8, 9)\n\nb.c.png\n')
    entries = [MetaEntry('a.png', (48, 60)), MetaEntry('my photo.png', (8, 9)), MetaEntry('b.c.png', None)]
    assert read_meta_info(str(path)) == entries


@pytest.mark.parametrize('text, reason', [('a.png\n\nb.png\n', 'empty line'), ('my photo.png (8,9,3) 1\n', 'space')])
def test_strict_reading_refuses_what_basicsr_misreads(tmp_path, text, reason):
    (tmp_path / 'meta.txt').write_text(text)
    assert read_meta_info(str(tmp_path / 'meta.txt'))
    with pytest.raises(InputError, match=f'meta.txt .*{reason}'):
        read_meta_info(str(tmp_path / 'meta.txt'), strict=True)


@pytest.mark.parametrize('content', [None, b'', b'\xff\xfe'])
def test_missing_empty_and_binary_meta_info_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / 'meta.txt').write_bytes(content)
    with pytest.raises(InputError, match='The meta info file .*meta.txt'):
        read_meta_info(str(tmp_path / 'meta.txt'))


def test_lmdbs_are_checked_while_they_are_open(tmp_path):
    meta_info, data = tmp_path / 'meta_info.txt', tmp_path / 'data.mdb'
    with pytest.raises(InputError, match='is not an LMDB of BasicSR'):
        LmdbSource(str(tmp_path))
    with lmdb.open(str(tmp_path), map_size=1 << 24) as environment:
        with environment.begin(write=True) as transaction:
            for key in (b'a', b'b'):
                transaction.put(key, bytes(10_000))
        meta_info.write_text('a.png (8,9,3) 1\n')
        assert LmdbSource(str(tmp_path)).names == ['a']
        with pytest.raises(InputError, match='contains 2 of the 1 images'):
            LmdbSource(str(tmp_path), for_basicsr=True)
        meta_info.write_text('a.png\nb.png\nc.png\n')
        with pytest.raises(InputError, match='contains 2 of the 3 images'):
            LmdbSource(str(tmp_path))
    data.write_bytes(data.read_bytes()[:-4096])
    with pytest.raises(InputError, match='cut short'):
        LmdbSource(str(tmp_path))
