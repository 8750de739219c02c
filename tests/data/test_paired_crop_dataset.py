import multiprocessing
import os
import pickle
import random
import shutil
from collections import Counter

import cv2
import lmdb
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.transforms import augment
from basicsr.utils.lmdb_util import LmdbMaker
from torch.utils.data import DataLoader

from lkdn_basicsr.data.paired_crop_dataset import PairedCropDataset, sub_image_origins
from lkdn_basicsr.data.sampler import SampleIndex, StreamSampler
from lkdn_basicsr.errors import InputError
from tests.support.images import prepare, random_image, sub_images, write_folder

SCALE, GT_SIZE, CROP_SIZE, STEP = 2, 16, 24, 12
WINDOWS = {'crop_size': CROP_SIZE, 'step': STEP}
every_kind = pytest.mark.parametrize('kind', ['raw', 'lmdb', 'folder'])


def make_images(sizes=((30, 42), (26, 24), (36, 33))):
    """Return GT and LQ images; each LQ pixel is its row, its column, and the number of its image, in GT 2x2 times."""
    lq = {f'{i:04d}': np.stack([*np.mgrid[:h, :w], np.full((h, w), i)], 2) for i, (h, w) in enumerate(sizes)}
    lq = {name: image.astype(np.uint8) for name, image in lq.items()}
    return {name: image.repeat(SCALE, 0).repeat(SCALE, 1) for name, image in lq.items()}, lq


def make_raw(root, images):
    parts = root.with_suffix('.parts')
    write_folder(parts / 'images', images)
    (store,) = prepare(parts, parts / 'images', scales=())
    os.rename(store, root)


def make_lmdb(root, images):
    maker = LmdbMaker(str(root), map_size=2**24)
    for name, image in images.items():
        maker.put(cv2.imencode('.png', image[..., ::-1])[1].tobytes(), name, image.shape)
    maker.close()


def cut_all(images, crop_size, step):
    return {key: cut for name in images for key, cut in sub_images(name, images[name], crop_size, step).items()}


def make_pair(root, kind, gt=None, lq=None, **more):
    """Write images (dictionaries by name) in one of the forms, and return the options to validate on them."""
    if gt is None:
        gt, lq = make_images()
    root.mkdir(exist_ok=True)
    suffix = '' if kind == 'folder' else '.lmdb'
    for side, images in (('gt', gt), ('lq', lq)):
        {'raw': make_raw, 'folder': write_folder, 'lmdb': make_lmdb}[kind](root / f'{side}{suffix}', images)
    opt = {'name': 'pairs', 'type': 'PairedCropDataset', 'scale': SCALE, 'phase': 'val'}
    opt |= {f'dataroot_{side}': str(root / f'{side}{suffix}') for side in ('gt', 'lq')}
    return opt | {'io_backend': {'type': 'disk' if kind == 'folder' else 'lmdb'}} | more


def train_opt(opt, **more):
    return {**opt, 'phase': 'train', 'gt_size': GT_SIZE, 'use_hflip': True, 'use_rot': True, **more}


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    """Options of a raw store pair."""
    return make_pair(tmp_path_factory.mktemp('raw'), 'raw')


@pytest.fixture(scope='module')
def basicsr_lmdb(tmp_path_factory):
    """Options of the PNG sub-image LMDBs that BasicSR makes of the same images."""
    gt, lq = make_images()
    cuts = cut_all(gt, CROP_SIZE, STEP), cut_all(lq, CROP_SIZE // SCALE, STEP // SCALE)
    return make_pair(tmp_path_factory.mktemp('png'), 'lmdb', *cuts)


def origin_and_flips(patch):
    """Return image, top, left, hflip, vflip, rot90 of an LQ patch (3, size, size) of such an image."""
    rows, columns, number = patch
    rot90 = rows[0, 0] != rows[0, -1]
    if rot90:
        rows, columns = rows.T, columns.T
    flips = columns[0, 0] > columns[0, -1], rows[0, 0] > rows[-1, 0], rot90
    return (int(number[0, 0]), int(rows.min()), int(columns.min()), *map(int, flips))


def sample_indices(dataset, count):
    return list(StreamSampler(len(dataset), 0, 1, ratio=-(-count // len(dataset)), total_iter=count))


def samples_of(loader):
    keys = ('lq_path', 'lq', 'gt')
    return [(path, *(x.numpy().tobytes() for x in pair)) for b in loader for path, *pair in zip(*(b[k] for k in keys))]


def pixels(sample, key='gt'):
    return sample[key].numpy().transpose(1, 2, 0)


def numbers(dataset):
    return [int(dataset[i]['lq'][2, 0, 0]) for i in range(len(dataset))]


def equal(sample, other):
    return all(torch.equal(sample[key], other[key]) for key in ('lq', 'gt'))


@every_kind
def test_training_samples_are_matching_crops_in_bytes(tmp_path, kind):
    dataset = build_dataset(train_opt(make_pair(tmp_path / kind, kind)))
    for index in sample_indices(dataset, 50):
        sample = dataset[index]
        lq, gt = sample['lq'].numpy(), sample['gt'].numpy()
        assert lq.shape == (3, GT_SIZE // SCALE, GT_SIZE // SCALE) and lq.dtype == gt.dtype == np.uint8
        assert sample['lq'].is_contiguous() and sample['gt'].is_contiguous()
        assert np.array_equal(gt, lq.repeat(SCALE, 1).repeat(SCALE, 2))
        number, top, left, *_ = origin_and_flips(lq)
        assert f'{number:04d}' in sample['lq_path'] and f'{number:04d}' in sample['gt_path']
        assert np.array_equal(np.unique(lq[0]), np.arange(top, top + 8))
        assert np.array_equal(np.unique(lq[1]), np.arange(left, left + 8))


def test_flips_give_the_pixels_of_basicsr(raw):
    """All eight combinations, on crops that BasicSR's own ``augment`` flipped by the same flags."""
    dataset, images = PairedCropDataset(train_opt(raw)), make_images()[1]
    states = {}
    while len(states) < 8:
        state = random.getstate()
        _, flags = augment(np.zeros((1, 1, 3), np.uint8), return_status=True)
        states[tuple(map(int, flags))] = state
    seen = set()
    for index in sample_indices(dataset, 100):
        lq = dataset[index]['lq'].numpy()
        number, top, left, *flags = origin_and_flips(lq)
        crop = images[f'{number:04d}'][top : top + 8, left : left + 8].copy()
        random.setstate(states[tuple(flags)])
        assert np.array_equal(augment(crop), lq.transpose(1, 2, 0))
        seen.add(tuple(flags))
    assert len(seen) == 8


@pytest.mark.parametrize('hflip, rot', [(False, False), (True, False), (False, True)])
def test_flips_are_drawn_only_where_enabled(raw, hflip, rot):
    dataset = PairedCropDataset(train_opt(raw, use_hflip=hflip, use_rot=rot))
    flags = {origin_and_flips(dataset[index]['lq'].numpy())[3:] for index in sample_indices(dataset, 100)}
    assert flags == {(h, v, r) for h in range(hflip + 1) for v in range(rot + 1) for r in range(rot + 1)}


@every_kind
def test_validation_yields_complete_images(tmp_path, kind):
    gt, lq = make_images()
    dataset = PairedCropDataset(make_pair(tmp_path, kind))
    assert len(dataset) == 3
    for i, name in enumerate(gt):
        assert np.array_equal(pixels(dataset[i]), gt[name]) and np.array_equal(pixels(dataset[i], 'lq'), lq[name])


def test_validation_crops_gt_images_that_are_not_multiples_of_the_scale(tmp_path):
    gt, lq = make_images()
    padded = {name: np.pad(image, ((0, 1), (0, 1), (0, 0))) for name, image in gt.items()}
    assert np.array_equal(pixels(PairedCropDataset(make_pair(tmp_path, 'folder', padded, lq))[0]), gt['0000'])


def test_float_samples_are_those_of_basicsr(tmp_path):
    opt = make_pair(tmp_path, 'folder', {'a': random_image(40, 48)}, {'a': random_image(20, 24, seed=1)})
    normalized = {'mean': [0.4, 0.5, 0.6], 'std': [0.2, 0.3, 0.4]}
    for more, tolerance in (({'float32': True}, 0), ({'color': 'y'}, 1e-7), (normalized, 0)):
        sample = PairedCropDataset({**opt, **more})[0]
        expected = PairedImageDataset({**opt, **more, 'io_backend': {'type': 'disk'}})[0]
        for key in ('lq', 'gt'):
            # Luma is a sum of three products, added up in another order there; the rest is the same arithmetic.
            torch.testing.assert_close(sample[key], expected[key], rtol=0, atol=tolerance)


def test_windows_are_the_sub_images_that_basicsr_cuts(raw, basicsr_lmdb):
    """Index by index and sample by sample, a raw store gives what the PNG sub-image LMDB gives."""
    of_raw, of_png = PairedCropDataset(train_opt(raw, **WINDOWS)), PairedCropDataset(train_opt(basicsr_lmdb))
    assert len(of_raw) == len(of_png)
    assert all(equal(of_raw[index], of_png[index]) for index in sample_indices(of_raw, 300))


def crop_probabilities(dataset_of_basicsr, lq):
    """The exact distribution of BasicSR's crops: a sub-image, then an origin inside it, then three flips."""
    cut = cut_all(lq, CROP_SIZE // SCALE, STEP // SCALE)
    assert sorted(cut) == [path['lq_path'] for path in dataset_of_basicsr.paths]
    size = GT_SIZE // SCALE
    origins = CROP_SIZE // SCALE - size + 1
    probabilities = Counter()
    for patch in cut.values():
        for top, left, *flags in np.ndindex(origins, origins, 2, 2, 2):
            origin = origin_and_flips(patch[top : top + size, left : left + size].transpose(2, 0, 1))[:3]
            probabilities[*origin, *flags] += 1 / (len(cut) * origins**2 * 8)
    return probabilities


@pytest.mark.slow
def test_crops_have_the_distribution_of_basicsr(tmp_path, raw, basicsr_lmdb):
    """Sub-image, place and flips, against the exact distribution; BasicSR's own dataset passes the same test."""
    random.seed(0)
    # Copies, for lmdb opens an environment once in a process.
    roots = {
        key: shutil.copytree(basicsr_lmdb[key], f'{tmp_path}/{key}.lmdb') for key in ('dataroot_gt', 'dataroot_lq')
    }
    basicsr = PairedImageDataset(train_opt(basicsr_lmdb, **roots, io_backend={'type': 'lmdb'}))
    dataset = PairedCropDataset(train_opt(raw, **WINDOWS))
    probabilities = crop_probabilities(basicsr, make_images()[1])
    total = 2 * len(probabilities) // len(dataset) * len(dataset)
    indices = sample_indices(dataset, total)
    counts = Counter(origin_and_flips(dataset[index]['lq'].numpy()) for index in indices)
    counts_of_basicsr = Counter(origin_and_flips((basicsr[index]['lq'].numpy() * 255).round()) for index in indices)
    freedom = len(probabilities) - 1
    assert len(counts) > 0.8 * len(probabilities)
    for observed in (counts, counts_of_basicsr):
        assert set(observed) <= set(probabilities)
        chi_square = sum((observed[key] - total * p) ** 2 / (total * p) for key, p in probabilities.items())
        # Chi-square has mean `freedom` and deviation sqrt(2 * freedom): within five deviations. Below the mean too, for
        # indices are drawn without repetition.
        assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_an_image_smaller_than_a_window_is_one_window(tmp_path):
    gt, lq = make_images([(8, 100), (12, 9)])
    dataset = PairedCropDataset(train_opt(make_pair(tmp_path, 'raw', gt, lq), crop_size=160, step=40))
    assert dataset.windows[:, 0].tolist() == [0, 0, 1]  # 100 LQ columns: windows of 80 from 0 and from 20
    origins = {origin_and_flips(dataset[index]['lq'].numpy())[:3] for index in sample_indices(dataset, 3000)}
    assert origins == {(0, 0, left) for left in range(93)} | {(1, top, left) for top in range(5) for left in (0, 1)}


@pytest.mark.parametrize('crop_size, step, thresh', [(480, 240, 0), (480, 240, 99), (48, 7, 3), (5, 9, 0)])
def test_origins_follow_the_rule_for_every_length(crop_size, step, thresh):
    """Step while a complete window fits, then add one flush with the end if more than thresh is left."""
    for length in range(1, 4 * crop_size + 3):
        expected = [start for start in range(0, length, step) if start + crop_size <= length]
        if expected and length - expected[-1] - crop_size > thresh:
            expected.append(length - crop_size)
        origins = sub_image_origins(length, crop_size, step, thresh)
        assert origins.dtype == np.int64 and origins.tolist() == expected


@pytest.mark.filterwarnings('ignore:This DataLoader will create 8 worker processes')
@pytest.mark.parametrize('num_workers', [1, 2, 8])
def test_a_thousand_samples_are_the_same_for_any_number_of_workers(raw, num_workers):
    dataset = PairedCropDataset(train_opt(raw, **WINDOWS))

    def stream(workers):
        sampler = StreamSampler(len(dataset), 5, 20, ratio=100, total_iter=50)
        return samples_of(DataLoader(dataset, 20, sampler=sampler, num_workers=workers))

    one = stream(0)
    assert len(one) == 1000 and len(set(one)) > 500
    assert stream(num_workers) == one


def test_crops_depend_on_seed_and_position(raw):
    dataset = PairedCropDataset(train_opt(raw))
    indices = [SampleIndex(0, position, seed) for position in range(10) for seed in range(10)]
    assert len({dataset[index]['lq'].numpy().tobytes() for index in indices}) > 60


@pytest.mark.slow
@pytest.mark.parametrize('kind, method', [('raw', 'spawn'), ('lmdb', 'forkserver')])
def test_workers_may_be_spawned(tmp_path, kind, method):
    dataset = PairedCropDataset(train_opt(make_pair(tmp_path, kind)))
    expected = samples_of(DataLoader(dataset, 4, sampler=sample_indices(dataset, 8)))  # the map is open here as well
    context = multiprocessing.get_context(method)
    loader = DataLoader(dataset, 4, sampler=sample_indices(dataset, 8), num_workers=1, multiprocessing_context=context)
    assert samples_of(loader) == expected


def test_a_pickled_dataset_contains_no_images(raw):
    dataset, index = PairedCropDataset(train_opt(raw)), SampleIndex(1, 99, 3)
    sample, pickled = dataset[index], pickle.dumps(dataset)
    assert equal(pickle.loads(pickled)[index], sample) and len(pickled) < 10_000


def test_plain_indices_draw_from_pythons_random(raw):
    """As yielded by other samplers; BasicSR seeds ``random`` in every worker."""
    dataset = PairedCropDataset(train_opt(raw))
    random.seed(1)
    first = [dataset[0]['lq'] for _ in range(20)]
    random.seed(1)
    assert all(torch.equal(dataset[0]['lq'], lq) for lq in first)
    assert len({lq.numpy().tobytes() for lq in first}) > 5


@pytest.mark.parametrize('kind', ['raw', 'lmdb'])
def test_training_and_validation_share_a_store(tmp_path, kind):
    """lmdb refuses to open an environment twice in a process; LQ and GT may also be the same one."""
    opt = make_pair(tmp_path, kind)
    train, val = PairedCropDataset(train_opt(opt)), PairedCropDataset(opt)
    same = PairedCropDataset({**opt, 'scale': 1, 'dataroot_lq': opt['dataroot_gt']})[0]
    assert train[SampleIndex(0, 0, 0)]['gt'].shape == (3, 16, 16)
    assert val[0]['gt'].shape == (3, 60, 84) and torch.equal(same['lq'], same['gt'])
    assert next(iter(DataLoader(val, 1, num_workers=1)))['gt'].shape == (1, 3, 60, 84)


@every_kind
def test_a_meta_info_file_selects_images(tmp_path, kind):
    (tmp_path / 'meta.txt').write_text('0002.png (72,66,3)\n0000.png (60,84,3)\n')
    dataset = PairedCropDataset(make_pair(tmp_path, kind, meta_info_file=str(tmp_path / 'meta.txt')))
    assert sorted(numbers(dataset)) == [0, 2]


def test_images_are_found_by_template_and_by_complete_key(tmp_path):
    opt = make_pair(tmp_path, 'folder', filename_tmpl='{}x2')
    for path in (tmp_path / 'lq').iterdir():
        path.rename(path.with_stem(f'{path.stem}x2'))
    (tmp_path / 'gt' / '.DS_Store').write_bytes(b'')
    (tmp_path / 'gt' / 'readme.txt').write_text('not an image')
    dataset = PairedCropDataset(opt)
    assert numbers(dataset) == [0, 1, 2] and dataset[0]['lq_path'] == str(tmp_path / 'lq' / '0000x2.png')
    # Keys that differ after a dot are different images.
    gt, lq = ({f'a.{name}': image for name, image in side.items()} for side in make_images())
    assert numbers(PairedCropDataset(make_pair(tmp_path, 'lmdb', gt, lq))) == [0, 1, 2]


def refuse(opt, *words, at_once=True):
    """Assert that the dataset, or one of its samples, is refused in one line that contains these words."""
    with pytest.raises(InputError) as error:
        dataset = PairedCropDataset(opt)
        for i in range(0 if at_once else len(dataset)):
            dataset[i]
    message = str(error.value)
    assert '\n' not in message and all(word in message for word in words), message


def test_folders_and_templates_that_cannot_be_used_are_named(tmp_path):
    opt, raw = make_pair(tmp_path / 'a', 'folder'), make_pair(tmp_path / 'b', 'raw')
    none, empty, meta = (str(tmp_path / name) for name in ('none', 'empty', 'meta.txt'))
    os.mkdir(empty)
    refuse({**opt, 'dataroot_gt': none}, 'dataroot_gt', none)
    refuse({**opt, 'dataroot_lq': empty}, empty, 'no image')
    refuse({**opt, 'dataroot_lq': None}, 'dataroot_lq')
    refuse({**opt, 'io_backend': {'type': 'lmdb'}}, opt['dataroot_gt'], 'LMDB')
    refuse({**opt, 'io_backend': {'type': 'raw'}}, opt['dataroot_gt'])
    refuse({**opt, 'io_backend': {'type': 'petrel'}}, 'petrel', 'raw, lmdb or disk')
    refuse({**opt, 'meta_info_file': meta}, meta)
    refuse({**opt, 'dataroot_gt': raw['dataroot_gt']}, opt['dataroot_lq'], 'same form')
    for template in ('{x4}', 'x4', '{', '{1}'):  # the first is in the official option file of LKDN-S
        refuse({**opt, 'filename_tmpl': template}, 'filename_tmpl', template)


@every_kind
def test_images_without_a_pair_or_smaller_than_the_patch_are_named(tmp_path, kind):
    gt, lq = make_images()
    one_less = {name: image for name, image in lq.items() if name != '0001'}
    renamed = {('other' if name == '0001' else name): image for name, image in lq.items()}
    refuse(make_pair(tmp_path / 'a', kind, gt, one_less), '0001', '3 GT and 2 LQ')
    refuse(make_pair(tmp_path / 'b', kind, gt, renamed), '0001', '3 GT and 3 LQ')
    del gt['0001']
    refuse(make_pair(tmp_path / 'c', kind, gt, lq), '0001', '2 GT and 3 LQ')
    small = make_pair(tmp_path / 'd', kind, *make_images([(30, 42), (7, 30)]))
    refuse(train_opt(small), '0001', '14x60', 'gt_size 16')


@pytest.mark.parametrize('phase', ['train', 'val'])
@every_kind
def test_pairs_of_another_scale_are_named(tmp_path, kind, phase):
    gt, lq = make_images()
    lq['0001'] = lq['0001'][:-3]
    refuse(train_opt(make_pair(tmp_path, kind, gt, lq), phase=phase), '0001', '52x48', '23x24', 'scale')


@pytest.mark.parametrize('damage', ['empty', 'cut', 'text', 'header', 'middle'])
@pytest.mark.parametrize('phase', ['train', 'val'])
def test_corrupt_files_are_named(tmp_path, phase, damage):
    opt = train_opt(make_pair(tmp_path, 'folder'), phase=phase)
    path = tmp_path / 'lq' / '0001.png'
    data = path.read_bytes()
    damaged = {'empty': b'', 'cut': data[: len(data) // 2], 'text': b'not an image'}
    damaged |= {'header': bytes(20) + data[20:], 'middle': data[:60] + bytes(40) + data[100:]}
    path.write_bytes(damaged[damage])
    # Only damage in the middle of a file needs the image to be decoded; the rest is detected before training starts.
    refuse(opt, str(path), 'damaged', at_once=damage != 'middle')


@pytest.mark.slow  # the worker is waited for when the loader is collected
@pytest.mark.parametrize('num_workers', [0, 1])
def test_errors_in_a_worker_are_reported_in_one_line(tmp_path, num_workers):
    dataset = PairedCropDataset(train_opt(make_pair(tmp_path, 'folder')))
    for path in (tmp_path / 'lq').iterdir():
        path.write_bytes(b'overwritten after the start')
    with pytest.raises(InputError) as error:
        list(DataLoader(dataset, 1, num_workers=num_workers))
    assert str(error.value).startswith(str(tmp_path)) and '\n' not in str(error.value)


@pytest.mark.parametrize('key, word', [(b'0001', 'damaged'), (b'0003', 'missing')])
def test_corrupt_and_missing_entries_of_an_lmdb_are_named(tmp_path, key, word):
    opt = train_opt(make_pair(tmp_path, 'lmdb'))
    with lmdb.open(opt['dataroot_lq']) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b'0001')
        transaction.put(key, b'junk')
    refuse(opt, '0001', opt['dataroot_lq'], word, at_once=False)


def test_an_unfinished_lmdb_is_refused(tmp_path):
    """As BasicSR's scripts leave it when they are killed or fail at a damaged image."""
    opt = make_pair(tmp_path, 'lmdb')
    meta_info = tmp_path / 'lq.lmdb' / 'meta_info.txt'
    meta_info.write_text(meta_info.read_text() + '0003.png (20,20,3) 1\n')
    refuse(opt, opt['dataroot_lq'], '3 of the 4')
    meta_info.write_text('')
    refuse(opt, str(meta_info), 'lists no images')


def test_sizes_that_do_not_fit_are_refused(raw):
    refuse(train_opt(raw, gt_size=15), 'gt_size: 15', 'multiple of the scale, 2')
    refuse(train_opt(raw, gt_size=None), 'gt_size')
    refuse(train_opt(raw, crop_size=25), 'crop_size: 25')
    refuse(train_opt(raw, step=0), 'step: 0')
    refuse(train_opt(raw, crop_size=12), 'crop_size: 12', 'gt_size: 16')
