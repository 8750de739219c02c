"""Measuring: scores are BasicSR's for the saved images, and valid results in the cache are reused."""

import json
import os
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import img2tensor, tensor2img

from lkdn_basicsr.data import imresize
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate import complexity, latency
from lkdn_basicsr.evaluate import measure as module
from lkdn_basicsr.evaluate.benchmarks import read_benchmark
from lkdn_basicsr.evaluate.loading.load import load
from lkdn_basicsr.evaluate.measure import measure, measure_bicubic
from tests.support.networks import randomize, save_checkpoint, small_lkdn
from tests.support.results import make_benchmark


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with a model, and costs for an output of 96×64; 1280×720 takes a second on a CPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(complexity, 'OUTPUT', (64, 96))
    save_checkpoint(small_lkdn(), 'small.pth')


@pytest.fixture
def one():
    return make_benchmark(Path('One'))


def change_score():
    """Write a PSNR of 77 dB for image p0 into the cache, which no measurement gives."""
    for path in Path('cache').rglob('One.json'):
        record = json.loads(path.read_text())
        record['psnr']['p0'] = 77
        path.write_text(json.dumps(record))


def test_saved_images_and_costs_are_those_of_the_network(one):
    result = measure('small.pth', [one], 4, 'cache')
    assert (result.method, result.scale) == ('small', 4)
    network = small_lkdn()
    for name in one.images:
        with torch.no_grad():
            expected = tensor2img(network(img2tensor(one.read(name)[1] / np.float32(255))[None]))
        assert np.array_equal(cv2.imread(os.path.join(result.scores['One'].folder, f'{name}.png')), expected)
    assert result.params == sum(parameter.numel() for parameter in network.parameters())
    assert result.multi_adds == complexity.count(network, 4)[1]
    assert result.latency > 0


def test_bicubic_is_that_of_matlab(one):
    result = measure_bicubic([one], 4, 'cache')
    assert (result.method, result.params, result.multi_adds, result.latency) == ('Bicubic', None, None, None)
    sr = cv2.imread(os.path.join(result.scores['One'].folder, 'p0.png'))
    assert np.array_equal(sr, imresize(one.read('p0')[1], 4))


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_scores_are_those_of_basicsr_with_a_border_of_the_scale(scale):
    benchmark = make_benchmark(Path('One'), [(36, 48)], scale)
    path = save_checkpoint(small_lkdn(upscale=scale), 'small.pth')
    scores = measure(path, [benchmark], scale, 'cache').scores['One']
    sr, (gt, _) = cv2.imread(os.path.join(scores.folder, 'p0.png')), benchmark.read('p0')
    expected = [score(sr, gt, scale, test_y_channel=True) for score in (calculate_psnr, calculate_ssim)]
    assert [scores.psnr['p0'], scores.ssim['p0']] == expected


def test_results_in_the_cache_are_not_measured_again(one, monkeypatch):
    measure('small.pth', [one], 4, 'cache', name='a/b: c*')  # which is no file name
    change_score()
    monkeypatch.setattr(latency, 'latency', None)  # must not be called
    monkeypatch.setattr(complexity, 'count', None)
    two = make_benchmark(Path('Two'))
    again = measure('small.pth', [one, two], 4, 'cache', name='renamed')
    assert again.method == 'renamed' and len(os.listdir('cache')) == 1
    assert again.scores['One'].psnr['p0'] == 77
    assert 5 < again.scores['Two'].psnr['p0'] < 50
    assert again.params and again.multi_adds and again.latency


@pytest.mark.parametrize('change', ['network', 'protocol', 'GTmod4', 'LRbicx4'])
def test_results_that_are_no_longer_valid_are_measured_again(change, one, monkeypatch):
    first = measure('small.pth', [one], 4, 'cache').scores['One']
    measure_bicubic([one], 4, 'cache')
    change_score()
    if change == 'network':
        save_checkpoint(randomize(small_lkdn(), seed=2), 'small.pth')
    elif change == 'protocol':
        monkeypatch.setattr(module, 'PROTOCOL', -1)
    else:
        path = os.path.join(one.folder, change, 'p1.png')
        cv2.imwrite(path, 255 - cv2.imread(path))
        one = read_benchmark(one.folder, 4)
    second = measure('small.pth', [one], 4, 'cache').scores['One']
    assert second.psnr['p0'] != 77
    assert (second.psnr['p0'] == first.psnr['p0'] and second.folder == first.folder) == (change != 'network')
    assert (measure_bicubic([one], 4, 'cache').scores['One'].psnr['p0'] == 77) == (change == 'network')


def test_a_killed_measurement_continues(monkeypatch):
    three = make_benchmark(Path('One'), [(40, 48)] * 3)
    expected = measure('small.pth', [three], 4, 'other').scores['One']

    def killed_at_p1(sr, gt, **options):
        if np.array_equal(gt, three.read('p1')[0]):
            raise KeyboardInterrupt
        return calculate_ssim(sr, gt, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, 'calculate_ssim', killed_at_p1)
        measure('small.pth', [three], 4, 'cache')
    change_score()
    scores = measure('small.pth', [three], 4, 'cache').scores['One']
    assert scores.psnr == {**expected.psnr, 'p0': 77}
    assert scores.ssim == expected.ssim


DAMAGED = ['', '{', '[]', '3', '"x"', '\xff', '[' * 100_000, '{"protocol": ' + '1' * 5000 + '}', '{"psnr": {}}']


@pytest.mark.parametrize('contents', DAMAGED, ids=lambda contents: contents[:9])
def test_a_damaged_cache_is_replaced(contents, one, caplog):
    first = measure('small.pth', [one], 4, 'cache').scores
    for path in Path('cache').rglob('*.json'):
        path.write_bytes(contents.encode('latin-1'))
    assert measure('small.pth', [one], 4, 'cache').scores == first
    for name in ('One', 'cost'):
        assert f'{name}.json is damaged (' in caplog.text
    caplog.clear()
    assert measure('small.pth', [one], 4, 'cache').scores == first and not caplog.text


EDITS = {
    'One': [
        {'psnr': []},
        {'ssim': {'p0': 'x'}},
        {'psnr': {'p0': None}},
        {'ssim': {'p0': float('nan')}},
        {'psnr': {'p0': 1e308}},
    ],
    'cost': [{'params': 'x'}, {'multi_adds': 1.5}, {'latency': None}, {'latency': {'CPU': '1'}}, {'params': 10**300}],
}


@pytest.mark.parametrize('name, edit', [(name, edit) for name, edits in EDITS.items() for edit in edits])
def test_an_edited_cache_is_replaced(name, edit, one, caplog):
    first = measure('small.pth', [one], 4, 'cache')
    (path,) = Path('cache').rglob(f'{name}.json')
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    again = measure('small.pth', [one], 4, 'cache')
    assert (again.scores, again.params, again.multi_adds) == (first.scores, first.params, first.multi_adds)
    assert f'{name}.json is damaged (it is not a record of results)' in caplog.text


def test_a_damaged_image_in_the_cache_is_replaced(one, caplog):
    first = measure('small.pth', [one], 4, 'cache').scores['One']
    expected = [Path(first.folder, f'p{i}.png').read_bytes() for i in range(2)]
    Path(first.folder, 'p0.png').write_bytes(expected[0][:-20])
    cv2.imwrite(f'{first.folder}/p1.png', np.zeros((3, 4, 3), np.uint8))
    assert measure('small.pth', [one], 4, 'cache').scores['One'] == first
    assert [Path(first.folder, f'p{i}.png').read_bytes() for i in range(2)] == expected
    assert 'p0.png' in caplog.text and 'p1.png has another size than One/GTmod4/p1.png' in caplog.text
    Path(first.folder, 'p1.png').unlink()
    assert measure('small.pth', [one], 4, 'cache').scores['One'] == first


def test_latency_is_stored_per_device_and_can_be_measured_later(monkeypatch):
    untimed = measure('small.pth', [], 4, 'cache', timed=False)
    assert untimed.latency is None and untimed.params
    timed = measure('small.pth', [], 4, 'cache')
    assert timed.latency > 0 and timed.params == untimed.params
    with monkeypatch.context() as patch:
        patch.setattr(latency, 'device_name', lambda: 'another machine')
        patch.setattr(latency, 'latency', lambda network, scale: 3.0)
        assert measure('small.pth', [], 4, 'cache').latency == 3
    for is_timed in (True, False):
        assert measure('small.pth', [], 4, 'cache', timed=is_timed).latency == timed.latency


def test_a_diverged_network_is_refused(one):
    network = small_lkdn()
    network.c1.bias.data[0] = 3e38
    network.c1.weight.data.fill_(3e38)
    path = save_checkpoint(network, 'a.pth')
    with pytest.raises(InputError, match='a.pth gives NaN or infinite pixels for p0 of One'):
        measure(path, [one], 4, 'cache')


def test_out_of_memory(one, monkeypatch):
    measure('small.pth', [], 4, 'cache')
    loaded = load('small.pth')
    forward = type(loaded.network).forward

    def out_of_memory(network, x):
        if x.is_meta:
            return forward(network, x)
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 TiB')

    monkeypatch.setattr(type(loaded.network), 'forward', out_of_memory)
    with pytest.raises(InputError, match='the memory of .* does not suffice for p0 of One .12×10 pixels.'):
        measure(loaded, [one], 4, 'cache')
    # A network that is too large for 1280×720 is not timed, but memory may suffice for the images.
    assert measure(loaded, [], 4, 'new').latency is None


def test_an_illegal_memory_access_is_not_taken_for_lack_of_memory(one, monkeypatch):
    loaded = load('small.pth')
    error = RuntimeError('CUDA error: an illegal memory access was encountered')
    monkeypatch.setattr(type(loaded.network), 'forward', Mock(side_effect=error))
    with pytest.raises(InputError, match='small.pth fails for p0 of One .CUDA error: an illegal memory access'):
        module._upscale(loaded, one.read('p0')[1], 'p0 of One')


def test_a_gpu_that_cannot_be_used_is_reported_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(torch, 'ones', Mock(side_effect=RuntimeError('The NVIDIA driver on your system is too old')))
    with pytest.raises(InputError, match='driver on your system is too old.*CUDA_VISIBLE_DEVICES= in the environment'):
        latency.device.__wrapped__()  # which the result of a former call would hide
