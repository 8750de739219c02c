"""Measuring: BasicSR's metrics, pictures as they are scored, and a cache that is kept and heeded."""

import json
import os

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import img2tensor, tensor2img

from lkdn_basicsr.data import imresize
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate import complexity, latency, measure
from lkdn_basicsr.evaluate.benchmarks import read_benchmark
from tests.support.networks import save, shaken, small_lkdn, write_set


@pytest.fixture(autouse=True)
def a_small_output(monkeypatch):
    """Timed and counted for an output of 96×64: that of 1280×720 takes a second on a CPU."""
    monkeypatch.setattr(complexity, 'OUTPUT', (64, 96))


@pytest.fixture
def model(tmp_path):
    return save(small_lkdn(), tmp_path / 'small.pth')


def sets_of(tmp_path, *names, **options):
    return [read_benchmark(write_set(tmp_path, name, **options), 4) for name in names]


def test_scores_are_basicsrs_of_the_saved_pictures(tmp_path, model):
    sets = sets_of(tmp_path, 'One')
    result = measure.measure(model, sets, 4, str(tmp_path / 'cache'))
    assert (result.method, result.scale) == ('small', 4)
    network = small_lkdn()
    for name in ('a', 'b'):
        gt, lq = sets[0].read(name)
        with torch.no_grad():
            expected = tensor2img(network(img2tensor(lq / np.float32(255))[None]))
        sr = cv2.imread(os.path.join(result.scores['One'].folder, f'{name}.png'))
        assert np.array_equal(sr, expected)
        options = {'crop_border': 4, 'test_y_channel': True}
        assert result.scores['One'].psnr[name] == calculate_psnr(sr, gt, **options)
        assert result.scores['One'].ssim[name] == calculate_ssim(sr, gt, **options)
    assert result.params == sum(parameter.numel() for parameter in network.parameters())
    assert result.multi_adds == complexity.count(network, 4)[1]
    assert result.latency > 0


def test_bicubic_is_matlabs(tmp_path):
    sets = sets_of(tmp_path, 'One')
    result = measure.measure_bicubic(sets, 4, str(tmp_path / 'cache'))
    assert (result.method, result.params, result.multi_adds, result.latency) == ('Bicubic', None, None, None)
    sr = cv2.imread(os.path.join(result.scores['One'].folder, 'a.png'))
    assert np.array_equal(sr, imresize(sets[0].read('a')[1], 4))


@pytest.mark.parametrize('scale', [2, 3])
def test_other_scales_leave_out_other_borders(scale, tmp_path):
    benchmark = read_benchmark(write_set(tmp_path, 'One', scale, height=36, width=42), scale)
    path = save(small_lkdn(upscale=scale), tmp_path / 'a.pth')
    scores = measure.measure(path, [benchmark], scale, str(tmp_path / 'cache')).scores['One']
    sr, (gt, _) = cv2.imread(os.path.join(scores.folder, 'a.png')), benchmark.read('a')
    assert scores.psnr['a'] == calculate_psnr(sr, gt, crop_border=scale, test_y_channel=True)
    assert scores.ssim['a'] == calculate_ssim(sr, gt, crop_border=scale, test_y_channel=True)


def tamper(folder, key='psnr', value=77.0):
    """Put a score into the cache that no measurement gives."""
    (path,) = (os.path.join(root, file) for root, _, files in os.walk(folder) for file in files if file == 'One.json')
    with open(path) as file:
        record = json.load(file)
    record[key]['a'] = value
    with open(path, 'w') as file:
        json.dump(record, file)


def test_what_the_cache_holds_is_not_measured_again(tmp_path, model, monkeypatch):
    cache = str(tmp_path / 'cache')
    one, two = sets_of(tmp_path, 'One', 'Two')
    measure.measure(model, [one], 4, cache)
    tamper(cache)
    monkeypatch.setattr(latency, 'latency', None)  # is not called any more
    monkeypatch.setattr(complexity, 'count', None)
    again = measure.measure(model, [one, two], 4, cache, name='renamed')
    assert again.method == 'renamed'
    assert again.scores['One'].psnr['a'] == 77
    assert 5 < again.scores['Two'].psnr['a'] < 50  # the new set is measured
    assert again.params and again.multi_adds and again.latency


def test_another_network_is_measured_anew(tmp_path, model):
    cache = str(tmp_path / 'cache')
    (one,) = sets_of(tmp_path, 'One')
    first = measure.measure(model, [one], 4, cache)
    tamper(cache)
    save(shaken(small_lkdn(), seed=2), tmp_path / 'small.pth')  # of the same name
    second = measure.measure(model, [one], 4, cache)
    assert second.scores['One'].psnr['a'] not in (77, first.scores['One'].psnr['a'])
    assert second.scores['One'].folder != first.scores['One'].folder


@pytest.mark.parametrize('kind', ['GTmod4', 'LRbicx4'])
def test_changed_pictures_are_measured_anew(kind, tmp_path, model):
    cache = str(tmp_path / 'cache')
    (one,) = sets_of(tmp_path, 'One')
    measure.measure(model, [one], 4, cache)
    measure.measure_bicubic([one], 4, str(tmp_path / 'other'))
    tamper(cache)
    tamper(tmp_path / 'other')
    path = os.path.join(one.folder, kind, 'b.png')
    cv2.imwrite(path, 255 - cv2.imread(path))
    changed = read_benchmark(one.folder, 4)
    assert measure.measure(model, [changed], 4, cache).scores['One'].psnr['a'] != 77
    assert measure.measure_bicubic([changed], 4, str(tmp_path / 'other')).scores['One'].psnr['a'] != 77


def test_another_protocol_is_measured_anew(tmp_path, model, monkeypatch):
    cache = str(tmp_path / 'cache')
    (one,) = sets_of(tmp_path, 'One')
    measure.measure(model, [one], 4, cache)
    tamper(cache)
    monkeypatch.setattr(measure, 'PROTOCOL', -1)
    assert measure.measure(model, [one], 4, cache).scores['One'].psnr['a'] != 77


def test_a_killed_measurement_goes_on_where_it_was(tmp_path, model, monkeypatch):
    cache = str(tmp_path / 'cache')
    (one,) = sets_of(tmp_path, 'One', pictures=('a', 'b', 'c'))
    whole = measure.measure(model, [one], 4, str(tmp_path / 'undisturbed'))
    score = calculate_ssim

    def killed_at_b(sr, gt, **options):
        if np.array_equal(gt, one.read('b')[0]):
            raise KeyboardInterrupt
        return score(sr, gt, **options)

    monkeypatch.setattr(measure, 'calculate_ssim', killed_at_b)
    with pytest.raises(KeyboardInterrupt):
        measure.measure(model, [one], 4, cache)
    monkeypatch.setattr(measure, 'calculate_ssim', score)
    tamper(cache)
    result = measure.measure(model, [one], 4, cache).scores['One']
    assert result.psnr == {**whole.scores['One'].psnr, 'a': 77}
    assert result.ssim == whole.scores['One'].ssim


def test_pictures_that_were_deleted_are_made_again(tmp_path, model):
    cache = str(tmp_path / 'cache')
    (one,) = sets_of(tmp_path, 'One')
    folder = measure.measure(model, [one], 4, cache).scores['One'].folder
    os.remove(os.path.join(folder, 'b.png'))
    measure.measure(model, [one], 4, cache)
    assert sorted(os.listdir(folder)) == ['a.png', 'b.png']


@pytest.mark.parametrize('contents', ['', '{', '[]', '{"psnr": {}}'])
def test_a_damaged_cache_is_measured_anew(contents, tmp_path, model):
    cache = tmp_path / 'cache'
    (one,) = sets_of(tmp_path, 'One')
    first = measure.measure(model, [one], 4, str(cache))
    for path in cache.rglob('*.json'):
        path.write_text(contents)
    assert measure.measure(model, [one], 4, str(cache)).scores == first.scores


def test_latency_is_kept_for_each_device(tmp_path, model, monkeypatch):
    cache = str(tmp_path / 'cache')
    first = measure.measure(model, [], 4, cache)
    assert measure.measure(model, [], 4, cache).latency == first.latency
    monkeypatch.setattr(latency, 'device_name', lambda: 'another machine')
    monkeypatch.setattr(latency, 'latency', lambda network, scale: 3.0)
    assert measure.measure(model, [], 4, cache).latency == 3
    monkeypatch.undo()
    assert measure.measure(model, [], 4, cache).latency == first.latency


def test_a_network_can_be_timed_later(tmp_path, model):
    cache = str(tmp_path / 'cache')
    first = measure.measure(model, [], 4, cache, timed=False)
    assert first.latency is None and first.params
    timed = measure.measure(model, [], 4, cache)
    assert timed.latency > 0 and timed.params == first.params
    assert measure.measure(model, [], 4, cache, timed=False).latency == timed.latency


def test_names_that_are_no_file_names(tmp_path, model):
    (one,) = sets_of(tmp_path, 'One')
    result = measure.measure(model, [one], 4, str(tmp_path / 'cache'), name='a/b: c*')
    assert result.method == 'a/b: c*'
    assert len(os.listdir(tmp_path / 'cache')) == 1


def test_a_diverged_network_is_refused(tmp_path):
    network = small_lkdn()
    network.c1.bias.data[0] = float('nan')
    path = save(network, tmp_path / 'a.pth')
    with pytest.raises(InputError, match='a.pth gives NaN or infinite pixels for a of One'):
        measure.measure(path, sets_of(tmp_path, 'One'), 4, str(tmp_path / 'cache'))


def test_too_little_memory_names_the_picture(tmp_path, model, monkeypatch):
    (one,) = sets_of(tmp_path, 'One')
    cache = str(tmp_path / 'cache')
    measure.measure(model, [], 4, cache)
    loaded = measure.load(model)
    forward = type(loaded.network).forward

    def out_of_memory(network, x):
        if x.is_meta:
            return forward(network, x)
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 TiB')

    monkeypatch.setattr(type(loaded.network), 'forward', out_of_memory)
    with pytest.raises(InputError, match='the memory of .* does not suffice for a of One .12×10 pixels.'):
        measure.measure(loaded, [one], 4, cache)
    # One that is too large to be timed for 1280×720 may do for the pictures all the same.
    assert measure.measure(loaded, [], 4, str(tmp_path / 'new')).latency is None


def test_a_folder_that_cannot_be_written(tmp_path, model):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='file/.* could not be written'):
        measure.measure(model, sets_of(tmp_path, 'One'), 4, str(tmp_path / 'file'))


def test_official_checkpoints_on_set5(shared, tmp_path):
    """The figures of the authors' code; bicubic of RGB, where the field's 28.42 and 0.8104 are of Y alone."""
    set5 = read_benchmark(shared / 'data' / 'Set5', 4)
    figures = {}
    for name in ('LKDN_x4', 'LKDN-S_x4', 'LKDN-S_del_rep_x4'):
        result = measure.measure(str(shared / 'official' / f'{name}.pth'), [set5], 4, str(tmp_path))
        figures[name] = (round(result.scores['Set5'].mean_psnr, 3), round(result.scores['Set5'].mean_ssim, 4))
        assert result.params == (321992 if name == 'LKDN_x4' else 129177)
    # 0.001 dB: a picture's rounding to 8 bits falls otherwise on other machines and torch versions.
    assert figures['LKDN_x4'] == (pytest.approx(32.3948, abs=1e-3), pytest.approx(0.8980, abs=1e-4))
    assert figures['LKDN-S_x4'] == (pytest.approx(32.1058, abs=1e-3), pytest.approx(0.8938, abs=1e-4))
    assert figures['LKDN-S_del_rep_x4'] == figures['LKDN-S_x4']
    bicubic = measure.measure_bicubic([set5], 4, str(tmp_path)).scores['Set5']
    assert bicubic.mean_psnr == pytest.approx(28.4302, abs=1e-3)
    assert bicubic.mean_ssim == pytest.approx(0.8111, abs=1e-4)
