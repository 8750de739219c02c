import json
import os
import random
import re
import shutil
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from basicsr.data.paired_image_dataset import PairedImageDataset

from lkdn_basicsr.data import imresize
from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.data.prepare.stores import StoreOptions, prepare_df2k
from lkdn_basicsr.data.prepare.verify import verify
from lkdn_basicsr.data.raw_store import RawStore
from lkdn_basicsr.errors import InputError
from tests.support.images import flipped, prepare, sub_images, write_folder, write_images


def write_lr(folder, images):
    write_folder(folder, {name: imresize(image, 1 / 4) for name, image in images.items()}, 'x4')


@pytest.fixture
def images(tmp_path):
    """Name to RGB pixels of the images in the folder `hr`."""
    return write_images(tmp_path / 'hr', ['b', 'a', 'a_1', 'c'])


@pytest.fixture
def hr(tmp_path, images):
    return str(tmp_path / 'hr')


def test_one_run_makes_the_stores_of_all_scales(tmp_path, hr, images):
    lines = []
    stores = prepare(tmp_path / 'out', hr, scales=(4, 2, 3), workers=2, log=lines.append)
    names = 'HR.lmdb LR_bicubic_X2.lmdb LR_bicubic_X3.lmdb LR_bicubic_X4.lmdb'.split()
    assert [os.path.basename(path) for path in stores] == names
    assert sorted(os.listdir(tmp_path / 'out')) == ['.lock', *names]
    assert json.loads(Path(stores[0], 'index.json').read_text())['channel_order'] == 'rgb'
    for scale, path in enumerate(stores, 1):
        store = RawStore(path)
        assert store.names == ['a_1', 'a', 'b', 'c']  # the order of a_1_s001.png, a_s001.png, ...
        assert store.index.settings['role'] == ('gt' if scale == 1 else 'lq')
        assert store.index.settings['scale'] == scale
        for n, name in enumerate(store.names):
            np.testing.assert_array_equal(store.image(n), imresize(images[name], 1 / scale))
        verify(path)
    assert any('4 LR images at x3 were made' in line for line in lines)


def test_sides_are_cropped_to_multiples_of_every_scale_and_counted(tmp_path):
    images = write_images(tmp_path / 'hr', ['even'], (48, 60)) | write_images(tmp_path / 'hr', ['odd'], (47, 61))
    lines = []
    gt, x2, x3 = map(RawStore, prepare(tmp_path / 'out', tmp_path / 'hr', scales=(2, 3), log=lines.append))
    assert gt.shapes.tolist() == [[48, 60, 3], [42, 60, 3]]
    np.testing.assert_array_equal(gt.image(1), images['odd'][:42, :60])
    np.testing.assert_array_equal(x3.image(1), imresize(images['odd'][:42, :60], 1 / 3))
    assert (gt.shapes[:, :2] == 2 * x2.shapes[:, :2]).all()
    assert any(line.startswith('1 images were cropped') and 'multiples of 6' in line for line in lines)


@pytest.mark.parametrize('nested', [True, False])
def test_given_lr_images_are_used(tmp_path, hr, images, nested):
    flipped = {name: image[::-1] for name, image in images.items()}
    write_lr(tmp_path / ('lr/X4' if nested else 'lr'), flipped)
    _, lq = prepare(tmp_path / 'out', hr, tmp_path / 'lr')
    np.testing.assert_array_equal(RawStore(lq).image(1), imresize(flipped['a'], 1 / 4))
    with pytest.raises(InputError, match='pixels differ'):
        prepare(tmp_path / 'again', hr, tmp_path / 'lr', verify_lr=True)


@pytest.mark.parametrize('edges', ['mirror', 'repeat'])
def test_verify_lr_accepts_both_generations_of_matlab(tmp_path, hr, images, edges):
    images |= write_images(Path(hr), ['odd'], (37, 53), seed=1)
    lr = {name: imresize(image, 1 / 4, edges) for name, image in images.items()}
    write_folder(tmp_path / 'lr', lr)
    _, lq = prepare(tmp_path / 'out', hr, tmp_path / 'lr', verify_lr=True)
    assert RawStore(lq).shapes[-1].tolist() == [9, 13, 3]
    lr['b'][2, 3, 1] ^= 1
    write_folder(tmp_path / 'lr', lr)
    with pytest.raises(InputError, match=r'1 problem .*b\.png is not MATLAB.*: 1 of 180 pixels differ'):
        prepare(tmp_path / 'again', hr, tmp_path / 'lr', verify_lr=True)


def test_all_problems_are_reported_together_and_nothing_is_written(tmp_path, hr, images):
    del images['c']
    write_lr(tmp_path / 'lr', images | {'zzz': images['a']})
    write_folder(tmp_path / 'lr', {'ax4': images['a'][:9, :9]})
    os.truncate(f'{tmp_path}/lr/bx4.png', 200)
    cv2.imwrite(f'{hr}/deep.png', np.zeros((20, 20, 3), np.uint16))
    cv2.imwrite(f'{hr}/tiny.png', np.zeros((3, 60, 3), np.uint8))
    with pytest.raises(InputError) as error:
        prepare(tmp_path / 'out', hr, tmp_path / 'lr', workers=2)
    first, *problems = re.split(r' \(\d\) ', str(error.value))
    assert first.startswith('8 problems with the images') and not (tmp_path / 'out').exists()
    reasons = ['ax4.png is 9x9, but', 'bx4.png is damaged or not an image (it is cut short)', 'c.png has no LR']
    reasons += ['deep.png has no LR', 'deep.png has 16 bits', 'tiny.png has no LR', 'tiny.png is too small (60x3)']
    for words in [*reasons, 'zzzx4.png belongs to no HR']:
        assert sum(words in problem for problem in problems) == 1, words
    assert len(problems) == 8


def test_many_problems_are_logged_a_line_each(tmp_path):
    (tmp_path / 'hr').mkdir()
    for n in range(30):
        (tmp_path / f'hr/{n}\n.png').touch()
    lines = []
    with pytest.raises(InputError, match=r'30 problems .* \(10\) .* … and 20 more$'):
        prepare(tmp_path / 'out', tmp_path / 'hr', log=lines.append)
    assert {line.split(' is damaged')[0] for line in lines[-30:]} == {rf'{tmp_path}/hr/{n}\n.png' for n in range(30)}


def test_names_that_are_not_utf_8_are_refused(tmp_path, hr):
    name = os.fsdecode(b'\xff')
    with pytest.raises(InputError, match=r'--out: \S+/\\xff is not UTF-8'):
        prepare(tmp_path / name, hr)
    shutil.copy(f'{hr}/a.png', f'{hr}/{name}.png')
    with pytest.raises(
        InputError, match=r'1 problem .* \S+/\\xff.png \(60x48\) has a name that is not UTF-8.*; rename it'
    ):
        prepare(tmp_path / 'out', hr)
    assert not (tmp_path / 'out').exists() and not (tmp_path / name).exists()


def test_missing_lr_images_can_be_made(tmp_path, hr, images):
    expected, lines = imresize(images.pop('c'), 1 / 4), []
    write_lr(tmp_path / 'lr', images)
    _, lq = prepare(tmp_path / 'out', hr, tmp_path / 'lr', allow_missing=True, log=lines.append)
    np.testing.assert_array_equal(RawStore(lq).image(3), expected)
    assert any('Continued although' in line and 'cx4' in line for line in lines)
    assert any('1 LR images at x4 were made' in line for line in lines)


@pytest.mark.slow
def test_df2k_must_be_complete_and_missing_images_are_listed(tmp_path):
    names = [f'{n:04d}' for n in range(1, 801) if n not in (3, 4, 5, 800)]
    images = write_images(tmp_path / 'DIV2K/DIV2K_train_HR', names, (8, 8))
    write_lr(tmp_path / 'DIV2K/DIV2K_train_LR_bicubic/X4', images)
    write_images(tmp_path / 'Flickr2K/Flickr2K_HR', ['000001'], (8, 12))
    out, div2k, flickr2k = (str(tmp_path / name) for name in ('out', 'DIV2K', 'Flickr2K'))
    incomplete = StoreOptions(workers=2, allow_missing=True)
    with pytest.raises(InputError) as error:
        prepare_df2k(out, div2k, flickr2k, StoreOptions(workers=2))
    for words in ('lacks 0003 to 0005', 'lacks 0800', 'lacks 000002 to 002650', '--allow-missing'):
        assert words in str(error.value)
    gt, lq = prepare_df2k(out, div2k, flickr2k, incomplete)
    assert os.path.basename(gt) == 'DF2K_train_HR.lmdb' and os.path.basename(lq) == 'DF2K_train_LR_bicubic_X4.lmdb'
    assert len(RawStore(gt)) == 797 and RawStore(lq).index.settings['lr'] == '796 given, others imresize'
    # The HR folder itself may be given; a single dataset has stores of its own.
    gt, _ = prepare_df2k(out, f'{div2k}/DIV2K_train_HR', options=incomplete)
    assert os.path.basename(gt) == 'DIV2K_train_HR.lmdb'
    write_images(tmp_path / 'DIV2K/DIV2K_train_HR', ['0801'], (8, 8))
    with pytest.raises(InputError, match='0801.png is not a training image of DIV2K'):
        prepare_df2k(f'{out}2', div2k, flickr2k, incomplete)


def test_the_png_store_is_what_basicsr_makes_and_reads(tmp_path, hr, images):
    gt, lq = prepare(tmp_path / 'out', hr, format='png', crop_size=24, step=16, thresh=4, workers=2)
    assert [os.path.basename(path) for path in (gt, lq)] == ['HR_sub.lmdb', 'LR_bicubic_X4_sub.lmdb']
    expected = ({}, {})
    for name, image in images.items():
        expected[0].update(sub_images(name, image, 24, 16, 4))
        expected[1].update(sub_images(name, imresize(image, 1 / 4), 6, 4, 1))
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
        for key, of_store in zip(('gt', 'lq'), expected, strict=True):
            image = (sample[key].numpy() * 255).round().transpose(1, 2, 0)
            np.testing.assert_array_equal(image, of_store[sample['gt_path']])


def test_png_names_and_sizes_that_basicsr_cannot_read_are_refused(tmp_path, hr):
    for name in ('with space', 'with.dot', 'größe'):
        shutil.copy(f'{hr}/a.png', f'{hr}/{name}.png')
    with pytest.raises(InputError, match="(BasicSR's LMDB reader cannot read.*){3}"):
        prepare(tmp_path / 'out', hr, format='png', crop_size=24, step=16)
    assert len(RawStore(prepare(tmp_path / 'raw', hr)[0])) == 7
    with pytest.raises(InputError, match=r'a\.png \(60x48\) is smaller than a sub-image \(52x52\)'):
        prepare(tmp_path / 'out', hr, format='png', crop_size=52, step=16)
    with pytest.raises(InputError, match='--step 15 is not a multiple of the scale 4'):
        prepare(tmp_path / 'out', hr, format='png', crop_size=24, step=15)


def test_pipes_are_refused_and_not_opened(tmp_path, hr):
    os.mkfifo(f'{hr}/pipe.png')
    with pytest.raises(InputError, match='1 problem with the images.*pipe.png is not a regular file'):
        prepare(tmp_path / 'out', hr)


@pytest.mark.parametrize('options', [{}, dict(format='png', crop_size=24, step=16)])
def test_verify_names_the_image_with_a_flipped_byte(tmp_path, hr, options):
    gt, _ = prepare(tmp_path / 'out', hr, **options)
    data = Path(gt, 'data.mdb')
    content, (places, page_size) = data.read_bytes(), locate(data)
    key, (begin, size) = list(places.items())[2]
    name = key.decode() if options else 'b'
    data.write_bytes(flipped(content, begin + size // 2))
    with pytest.raises(InputError) as error:
        verify(gt)
    assert f'(1 of its entries); copy or prepare it again: {name}' in str(error.value)
    if size > page_size:
        data.write_bytes(flipped(content, begin + size))
        with pytest.raises(InputError, match=f'{name}: it is followed by bytes of no entry'):
            verify(gt)
    data.write_bytes(content)
    verify(gt)


def test_verify_detects_missing_entries_and_listings(tmp_path, hr):
    gt, _ = prepare(tmp_path / 'out', hr, format='png', crop_size=24, step=16)
    with lmdb.open(gt, lock=False) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b'b_s003')
    with open(f'{gt}/meta_info.txt', 'a', encoding='utf-8') as file:
        file.write('more.png (24,24,3) 1\n')
    with pytest.raises(InputError, match=r'meta_info.txt does not list.*b_s003: it is missing'):
        verify(gt)
