import cv2
import numpy as np
import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.report import regions as crops
from lkdn_basicsr.report import visual_comparison as comparison
from lkdn_basicsr.report.regions import Region
from tests.support import results as made


@pytest.fixture
def sets(tmp_path):
    return [
        made.benchmark(tmp_path / 'Urban100', [(120, 160), (96, 128)]),
        made.benchmark(tmp_path / 'Set5', [(64, 64)], seed=1),
    ]


def spoiled(picture, x, y, size, by):
    """A change that adds an error to a square of one picture, and a small one everywhere."""

    def change(gt, name):
        gt = made.noisy(2)(gt, name).astype(int)
        if name == picture:
            gt[y : y + size, x : x + size] += by
        return np.clip(gt, 0, 255).astype(np.uint8)

    return change


@pytest.mark.parametrize(
    'text, region',
    [
        ('Urban100/img_092:120,300,80,64', Region('Urban100', 'img_092', 120, 300, 80, 64)),
        ('Urban100/img_092', Region('Urban100', 'img_092')),
        (' Set 5/a b:c ', Region('Set 5', 'a b:c')),
    ],
)
def test_a_region_is_read_as_it_is_written(text, region):
    assert crops.parse_region(text) == region
    assert crops.parse_region(str(region)) == region


@pytest.mark.parametrize('text', ['img_092', 'Set5/', '/a', 'Set5/a:1,2,3', 'Set5/a:1,2,3,4,5', 'Set5/a:1.5,2,3,4', ''])
def test_what_is_no_region_is_refused_with_an_example(text):
    with pytest.raises(InputError, match='SET/PICTURE:x,y,width,height'):
        crops.parse_region(text)


@pytest.mark.parametrize(
    'text, message',
    [
        ('Urban10/p0', 'did you mean Urban100'),
        ('set5/p0', 'did you mean Set5'),
        ('Manga109/p0', 'there are Urban100, Set5'),
        ('Urban100/P1', 'did you mean p1'),
        ('Set5/lenna', 'there is p0'),
        ('Urban100/p0:100,0,61,10', '160 pixels wide and 120 high'),
        ('Urban100/p0:-1,0,10,10', 'not inside'),
        ('Urban100/p0:0,0,0,10', 'not inside'),
    ],
)
def test_a_region_outside_is_refused_in_one_sentence_with_the_nearest_name(sets, text, message):
    with pytest.raises(InputError, match=message) as caught:
        crops.check_region(crops.parse_region(text), sets)
    assert '\n' not in str(caught.value)


def test_the_region_where_methods_differ_is_found(tmp_path, sets):
    results = [
        made.bicubic(tmp_path, sets),
        made.result('a', tmp_path, sets, made.noisy(2)),
        made.result('b', tmp_path, sets, spoiled('p1', 70, 40, 24, 60)),
    ]
    regions = crops.differing_regions(results, sets[:1], 5, 32)
    assert [region.picture for region in regions] == ['p1', 'p0']  # one of each picture, the largest difference first
    first = regions[0]
    assert first.x <= 70 and first.y <= 40 and first.x + 32 >= 94 and first.y + 32 >= 64
    assert crops.differing_regions(results, sets[:1], 1, 32) == regions[:1]
    assert crops.complete(Region('Urban100', 'p1'), results, sets, 32) == first
    assert crops.complete(Region('Urban100', 'p1', 1, 2, 3, 4), results, sets) == Region('Urban100', 'p1', 1, 2, 3, 4)


def test_bicubic_does_not_count_unless_there_is_one_network(tmp_path, sets):
    far = made.result('Bicubic', tmp_path, sets, spoiled('p0', 8, 8, 24, 90))
    far.params = far.multi_adds = None
    results = [
        far,
        made.result('a', tmp_path, sets, made.noisy(2)),
        made.result('b', tmp_path, sets, spoiled('p0', 100, 80, 24, 30)),
    ]
    region = crops.differing_regions(results, sets[:1], 1, 24)[0]
    assert (region.x, region.y) == (100, 80)
    region = crops.differing_regions(results[:2], sets[:1], 1, 24)[0]
    assert (region.x, region.y) == (8, 8)


def test_a_region_is_no_larger_than_its_picture(tmp_path, sets):
    results = [made.result('a', tmp_path, sets, made.noisy(2)), made.result('b', tmp_path, sets, made.noisy(9))]
    region = crops.differing_regions(results, sets[1:], 1, 80)[0]
    assert region == Region('Set5', 'p0', 0, 0, 64, 64)


def test_the_comparison_holds_the_very_pixels_of_each_method(tmp_path, sets):
    results = [
        made.bicubic(tmp_path, sets),
        made.result('LKDN', tmp_path, sets, made.noisy(9)),
        made.result('a method with a very long name that does not fit below a crop', tmp_path, sets, made.noisy(30)),
    ]
    region = Region('Urban100', 'p0', 100, 31, 60, 40)
    comparison.draw(region, results, sets, str(tmp_path / 'comparison.png'))
    drawn = cv2.imread(str(tmp_path / 'comparison.png'))
    gt = sets[0].read('p0')[0]
    pictures = [gt, *(cv2.imread(f'{result.scores["Urban100"].folder}/p0.png') for result in results)]
    places = set()
    for picture in pictures:
        crop = comparison.enlarge(region.of(picture), 5)  # 300 pixels of the longer side
        found = cv2.matchTemplate(drawn.astype(np.float32), crop.astype(np.float32), cv2.TM_SQDIFF)
        y, x = np.unravel_index(found.argmin(), found.shape)
        assert (drawn[y : y + 200, x : x + 300] == crop).all()
        places.add((x, y))
    assert len(places) == 4
    assert min(x for x, _ in places) > 100  # at the left is the whole picture


def test_a_missing_sr_picture_is_named(tmp_path, sets):
    broken = made.result('a', tmp_path, sets, made.noisy(2))
    broken.scores['Set5'].folder = str(tmp_path / 'nowhere')
    with pytest.raises(InputError, match='nowhere'):
        comparison.draw(Region('Set5', 'p0', 0, 0, 32, 32), [broken], sets, str(tmp_path / 'comparison.png'))
    assert not (tmp_path / 'comparison.png').exists()
