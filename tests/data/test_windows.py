import numpy as np
import pytest

from lkdn_basicsr.data.paired_crop_dataset import sub_image_origins


def origins_one_by_one(length, crop_size, step, thresh):
    """The rule in words: step while a whole window fits, then one flush with the end if more than thresh is left."""
    found = []
    start = 0
    while start + crop_size <= length:
        found.append(start)
        start += step
    if found and length - found[-1] - crop_size > thresh:
        found.append(length - crop_size)
    return found


@pytest.mark.parametrize('crop_size, step, thresh', [(480, 240, 0), (480, 240, 99), (48, 7, 3), (5, 9, 0)])
def test_origins_follow_the_rule_for_every_length(crop_size, step, thresh):
    for length in range(1, 4 * crop_size + 3):
        origins = sub_image_origins(length, crop_size, step, thresh)
        assert origins.dtype == np.int64
        assert origins.tolist() == origins_one_by_one(length, crop_size, step, thresh)


def test_a_2040_by_1356_picture_has_the_40_windows_of_basicsr():
    assert sub_image_origins(2040).tolist() == [0, 240, 480, 720, 960, 1200, 1440, 1560]
    assert sub_image_origins(1356).tolist() == [0, 240, 480, 720, 876]


def test_a_picture_shorter_than_a_window_has_none():
    assert sub_image_origins(479).tolist() == []
