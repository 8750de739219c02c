import pickle

import lmdb
import numpy as np
import pytest
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.single_image_dataset import SingleImageDataset

from lkdn_basicsr.data.paired_crop_dataset import PairedCropDataset
from lkdn_basicsr.data.wrapped_dataset import name_errors
from lkdn_basicsr.errors import InputError
from tests.support.images import prepare, write_images


@pytest.fixture
def opt(tmp_path):
    write_images(tmp_path / 'gt', ['a', 'b'], (48, 60))
    write_images(tmp_path / 'lq', ['a', 'b'], (12, 15))
    opt = dict(name='pairs', phase='val', scale=4, dataroot_gt=str(tmp_path / 'gt'), dataroot_lq=str(tmp_path / 'lq'))
    return dict(opt, io_backend=dict(type='disk'))


def position(dataset, name):
    return next(i for i, paths in enumerate(dataset.paths) if name in str(paths))


@pytest.mark.parametrize('dataset_class', [PairedImageDataset, SingleImageDataset])
def test_errors_name_the_image(tmp_path, opt, dataset_class):
    dataset = name_errors(dataset_class(opt))
    assert len(dataset) == 2 and dataset.opt is opt and 'lq' in pickle.loads(pickle.dumps(dataset))[0]
    (tmp_path / 'lq/b.png').write_bytes(b'not an image')
    with pytest.raises(InputError, match=r'^\S*/lq/b.png is damaged or not an image'):
        dataset[position(dataset, 'b.png')]
    (tmp_path / 'lq/b.png').unlink()
    with pytest.raises(InputError, match=r'^\S*/lq/b.png does not exist'):
        dataset[position(dataset, 'b.png')]
    assert dataset[position(dataset, 'a.png')]['lq'].shape == (3, 12, 15)


def test_errors_name_the_key_of_an_lmdb(tmp_path, opt):
    gt, lq = prepare(tmp_path / 'out', opt['dataroot_gt'], opt['dataroot_lq'], format='png', crop_size=24, step=24)
    with lmdb.open(lq, lock=False) as environment, environment.begin(write=True) as transaction:
        transaction.put(b'b_s001', np.zeros(50, np.uint8).tobytes())
    opt.update(dataroot_gt=gt, dataroot_lq=lq, io_backend=dict(type='lmdb'))
    dataset = name_errors(PairedImageDataset(opt))
    with pytest.raises(InputError, match='^b_s001 of the dataset pairs cannot be read'):
        dataset[position(dataset, 'b_s001')]


def test_other_datasets_keep_their_errors(opt):
    dataset = PairedCropDataset(opt)
    assert name_errors(dataset) is dataset
