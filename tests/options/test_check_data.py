import lmdb
import numpy as np
import pytest
from PIL import Image

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_data import check_data, picture_size
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.option_file import read_option_file
from lkdn_basicsr.options.parse import parse_options, set_derived_options, set_num_gpu
from tests.support.option_files import train_options, write_options, write_pictures


@pytest.fixture
def opt(tmp_path):
    write_pictures(tmp_path)
    return train_options(tmp_path)


def parse(tmp_path, opt):
    path = write_options(tmp_path / 'x.yml', opt)
    return parse_options(str(tmp_path), True, ['-opt', path])[0]


def refused(tmp_path, opt):
    with pytest.raises(InputError) as caught:
        parse(tmp_path, opt)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def cut(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(b'this is no picture'),
        lambda path: cut(path, 0.5),
        lambda path: cut(path, 0.99),
        lambda path: cut(path, 0.01),
        flip,
    ],
    ids=['empty', 'text', 'half', 'end missing', 'header missing', 'flipped bit'],
)
@pytest.mark.parametrize('kind', ['PairedImageDataset', 'PairedCropDataset'])
def test_damaged_pictures_are_named(tmp_path, opt, damage, kind):
    opt['datasets']['train'].update(type=kind, float32=True)
    if kind == 'PairedImageDataset':
        del opt['datasets']['train']['float32']
    damage(tmp_path / 'lq' / 'p2x2.png')
    assert 'p2x2.png' in refused(tmp_path, opt)


def test_damage_is_seen_in_sets_too_large_to_read(tmp_path, opt, monkeypatch):
    monkeypatch.setattr('lkdn_basicsr.options.check_data.READ_WHOLE_BELOW', 0)
    parse(tmp_path, opt)
    cut(tmp_path / 'gt' / 'p1.png', 0.9)
    assert 'p1.png' in refused(tmp_path, opt)


@pytest.mark.parametrize('whole', [True, False])
def test_sizes_are_those_that_opencv_reads(tmp_path, whole):
    import cv2

    pixels = np.zeros((5, 9, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    Image.fromarray(pixels).save(tmp_path / 'b.jpg')
    Image.fromarray(pixels).save(tmp_path / 'c.jpg', exif=turned)
    Image.fromarray(pixels).save(tmp_path / 'd.bmp')
    (tmp_path / 'e.png').write_bytes((tmp_path / 'a.png').read_bytes() + b'rest')
    for path in tmp_path.iterdir():
        assert picture_size(str(path), whole) == cv2.imread(str(path)).shape[:2], path.name


def test_folders_that_do_not_pair(tmp_path, opt):
    (tmp_path / 'lq' / 'p9x2.png').write_bytes((tmp_path / 'lq' / 'p0x2.png').read_bytes())
    assert 'p9x2.png' in refused(tmp_path, opt)
    (tmp_path / 'lq' / 'p9x2.png').unlink()
    (tmp_path / 'gt' / 'p3.png').rename(tmp_path / 'gt' / 'p8.png')
    assert 'p8x2.png' in refused(tmp_path, opt)
    (tmp_path / 'gt' / 'p8.png').rename(tmp_path / 'gt' / 'p3.png')
    (tmp_path / 'lq' / 'p3x2.png').rename(tmp_path / 'lq' / 'p3x2.jpg')
    assert 'p3x2.png' in refused(tmp_path, opt)


def test_empty_folder_and_folder_of_folders(tmp_path, opt):
    (tmp_path / 'none').mkdir()
    opt['datasets']['val']['dataroot_gt'] = str(tmp_path / 'none')
    assert 'datasets:val:dataroot_gt' in refused(tmp_path, opt)
    (tmp_path / 'none' / 'X2').mkdir()
    assert 'for example X2' in refused(tmp_path, opt)
    opt['datasets']['val']['dataroot_gt'] = str(tmp_path / 'gt' / 'p0.png')
    assert 'is not a folder' in refused(tmp_path, opt)


def test_pictures_of_another_scale_are_named(tmp_path, opt):
    Image.new('RGB', (13, 13)).save(tmp_path / 'lq' / 'p1x2.png')
    said = refused(tmp_path, opt)
    assert 'p1.png is 26x24' in said and 'p1x2.png is 13x13' in said


def test_a_test_set_may_have_a_rest_that_the_scale_does_not_divide(tmp_path, opt):
    (tmp_path / 'odd').mkdir()
    for i in range(4):
        Image.new('RGB', (27, 25)).save(tmp_path / 'odd' / f'p{i}.png')
    opt['datasets']['val']['dataroot_gt'] = str(tmp_path / 'odd')
    parse(tmp_path, opt)
    opt['datasets']['train']['dataroot_gt'] = str(tmp_path / 'odd')
    assert 'differ in scale' in refused(tmp_path, opt)


def test_meta_info_file(tmp_path, opt):
    meta = tmp_path / 'meta.txt'
    opt['datasets']['train']['meta_info_file'] = str(meta)
    meta.write_text('p0.png (24,26,3)\np2.png (24,26,3)\n')
    parse(tmp_path, opt)
    meta.write_text('p0.png (24,26,3)\n')
    assert '1 pictures give only 1 samples' in refused(tmp_path, opt)
    opt['datasets']['train']['dataset_enlarge_ratio'] = 2
    parse(tmp_path, opt)
    meta.write_text('p0.png (24,26,3)\np7.png (24,26,3)\n')
    assert 'names p7.png' in refused(tmp_path, opt)
    meta.write_text('')
    assert 'is empty' in refused(tmp_path, opt)


def test_a_batch_is_that_of_all_ranks(tmp_path, opt):
    source = read_option_file(write_options(tmp_path / 'x.yml', opt))
    check_schema(source, is_train=True)
    set_num_gpu(source.opt)
    set_derived_options(source.opt, str(tmp_path), is_train=True)
    check_data(source, world_size=2)
    with pytest.raises(InputError, match='4 pictures give only 4 samples for a batch of 6'):
        check_data(source, world_size=3)


def write_lmdb(path, names, size, meta=None):
    with lmdb.open(str(path), map_size=1 << 22) as env, env.begin(write=True) as transaction:
        for name in names:
            transaction.put(name.encode(), b'x' * 9000)
    lines = [f'{name}.png ({size[0]},{size[1]},3) 1\n' for name in (names if meta is None else meta)]
    (path / 'meta_info.txt').write_text(''.join(lines))


@pytest.fixture
def lmdb_opt(tmp_path, opt):
    write_lmdb(tmp_path / 'gt.lmdb', ['a', 'b', 'c'], (24, 26))
    write_lmdb(tmp_path / 'lq.lmdb', ['a', 'b', 'c'], (12, 13))
    train = opt['datasets']['train']
    train.update(
        dataroot_gt=str(tmp_path / 'gt.lmdb'), dataroot_lq=str(tmp_path / 'lq.lmdb'), io_backend={'type': 'lmdb'}
    )
    return opt


def test_a_sound_lmdb_passes_and_can_be_opened_afterwards(tmp_path, lmdb_opt):
    parse(tmp_path, lmdb_opt)
    lmdb.open(str(tmp_path / 'gt.lmdb'), readonly=True).close()


def test_lmdb_that_was_not_finished(tmp_path, lmdb_opt):
    (tmp_path / 'gt.lmdb' / 'meta_info.txt').write_text('')
    assert 'gt.lmdb, which names no pictures' in refused(tmp_path, lmdb_opt)
    (tmp_path / 'gt.lmdb' / 'meta_info.txt').unlink()
    assert 'has no meta_info.txt' in refused(tmp_path, lmdb_opt)


@pytest.mark.parametrize(
    'side, change, said',
    [
        ('gt', lambda path: write_lmdb(path, [], (24, 26), ['a', 'b', 'c', 'd']), 'holds 3 pictures, but'),
        ('lq', lambda path: write_lmdb(path, ['d'], (12, 13), 'abcd'), 'd is in'),
        ('lq', lambda path: write_lmdb(path, [], (6, 6), 'abc'), 'differ in scale: a is 26x24, a is 6x6'),
        ('lq', lambda path: write_lmdb(path, ['d'], (12, 13), ['a', 'b', 'c', 'a.x']), 'names a twice'),
        ('gt', lambda path: cut(path / 'data.mdb', 0.5), 'is cut short'),
        ('gt', lambda path: (path / 'data.mdb').write_bytes(b'x' * 100), 'is damaged'),
        ('gt', lambda path: (path / 'data.mdb').unlink(), 'has no data.mdb'),
    ],
)
def test_lmdb_that_is_wrong(tmp_path, lmdb_opt, side, change, said):
    change(tmp_path / f'{side}.lmdb')
    assert said in refused(tmp_path, lmdb_opt)


def test_lmdb_named_as_a_folder(tmp_path, lmdb_opt):
    lmdb_opt['datasets']['train']['io_backend']['type'] = 'disk'
    assert 'set io_backend:type to lmdb' in refused(tmp_path, lmdb_opt)
