import csv

import pytest

from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.evaluate.results import BenchmarkScores, Result
from lkdn_basicsr.report import table


def make_result(method, psnr, params=321_992, benchmarks=('Set5', 'Set14'), **values):
    scores = BenchmarkScores({'a': psnr - 1, 'b': psnr + 1}, {'a': 0.9, 'b': psnr / 40}, '')
    costs = {'params': params, 'multi_adds': 18_276_249_600, 'latency': 0.652904} if params else {}
    return Result(method, 4, dict.fromkeys(benchmarks, scores), **costs, **values)


PSNR = {'A': 32.001, 'B|C': 32.0045, 'D': 30, 'E': 28}
RESULTS = [make_result('Bicubic', 36, None), *(make_result(method, psnr) for method, psnr in PSNR.items())]


def cells(text):
    """Return the rows of the first Markdown table as lists."""
    lines = text.split('\n\n')[0].splitlines()
    return [[cell.strip() for cell in line.replace('\\|', '¦').strip('|').split('|')] for line in lines]


def test_markdown(monkeypatch):
    monkeypatch.setattr(table, 'device_name', lambda: 'a machine')
    rows = cells(table.markdown(RESULTS))
    scores = ['Set5 PSNR / SSIM', 'Set14 PSNR / SSIM']
    assert rows[0] == ['Method', 'Scale', 'Params [K]', 'Multi-Adds [G]', *scores, 'Latency [ms] on a machine']
    assert rows[1] == [':--', *['--:'] * 6]
    assert len({len(row) for row in rows}) == 1
    assert rows[2] == ['Bicubic', '×4', '', '', '36.00 / 0.9000', '36.00 / 0.9000', '']
    assert rows[3][:4] == ['A', '×4', '322', '18.3'] and rows[3][-1] == '653'


def test_names_are_shown_as_they_are():
    names = ['a|b', '`c`', '<u>d', '*e*', 'f\ng', 'h\\i', 'j_k', 'l\udcff']
    rows = table.markdown([make_result(name, 32, benchmarks=['S|<']) for name in names]).splitlines()
    shown = [r'a\|b', r'\`c\`', r'\<u>d', r'\*e\*', r'f\\ng', r'h\\i', 'j_k', r'l\\xff']
    assert [row.split(' | ')[0] for row in rows[2:10]] == [f'| {name}' for name in shown]
    assert r'| S\|\< PSNR / SSIM |' in rows[0]


def test_best_two_networks_are_marked_as_printed():
    assert {row[0]: row[4] for row in cells(table.markdown(RESULTS))[2:]} == {
        'Bicubic': '36.00 / 0.9000',  # better than all, but not a network
        'A': '**32.00** / <u>0.8500</u>',  # equal to two digits
        'B¦C': '**32.00** / **0.8501**',
        'D': '<u>30.00</u> / 0.8250',
        'E': '28.00 / 0.8000',
    }
    assert '**' not in cells(table.markdown(RESULTS[:2]))[3][4]  # a single network is not marked


def test_protocol():
    text = table.markdown(RESULTS)
    for words in ('Y of YCbCr', 'border of 4 pixels', 'MATLAB', '1280×720', 'fused', 'Latency is'):
        assert words in text
    untimed = [Result('A', 4, RESULTS[1].scores, 10_000, 10**9), RESULTS[0]]
    assert 'Latency' not in table.markdown(untimed)


def test_published_scores_have_their_own_table():
    published = [Published('BSRN', 4, 352_000, 19_400_000_000, {'Set5': (32.35, 0.8966)}, 'a README')]
    measured, others = table.markdown(RESULTS, published).split('\n## As published, not measured here\n')
    assert 'BSRN' not in measured
    assert '| BSRN | ×4 | 352 | 19.4 | 32.35 / 0.8966 | a README |' in others
    assert 'Set14' not in others
    assert 'As published' not in table.markdown(RESULTS)


def test_csv():
    rows = list(csv.DictReader(table.csv_text(RESULTS).splitlines()))
    scores = ['Set5_psnr', 'Set5_ssim', 'Set14_psnr', 'Set14_ssim']
    assert list(rows[0]) == ['method', 'scale', 'params', 'multi_adds', *scores, 'latency']
    assert list(rows[0].values()) == ['Bicubic', '4', '', '', '36.000000', '0.900000', '36.000000', '0.900000', '']
    assert rows[1]['params'] == '321992' and rows[1]['multi_adds'] == '18276249600'
    assert float(rows[1]['latency']) == pytest.approx(652.904)
    assert float(rows[1]['Set5_psnr']) == pytest.approx(32.001, abs=1e-6)
    assert rows[2]['method'] == 'B|C'


def test_missing_scores_are_empty():
    results = [make_result('A', 32), make_result('B', 31, benchmarks=('Set14',))]
    assert cells(table.markdown(results))[3][4:6] == ['', '<u>31.00</u> / <u>0.8375</u>']
    assert list(csv.reader(table.csv_text(results).splitlines()))[2][4:6] == ['', '']


def test_training_time_is_the_last_column():
    results = [make_result('A', 32, seconds=1234.56), make_result('B', 31)]
    assert [row[-1] for row in cells(table.markdown(results))] == ['Training [s]', '--:', '1,235', '']
    assert [row[-1] for row in csv.reader(table.csv_text(results).splitlines())] == ['seconds', '1234.6', '']


def test_small_and_large_numbers():
    small = Result('A', 4, {}, params=4_519, multi_adds=259_000_000, latency=0.0123)
    large = Result('B', 4, {}, params=16_697_987, multi_adds=1_034_100_000_000, latency=18.08)
    rows = cells(table.markdown([small, large]))
    assert rows[2][2:] == ['4.5', '0.26', '12.3']
    assert rows[3][2:] == ['16,698', '1,034.1', '18,080']
