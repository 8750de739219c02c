import os
import random
import shutil
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from lkdn_basicsr.data import imresize
from lkdn_basicsr.data.prepare.stores import StoreOptions, format_ranges, prepare_df2k, prepare_folder
from lkdn_basicsr.data.prepare.verify import verify
from lkdn_basicsr.data.raw_store import RawStore
from lkdn_basicsr.errors import InputError
from tests.support.images import sub_images, write_images


def prepare(out, hr, lr=None, **options):
    return prepare_folder(str(out), str(hr), lr and str(lr), StoreOptions(**options))


def write_lr(folder, images, scale):
    os.makedirs(folder)
    for name, image in images.items():
        cv2.imwrite(f'{folder}/{name}x{scale}.png', imresize(image, 1 / scale)[..., ::-1])


@pytest.fixture
def hr(tmp_path):
    write_images(tmp_path / 'hr', ['b', 'a', 'a_1', 'c'])
    return str(tmp_path / 'hr')


def pixels(folder, name):
    return cv2.imread(f'{folder}/{name}.png')[..., ::-1]


def test_one_run_makes_the_stores_of_all_scales(tmp_path, hr):
    lines = []
    stores = prepare(tmp_path / 'out', hr, scales=(4, 2, 3), workers=2, log=lines.append)
    assert [os.path.basename(path) for path in stores] == [
        'HR.lmdb',
        'LR_bicubic_X2.lmdb',
        'LR_bicubic_X3.lmdb',
        'LR_bicubic_X4.lmdb',
    ]
    assert sorted(os.listdir(tmp_path / 'out')) == sorted(os.path.basename(path) for path in stores)
    gt = RawStore(stores[0])
    assert gt.names == ['a_1', 'a', 'b', 'c']  # the order of a_1_s001.png, a_s001.png, ...
    assert gt.index['role'] == 'gt' and gt.index['scale'] == 1 and gt.index['channel_order'] == 'rgb'
    for scale, path in zip((2, 3, 4), stores[1:], strict=True):
        lq = RawStore(path)
        assert lq.names == gt.names and lq.index['role'] == 'lq' and lq.index['scale'] == scale
        for n, name in enumerate(gt.names):
            np.testing.assert_array_equal(gt.image(n), pixels(hr, name))
            np.testing.assert_array_equal(lq.image(n), imresize(pixels(hr, name), 1 / scale))
    for path in stores:
        verify(path)
    assert any('4 LR images at x3 were made' in line for line in lines)


def test_sides_are_cropped_to_multiples_of_every_scale_and_counted(tmp_path):
    images = write_images(tmp_path / 'hr', ['even'], (48, 60)) | write_images(tmp_path / 'hr', ['odd'], (47, 61))
    lines = []
    gt, x2, x3 = map(RawStore, prepare(tmp_path / 'out', tmp_path / 'hr', scales=(2, 3), workers=1, log=lines.append))
    assert gt.shapes.tolist() == [[48, 60, 3], [42, 60, 3]]
    np.testing.assert_array_equal(gt.image(1), images['odd'][:42, :60])
    np.testing.assert_array_equal(x3.image(1), imresize(images['odd'][:42, :60], 1 / 3))
    assert (gt.shapes[:, :2] == 2 * x2.shapes[:, :2]).all()
    assert any(line.startswith('1 images were cropped') and 'multiples of 6' in line for line in lines)


@pytest.mark.parametrize('nested', [True, False])
def test_given_lr_images_are_used(tmp_path, hr, nested):
    flipped = {name: pixels(hr, name)[::-1] for name in ('a', 'a_1', 'b', 'c')}
    write_lr(tmp_path / ('lr/X4' if nested else 'lr'), flipped, 4)
    _, lq = prepare(tmp_path / 'out', hr, tmp_path / 'lr', workers=1)
    np.testing.assert_array_equal(RawStore(lq).image(1), imresize(flipped['a'], 1 / 4))
    with pytest.raises(InputError, match='pixels differ'):
        prepare(tmp_path / 'again', hr, tmp_path / 'lr', workers=1, verify_lr=True)


@pytest.mark.parametrize('edges', ['mirror', 'repeat'])
def test_verify_lr_accepts_both_generations_of_matlab(tmp_path, hr, edges):
    os.makedirs(tmp_path / 'lr')
    write_images(Path(hr), ['odd'], (37, 53), seed=1)
    for name in ('a', 'a_1', 'b', 'c', 'odd'):
        cv2.imwrite(f'{tmp_path}/lr/{name}.png', imresize(pixels(hr, name), 1 / 4, edges)[..., ::-1])
    _, lq = prepare(tmp_path / 'out', hr, tmp_path / 'lr', workers=1, verify_lr=True)
    assert RawStore(lq).shapes[-1].tolist() == [9, 13, 3]
    damaged = pixels(f'{tmp_path}/lr', 'b').copy()
    damaged[2, 3, 1] ^= 1
    cv2.imwrite(f'{tmp_path}/lr/b.png', damaged[..., ::-1])
    with pytest.raises(InputError, match=r'(?s)1 problem .*b\.png is not MATLAB.*: 1 of 180 pixels differ'):
        prepare(tmp_path / 'again', hr, tmp_path / 'lr', workers=1, verify_lr=True)


def test_all_problems_are_reported_together_and_nothing_is_written(tmp_path, hr):
    write_lr(tmp_path / 'lr', {name: pixels(hr, name) for name in ('a', 'a_1', 'b')}, 4)
    write_lr(tmp_path / 'other', {'zzz': pixels(hr, 'a')}, 4)
    shutil.move(tmp_path / 'other/zzzx4.png', tmp_path / 'lr')
    cv2.imwrite(f'{tmp_path}/lr/ax4.png', pixels(hr, 'a')[:9, :9])
    os.truncate(f'{tmp_path}/lr/bx4.png', 200)
    cv2.imwrite(f'{hr}/deep.png', np.zeros((20, 20, 3), np.uint16))
    cv2.imwrite(f'{hr}/tiny.png', np.zeros((3, 60, 3), np.uint8))
    with pytest.raises(InputError) as error:
        prepare(tmp_path / 'out', hr, tmp_path / 'lr', workers=2)
    lines = str(error.value).split('\n')
    assert lines[0].startswith('8 problems with the images') and len(lines) == 9
    for words in (
        'ax4.png is 9x9, but',
        'bx4.png is damaged or not an image (it is cut short)',
        'c.png has no LR',
        'deep.png has no LR',
        'tiny.png has no LR',
        'zzzx4.png belongs to no HR',
        'deep.png has 16 bits',
        'tiny.png is too small (60x3)',
    ):
        assert sum(words in line for line in lines) == 1, words
    assert not (tmp_path / 'out').exists()


def test_missing_lr_images_can_be_made(tmp_path, hr):
    write_lr(tmp_path / 'lr', {name: pixels(hr, name) for name in ('a', 'a_1', 'b')}, 4)
    lines = []
    _, lq = prepare(str(tmp_path / 'out'), hr, tmp_path / 'lr', workers=1, allow_missing=True, log=lines.append)
    np.testing.assert_array_equal(RawStore(lq).image(3), imresize(pixels(hr, 'c'), 1 / 4))
    assert any('Continued although' in line and 'cx4' in line for line in lines)
    assert any('1 LR images at x4 were made' in line for line in lines)


@pytest.mark.slow
def test_df2k_must_be_complete_and_missing_images_are_listed(tmp_path):
    names = [f'{n:04d}' for n in range(1, 801) if n not in (3, 4, 5, 800)]
    images = write_images(tmp_path / 'DIV2K/DIV2K_train_HR', names, (8, 8))
    write_lr(tmp_path / 'DIV2K/DIV2K_train_LR_bicubic/X4', images, 4)
    write_images(tmp_path / 'Flickr2K/Flickr2K_HR', ['000001'], (8, 12))
    folders = dict(div2k=str(tmp_path / 'DIV2K'), flickr2k=str(tmp_path / 'Flickr2K'))
    with pytest.raises(InputError) as error:
        prepare_df2k(str(tmp_path / 'out'), **folders, options=StoreOptions(workers=2))
    assert 'lacks 0003 to 0005' in str(error.value) and 'lacks 0800' in str(error.value)
    assert 'lacks 000002 to 002650' in str(error.value) and '--allow-missing' in str(error.value)
    gt, lq = prepare_df2k(str(tmp_path / 'out'), **folders, options=StoreOptions(workers=2, allow_missing=True))
    assert os.path.basename(gt) == 'DF2K_train_HR.lmdb' and os.path.basename(lq) == 'DF2K_train_LR_bicubic_X4.lmdb'
    assert len(RawStore(gt)) == 797 and RawStore(lq).index['settings']['lr'] == '796 given, others imresize'
    # The HR folder itself may be given; a single dataset has stores of its own.
    gt, _ = prepare_df2k(
        str(tmp_path / 'out'),
        div2k=str(tmp_path / 'DIV2K/DIV2K_train_HR'),
        options=StoreOptions(workers=1, allow_missing=True),
    )
    assert os.path.basename(gt) == 'DIV2K_train_HR.lmdb'
    write_images(tmp_path / 'DIV2K/DIV2K_train_HR', ['0801'], (8, 8))
    with pytest.raises(InputError, match='0801.png is not a training image of DIV2K'):
        prepare_df2k(str(tmp_path / 'more'), **folders, options=StoreOptions(workers=2, allow_missing=True))


def test_consecutive_numbers_are_joined():
    assert format_ranges(['0003', '0004', '0007', '0009', '0010']) == ['0003 to 0004', '0007', '0009 to 0010']


def test_the_png_store_is_what_basicsr_makes_and_reads(tmp_path, hr):
    from basicsr.data.paired_image_dataset import PairedImageDataset

    gt, lq = prepare(tmp_path / 'out', hr, format='png', crop_size=24, step=16, thresh=4, workers=2)
    assert [os.path.basename(path) for path in (gt, lq)] == ['HR_sub.lmdb', 'LR_bicubic_X4_sub.lmdb']
    expected = ({}, {})
    for name in ('a', 'a_1', 'b', 'c'):
        expected[0].update(sub_images(name, pixels(hr, name), 24, 16, 4))
        expected[1].update(sub_images(name, imresize(pixels(hr, name), 1 / 4), 6, 4, 1))
    for path, size in ((gt, 24), (lq, 6)):
        lines = open(f'{path}/meta_info.txt', encoding='utf-8').read().splitlines()
        assert lines == [f'{name} ({size},{size},3) 1' for name in sorted(f'{key}.png' for key in expected[0])]
        verify(path)
    opt = dict(dataroot_gt=gt, dataroot_lq=lq, io_backend=dict(type='lmdb'), scale=4, phase='train', gt_size=24)
    dataset = PairedImageDataset(dict(opt, use_hflip=False, use_rot=False))
    assert len(dataset) == len(expected[0]) == 4 * 9
    random.seed(0)
    for n in range(len(dataset)):
        sample = dataset[n]
        for key, images in zip(('gt', 'lq'), expected, strict=True):
            image = (sample[key].numpy() * 255).round().transpose(1, 2, 0)
            np.testing.assert_array_equal(image, images[sample['gt_path']])


def test_png_names_and_sizes_that_basicsr_cannot_read_are_refused(tmp_path, hr):
    for name in ('with space', 'with.dot', 'größe'):
        shutil.copy(f'{hr}/a.png', f'{hr}/{name}.png')
    with pytest.raises(InputError) as error:
        prepare(tmp_path / 'out', hr, format='png', crop_size=24, step=16, workers=1)
    assert str(error.value).count("BasicSR's LMDB reader cannot read") == 3
    assert len(RawStore(prepare(tmp_path / 'raw', hr, workers=1)[0])) == 7
    with pytest.raises(InputError, match=r'a\.png \(60x48\) is smaller than a sub-image \(52x52\)'):
        prepare(tmp_path / 'out', hr, format='png', crop_size=52, step=16, workers=1)
    with pytest.raises(InputError, match='--step 15 is not a multiple of the scale 4'):
        prepare(tmp_path / 'out', hr, format='png', crop_size=24, step=15, workers=1)


@pytest.mark.parametrize('options', [{}, dict(format='png', crop_size=24, step=16)])
def test_verify_names_the_image_with_a_flipped_byte(tmp_path, hr, options):
    gt, _ = prepare(tmp_path / 'out', hr, workers=1, **options)
    with lmdb.open(gt, readonly=True, lock=False) as environment, environment.begin() as transaction:
        key, value = list(transaction.cursor())[2]
    data = Path(gt, 'data.mdb')
    content = data.read_bytes()
    # Small values may be in the file twice: LMDB copies a page before it changes it.
    middle = len(value) // 2
    data.write_bytes(content.replace(value, value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]))
    with pytest.raises(InputError) as error:
        verify(gt)
    name = 'b' if not options else key.decode()
    assert f'\n  {name}' in str(error.value) and str(error.value).count('\n') == 1
    behind = content.index(value) + len(value)
    data.write_bytes(content[:behind] + b'x' + content[behind + 1 :])
    if len(value) > 4096:
        with pytest.raises(InputError, match=f'{name}: it is followed by bytes of no entry'):
            verify(gt)
    data.write_bytes(content)
    verify(gt)


def test_verify_detects_missing_entries_and_listings(tmp_path, hr):
    gt, _ = prepare(tmp_path / 'out', hr, format='png', crop_size=24, step=16, workers=1)
    with lmdb.open(gt, lock=False) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b'b_s003')
    with open(f'{gt}/meta_info.txt', 'a', encoding='utf-8') as file:
        file.write('more.png (24,24,3) 1\n')
    with pytest.raises(InputError) as error:
        verify(gt)
    assert 'b_s003: it is missing' in str(error.value) and 'meta_info.txt' in str(error.value)
