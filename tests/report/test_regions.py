import numpy as np
import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.report import regions
from lkdn_basicsr.report.regions import BenchmarkImage, Region, check_region, find_regions, locate_region, parse_region
from tests.support.results import add_noise, make_bicubic, make_result


def add_error(image, x, y, size, error):
    """Return a function that adds an error to a square of one image, and weak noise to all."""

    def degrade(gt, name):
        output = add_noise(2)(gt, name).astype(int)
        if name == image:
            output[y : y + size, x : x + size] += error
        return np.clip(output, 0, 255).astype(np.uint8)

    return degrade


def test_parse_region():
    assert parse_region('Urban100/img_092:120,300,80,64') == Region('Urban100', 'img_092', 120, 300, 80, 64)
    assert parse_region('Urban100/img_092') == BenchmarkImage('Urban100', 'img_092')
    assert parse_region(' Set 5/a b:c ') == BenchmarkImage('Set 5', 'a b:c')
    for text in ('Urban100/img_092:120,300,80,64', 'Urban100/img_092', 'Set 5/a b:c'):
        assert str(parse_region(text)) == text


@pytest.mark.parametrize('text', ['img_092', 'Set5/', '/a', 'Set5/a:1,2,3', 'Set5/a:1,2,3,4,5', 'Set5/a:1.5,2,3,4', ''])
def test_invalid_region_is_rejected_with_an_example(text):
    with pytest.raises(InputError, match='BENCHMARK/IMAGE:x,y,width,height'):
        parse_region(text)


@pytest.mark.parametrize(
    'text, message',
    [
        *(
            ('Urban10/p0', 'did you mean Urban100'),
            ('set5/p0', 'did you mean Set5'),
            ('Urban100/P1', 'did you mean p1'),
        ),
        *(('Manga109/p0', 'use one of Urban100, Set5'), ('Set5/lenna', 'use one of p0')),
        ('Urban100/p0:100,0,61,10', 'not inside its image, which is 160 pixels wide and 120 high'),
        *(('Urban100/p0:-1,0,10,10', 'not inside'), ('Urban100/p0:0,0,0,10', 'not inside')),
    ],
)
def test_unknown_or_outside_region_is_rejected_in_one_line(benchmarks, text, message):
    with pytest.raises(InputError, match=message) as caught:
        check_region(parse_region(text), benchmarks)
    assert '\n' not in str(caught.value)


def test_region_where_methods_differ_is_found(tmp_path, benchmarks, monkeypatch):
    monkeypatch.setattr(regions, 'SIDE', 32)
    results = [
        make_bicubic(tmp_path, benchmarks),
        make_result('a', tmp_path, benchmarks, add_noise(2)),
        make_result('b', tmp_path, benchmarks, add_error('p1', 70, 40, 24, 60)),
    ]
    found = find_regions(results, benchmarks[:1], 5)
    assert [region.image for region in found] == ['p1', 'p0']  # one of each image, the largest difference first
    first = found[0]
    assert first.x <= 70 and first.y <= 40 and first.x + 32 >= 94 and first.y + 32 >= 64
    assert find_regions(results, benchmarks[:1], 1) == found[:1]
    assert locate_region(BenchmarkImage('Urban100', 'p1'), results, benchmarks) == first
    given = Region('Urban100', 'p1', 1, 2, 3, 4)
    assert locate_region(given, results, benchmarks) == given


def test_bicubic_counts_only_with_one_network(tmp_path, benchmarks, monkeypatch):
    monkeypatch.setattr(regions, 'SIDE', 24)
    results = [
        make_result('Bicubic', tmp_path, benchmarks, add_error('p0', 8, 8, 24, 90), None, None),
        make_result('a', tmp_path, benchmarks, add_noise(2)),
        make_result('b', tmp_path, benchmarks, add_error('p0', 100, 80, 24, 30)),
    ]
    for compared, position in ((results, (100, 80)), (results[:2], (8, 8))):
        region = find_regions(compared, benchmarks[:1], 1)[0]
        assert (region.x, region.y) == position


def test_region_is_not_larger_than_its_image(tmp_path, benchmarks):
    results = [make_result(f'{level}', tmp_path, benchmarks, add_noise(level)) for level in (2, 9)]
    assert find_regions(results, benchmarks[1:], 1) == [Region('Set5', 'p0', 0, 0, 64, 64)]
