import shutil

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_data import check_data
from lkdn_basicsr.options.option_file import OptionFile
from tests.support.images import flipped


def cut(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


DAMAGES = {
    'empty': lambda path: path.write_bytes(b''),
    'text': lambda path: path.write_bytes(b'this is not an image'),
    'half': lambda path: cut(path, 0.5),
    'end missing': lambda path: cut(path, 0.99),
    'header only': lambda path: cut(path, 0.01),
    'flipped bit': lambda path: path.write_bytes(flipped(path.read_bytes(), path.stat().st_size // 2)),
}


@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize('kind', [{}, {'type': 'PairedCropDataset', 'float32': True}], ids=['image', 'crop'])
def test_damaged_images_are_named(tmp_path, opt, refused, damage, kind):
    opt['datasets']['train'].update(kind)
    DAMAGES[damage](tmp_path / 'lq/p2x2.png')
    assert 'p2x2.png' in refused(opt)


def test_files_cut_short_are_found_in_datasets_too_large_to_read(tmp_path, opt, parse, refused, monkeypatch):
    monkeypatch.setattr('lkdn_basicsr.options.check_data.DECODE_BELOW', 0)
    parse(opt)
    cut(tmp_path / 'gt/p1.png', 0.9)
    assert 'p1.png' in refused(opt)


@pytest.mark.parametrize('mode', ['L', 'I;16', 'RGBA', 'CMYK'])
def test_images_of_any_mode_pass(tmp_path, opt, mode, parse):
    extension = 'jpg' if mode == 'CMYK' else 'png'
    for folder, size, suffix in (('any_gt', (26, 24), ''), ('any_lq', (13, 12), 'x2')):
        (tmp_path / folder).mkdir()
        Image.new(mode, size).save(tmp_path / folder / f'p{suffix}.{extension}')
    opt['datasets']['val'].update(dataroot_gt=str(tmp_path / 'any_gt'), dataroot_lq=str(tmp_path / 'any_lq'))
    parse(opt)


def test_images_without_a_pair_and_of_another_scale_are_named(tmp_path, opt, refused):
    (tmp_path / 'lq/p9x2.png').write_bytes((tmp_path / 'lq/p0x2.png').read_bytes())
    assert 'p9x2.png' in refused(opt)
    (tmp_path / 'lq/p9x2.png').unlink()
    (tmp_path / 'gt/p3.png').rename(tmp_path / 'gt/p8.png')
    assert 'p8x2.png' in refused(opt)
    (tmp_path / 'gt/p8.png').rename(tmp_path / 'gt/p3.png')
    (tmp_path / 'lq/p3x2.png').rename(tmp_path / 'lq/p3x2.jpg')
    assert 'p3x2.png' in refused(opt)
    (tmp_path / 'lq/p3x2.jpg').rename(tmp_path / 'lq/p3x2.png')
    Image.new('RGB', (13, 13)).save(tmp_path / 'lq/p1x2.png')
    message = refused(opt)
    assert 'p1.png is 26x24' in message and 'p1x2.png is 13x13' in message


def test_empty_folder_and_folder_of_folders(tmp_path, opt, refused):
    (tmp_path / 'none').mkdir()
    opt['datasets']['val']['dataroot_gt'] = str(tmp_path / 'none')
    assert 'datasets:val:dataroot_gt' in refused(opt)
    (tmp_path / 'none/X2').mkdir()
    assert 'for example X2' in refused(opt)
    opt['datasets']['val']['dataroot_gt'] = str(tmp_path / 'gt/p0.png')
    assert 'is not a folder' in refused(opt)


def test_a_benchmark_may_have_a_remainder_that_the_scale_does_not_divide(tmp_path, opt, parse, refused):
    (tmp_path / 'odd').mkdir()
    for i in range(4):
        Image.new('RGB', (27, 25)).save(tmp_path / 'odd' / f'p{i}.png')
    opt['datasets']['val']['dataroot_gt'] = str(tmp_path / 'odd')
    parse(opt)
    opt['datasets']['train']['dataroot_gt'] = str(tmp_path / 'odd')
    assert 'differ in scale' in refused(opt)


def test_meta_info_file(tmp_path, opt, parse, refused):
    meta = tmp_path / 'meta.txt'
    opt['datasets']['train']['meta_info_file'] = str(meta)
    meta.write_text('p0.png (24,26,3)\np2.png (24,26,3)\n')
    parse(opt)
    meta.write_text('p0.png (24,26,3)\n')
    assert '1 images give only 1 samples' in refused(opt)
    opt['datasets']['train']['dataset_enlarge_ratio'] = 2
    parse(opt)
    meta.write_text('p0.png (24,26,3)\np7.png (24,26,3)\n')
    assert 'names p7.png' in refused(opt)
    for text in ('', 'p0.png\n\np1.png\n', '\u00e4'.encode('latin-1')):
        meta.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert 'datasets:train:meta_info_file cannot be used' in refused(opt)


def test_single_images(tmp_path, opt, parse, refused):
    opt['datasets']['val'] = {'name': 'LR', 'type': 'SingleImageDataset', 'dataroot_lq': str(tmp_path / 'lq')}
    opt['val']['metrics'] = None
    parse(opt)
    write_lmdb(tmp_path / 'lq.lmdb', ['a'], (12, 13))
    opt['datasets']['val'].update(dataroot_lq=str(tmp_path / 'lq.lmdb'), io_backend={'type': 'lmdb'})
    parse(opt)
    (tmp_path / 'lq.lmdb' / 'meta_info.txt').unlink()
    assert 'datasets:val:dataroot_lq cannot be used' in refused(opt)
    shutil.copytree(tmp_path / 'lq', tmp_path / 'single')
    opt['datasets']['val'].update(dataroot_lq=str(tmp_path / 'single'), io_backend={'type': 'disk'})
    cut(tmp_path / 'single/p1x2.png', 0.5)
    assert 'p1x2.png' in refused(opt)


def test_a_batch_is_that_of_all_ranks(opt, parse):
    option_file = OptionFile('x.yml', parse(opt), {}, [])
    check_data(option_file, world_size=2)
    with pytest.raises(InputError, match='4 images give only 4 samples for a batch of 6'):
        check_data(option_file, world_size=3)


def write_lmdb(path, names, size, meta=None):
    png = cv2.imencode('.png', np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))[1].tobytes()
    with lmdb.open(str(path), map_size=1 << 22) as env, env.begin(write=True) as transaction:
        for name in names:
            transaction.put(name.encode(), png)
    lines = [f'{name}.png ({size[0]},{size[1]},3) 1\n' for name in (names if meta is None else meta)]
    (path / 'meta_info.txt').write_text(''.join(lines))


@pytest.fixture
def lmdb_opt(tmp_path, opt):
    write_lmdb(tmp_path / 'gt.lmdb', ['a', 'b', 'c'], (24, 26))
    write_lmdb(tmp_path / 'lq.lmdb', ['a', 'b', 'c'], (12, 13))
    roots = {f'dataroot_{side}': f'{tmp_path}/{side}.lmdb' for side in ('gt', 'lq')}
    opt['datasets']['train'].update(roots, io_backend={'type': 'lmdb'})
    return opt


def test_a_complete_lmdb_passes_and_can_be_opened_afterwards(tmp_path, lmdb_opt, parse, refused):
    parse(lmdb_opt)
    with lmdb.open(str(tmp_path / 'gt.lmdb'), readonly=True):
        pass
    lmdb_opt['datasets']['val'] = dict(lmdb_opt['datasets']['train'], name='Same')
    assert 'datasets:val has a sample that cannot be read (lmdb.Error: The environment' in refused(lmdb_opt)
    lmdb_opt['datasets']['train']['num_worker_per_gpu'] = 1  # training and validation then open it in two processes
    parse(lmdb_opt)
    lmdb_opt['datasets']['train']['io_backend']['type'] = 'disk'
    assert 'set io_backend:type to lmdb' in refused(lmdb_opt)


@pytest.mark.parametrize(
    'side, change, reason',
    [
        ('gt', lambda path: (path / 'meta_info.txt').write_text(''), 'lists no images'),
        ('gt', lambda path: (path / 'meta_info.txt').unlink(), 'is not an LMDB of BasicSR'),
        ('gt', lambda path: (path / 'data.mdb').unlink(), 'is not an LMDB of BasicSR'),
        ('gt', lambda path: write_lmdb(path, [], (24, 26), ['a', 'b', 'c', 'd']), 'contains 3 of the 4 images'),
        ('gt', lambda path: write_lmdb(path, ['d'], (24, 26), ['a', 'b', 'c']), 'contains 4 of the 3 images'),
        ('lq', lambda path: write_lmdb(path, ['d'], (12, 13), 'abcd'), 'd is in'),
        ('lq', lambda path: write_lmdb(path, [], (6, 6), 'abc'), 'differ in scale: a is 26x24, a is 6x6'),
        ('lq', lambda path: write_lmdb(path, ['d'], (12, 13), ['a', 'b', 'c', 'a.x']), 'lists a twice'),
        ('gt', lambda path: cut(path / 'data.mdb', 0.5), 'is cut short'),
        ('gt', lambda path: (path / 'data.mdb').write_bytes(b'x' * 100), 'is not an LMDB file'),
    ],
)
def test_refused_lmdbs(tmp_path, lmdb_opt, side, change, reason, refused):
    change(tmp_path / f'{side}.lmdb')
    message = refused(lmdb_opt)
    assert reason in message and f'{side}.lmdb' in message or 'differ in scale' in reason
