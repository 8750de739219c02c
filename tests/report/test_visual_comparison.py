import cv2
import numpy as np
import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.report.regions import Region
from lkdn_basicsr.report.visual_comparison import draw_comparison
from tests.support.results import add_noise, make_bicubic, make_result


def test_comparison_contains_the_exact_pixels_of_each_method(tmp_path, benchmarks):
    results = [
        make_bicubic(tmp_path, benchmarks),
        make_result('LKDN', tmp_path, benchmarks, add_noise(9)),
        make_result('a very long name of a method that does not fit below a crop', tmp_path, benchmarks, add_noise(30)),
    ]
    region = Region('Urban100', 'p0', 100, 31, 60, 40)
    draw_comparison(region, results, benchmarks, str(tmp_path / 'comparison.png'))
    drawn = cv2.imread(str(tmp_path / 'comparison.png'))
    outputs = [cv2.imread(f'{result.scores["Urban100"].folder}/p0.png') for result in results]
    positions = set()
    for image in (benchmarks[0].read('p0')[0], *outputs):
        crop = region.crop(image).repeat(5, axis=0).repeat(5, axis=1)  # to 300 pixels of the longer side
        match = cv2.matchTemplate(drawn.astype(np.float32), crop.astype(np.float32), cv2.TM_SQDIFF)
        y, x = np.unravel_index(match.argmin(), match.shape)
        assert (drawn[y : y + 200, x : x + 300] == crop).all()
        positions.add((x, y))
    assert len(positions) == 4
    assert min(x for x, _ in positions) > 100  # the complete image is on the left


def test_missing_sr_image_is_named(tmp_path, benchmarks):
    result = make_result('a', tmp_path, benchmarks, add_noise(2))
    result.scores['Set5'].folder = str(tmp_path / 'nowhere')
    with pytest.raises(InputError, match='nowhere'):
        draw_comparison(Region('Set5', 'p0', 0, 0, 32, 32), [result], benchmarks, str(tmp_path / 'comparison.png'))
    assert not (tmp_path / 'comparison.png').exists()
