"""Published results, as in the file, for the benchmarks and the scale that are asked for."""

from pathlib import Path

import pytest
import yaml

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate import published


def test_all_entries_are_complete_and_have_a_source():
    entries = published.read()
    (lkdn,) = (entry for entry in entries if entry.method == 'LKDN')
    assert (lkdn.scale, lkdn.params, lkdn.multi_adds) == (4, 322_000, 18_300_000_000)
    assert lkdn.sets['Urban100'] == (26.42, 0.7965) and 'stella-von/LKDN' in lkdn.source
    assert len({(entry.method, entry.scale, entry.source) for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.source and entry.scale in (2, 3, 4)
        assert 1e5 < entry.params < 1e7 and 1e9 < entry.multi_adds < 1e12
        assert all(20 < psnr < 45 and 0.6 < ssim < 1 for psnr, ssim in entry.sets.values())
    for block in yaml.safe_load(Path(published.FILE).read_text()):
        assert all(len(row) == 4 + len(block['sets']) for row in block['rows'])


def test_by_scale_and_benchmark():
    assert {entry.scale for entry in published.read(3)} == {3}
    entries = published.read(4, ['B100', 'mine', 'set5'])
    assert list(entries[0].sets) == ['B100', 'set5']  # under the names that were asked for
    (bsrn,) = (entry for entry in published.read(4, ['B100']) if entry.method == 'BSRN')
    assert bsrn.sets == {'B100': (27.65, 0.7387)}
    assert published.read(4, ['mine']) == []


ROWS = '- {{source: x, sets: [Set5], rows: [{}]}}'
CONTENTS = ['', '3', '{', '[' * 3000, '- {}', ROWS.format('3'), ROWS.format('[LKDN, 4, x, 1, 30/0.9]')]


@pytest.mark.parametrize('contents', CONTENTS + [ROWS.format('[LKDN, 4, 1, 1, 30]'), None], ids=str)
def test_damaged_file_is_reported(tmp_path, monkeypatch, contents):
    monkeypatch.setattr(published, 'FILE', str(tmp_path / 'published.yml'))
    if contents is not None:
        (tmp_path / 'published.yml').write_text(contents)
    with pytest.raises(InputError, match='published.yml is damaged .*: install'):
        published.read()
