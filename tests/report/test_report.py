import csv
import os

import cv2
import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.report import report
from lkdn_basicsr.report.regions import Region
from tests.support import results as made


@pytest.fixture
def study(tmp_path):
    sets = [
        made.benchmark(tmp_path / 'Set5', [(64, 96), (96, 64)]),
        made.benchmark(tmp_path / 'Set 14', [(80, 80)], seed=1),
    ]
    results = [
        made.bicubic(tmp_path, sets),
        made.result('Adan', tmp_path, sets, made.noisy(5), psnr=31.0),
        made.result('Adam', tmp_path, sets, made.noisy(9, 1), 200_000, psnr=30.0),
    ]
    return results, sets


def names(paths):
    return [os.path.basename(path) for path in paths]


def test_everything_is_written_into_one_folder(tmp_path, study):
    results, sets = study
    for result in results[1:]:
        result.curves = {'Set5': [(1, 29.0), (2, 30.0)]}
    out = tmp_path / 'new' / 'out'
    paths = report.write_report(str(out), 'Table 3', results, sets)
    assert (
        sorted(names(paths))
        == sorted(os.listdir(out))
        == sorted(
            [
                'table.md',
                'table.csv',
                'complexity.png',
                'curves.png',
                'index.html',
                'comparison-Set5-p0.png',
                'comparison-Set5-p1.png',
                'comparison-Set_14-p0.png',
            ]
        )
    )
    assert all(cv2.imread(str(out / name)) is not None for name in names(paths) if name.endswith('.png'))
    with open(out / 'table.csv') as file:
        rows = {row['method']: row for row in csv.DictReader(file)}
    assert float(rows['Adan']['Set5_psnr']) == 31.0 and rows['Adam']['params'] == '200000'
    assert '31.00' in (out / 'table.md').read_text() and 'Table 3' in (out / 'index.html').read_text()


def test_regions_are_those_given_and_curves_only_where_there_are(tmp_path, study):
    results, sets = study
    regions = [Region('Set5', 'p0', 0, 0, 20, 20), Region('Set5', 'p0', 30, 10, 20, 20), Region('Set 14', 'p0')]
    paths = report.write_report(str(tmp_path / 'out'), 'x', results, sets, regions=regions)
    assert [name for name in names(paths) if name.endswith('.png')] == [
        'complexity.png',
        'comparison-Set5-p0.png',
        'comparison-Set5-p0-2.png',
        'comparison-Set_14-p0.png',
    ]
    paths = report.write_report(str(tmp_path / 'none'), 'x', results, sets, regions=[])
    assert names(paths) == ['table.md', 'table.csv', 'complexity.png', 'index.html']


def test_published_figures_of_another_scale_are_left_out(tmp_path, study):
    results, sets = study
    published = [
        Published(f'published-x{scale}', scale, 715_000, 40_900_000_000, {'Set5': (32.21, 0.8948)}, 'a paper')
        for scale in (2, 4)
    ]
    report.write_report(str(tmp_path / 'out'), 'x', results, sets, published, [])
    for name in ('table.md', 'index.html'):
        text = (tmp_path / 'out' / name).read_text()
        assert 'published-x4' in text and 'published-x2' not in text


def test_complexity_is_plotted_where_others_have_published(tmp_path, study):
    results, sets = study
    published = [Published('published', 4, 715_000, 40_900_000_000, {'Set5': (32.21, 0.8948)}, 'a paper')]
    for entries, shown in ((published, 'Set5'), ((), 'Set 14')):
        report.write_report(str(tmp_path / 'out'), 'x', results, sets, entries, [])
        assert f'PSNR on {shown} against Multi-Adds' in (tmp_path / 'out/index.html').read_text()


def test_a_second_report_replaces_the_first(tmp_path, study):
    results, sets = study
    for title in ('the first', 'the second'):
        report.write_report(str(tmp_path / 'out'), title, results, sets, regions=[])
    assert 'the second' in (tmp_path / 'out' / 'index.html').read_text()
    assert not [name for name in os.listdir(tmp_path / 'out') if name.startswith('.')]


def test_a_folder_that_cannot_be_is_refused_in_one_sentence(tmp_path, study):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='could not be written'):
        report.write_report(str(tmp_path / 'file' / 'out'), 'x', *study, regions=[])
