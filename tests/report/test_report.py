import csv

import cv2
import pytest

from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.report.regions import BenchmarkImage, Region
from lkdn_basicsr.report.report import write_report
from tests.support.results import add_noise, make_benchmark, make_bicubic, make_result


@pytest.fixture
def study(tmp_path):
    sizes = {'Set5': [(64, 96), (96, 64)], 'Set 14': [(80, 80)]}
    benchmarks = [make_benchmark(tmp_path / name, size) for name, size in sizes.items()]
    results = [
        make_bicubic(tmp_path, benchmarks),
        make_result('Adan', tmp_path, benchmarks, add_noise(5), psnr=31.0),
        make_result('Adam', tmp_path, benchmarks, add_noise(9, 1), 200_000, psnr=30.0),
    ]
    return results, benchmarks


def published(scale=4):
    return Published(f'published-x{scale}', scale, 715_000, 40_900_000_000, {'Set5': (32.21, 0.8948)}, 'a paper')


def test_all_files_are_written_to_one_folder(tmp_path, study):
    for result in study[0][1:]:
        result.curves = {'Set5': [(1, 29.0), (2, 30.0)]}
    out = tmp_path / 'new' / 'out'
    write_report(str(out), 'Table 3', *study)
    comparisons = ['comparison-Set5-p0.png', 'comparison-Set5-p1.png', 'comparison-Set_14-p0.png']
    expected = {'table.md', 'table.csv', 'complexity.png', 'curves.png', 'index.html', *comparisons}
    assert {path.name for path in out.iterdir()} == expected
    assert all(cv2.imread(str(path)) is not None for path in out.glob('*.png'))
    rows = {row['method']: row for row in csv.DictReader((out / 'table.csv').read_text().splitlines())}
    assert float(rows['Adan']['Set5_psnr']) == 31.0 and rows['Adam']['params'] == '200000'
    assert '31.00' in (out / 'table.md').read_text() and 'Table 3' in (out / 'index.html').read_text()


def test_given_regions_are_drawn_and_curves_only_if_there_are_any(tmp_path, study):
    set5 = [Region('Set5', 'p0', 0, 0, 20, 20), Region('Set5', 'p0', 30, 10, 20, 20)]
    comparisons = ['comparison-Set5-p0.png', 'comparison-Set5-p0-2.png', 'comparison-Set_14-p0.png']
    for regions, drawn in (([], []), ([*set5, BenchmarkImage('Set 14', 'p0')], comparisons)):
        write_report(str(tmp_path / 'out'), 'x', *study, regions=regions)
        names = {path.name for path in (tmp_path / 'out').iterdir()}
        assert names == {'table.md', 'table.csv', 'complexity.png', *drawn, 'index.html'}


def test_published_scores_of_another_scale_are_left_out(tmp_path, study):
    write_report(str(tmp_path / 'out'), 'x', *study, [published(2), published(4)], [])
    for name in ('table.md', 'index.html'):
        text = (tmp_path / 'out' / name).read_text()
        assert 'published-x4' in text and 'published-x2' not in text


def test_report_is_replaced_and_complexity_plotted_on_a_benchmark_with_published_scores(tmp_path, study):
    for entries, plotted in (([published()], 'Set5'), ((), 'Set 14')):
        write_report(str(tmp_path / 'out'), 'x', *study, entries, [])
        assert f'PSNR on {plotted} against Multi-Adds' in (tmp_path / 'out/index.html').read_text()
