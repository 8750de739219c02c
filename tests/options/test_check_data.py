import os
import shutil

import cv2
import lmdb
import numpy as np
import pytest
from basicsr.data import build_dataset
from PIL import Image

from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_data import check_data
from lkdn_basicsr.options.option_file import OptionFile, RunOptions
from tests.support.images import damaged_stream, edit_png, flipped, huge_header, missing_rows, prepare


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


@pytest.mark.parametrize('kind', ['PairedImageDataset', 'PairedCropDataset'])
@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'I;16', 'transparent', 'CMYK'])
def test_images_are_refused_for_what_prepare_refuses_them_for(tmp_path, opt, mode, kind, parse, refused):
    name = 'p.jpg' if mode == 'CMYK' else 'p.png'
    for folder, size in (('any_gt', (26, 24)), ('any_lq', (13, 12))):
        (tmp_path / folder).mkdir()
        image = Image.new('RGBA' if mode == 'transparent' else mode, size)
        if mode == 'RGBA':
            image.putalpha(255)
        image.save(tmp_path / folder / name)
    roots = dict(dataroot_gt=str(tmp_path / 'any_gt'), dataroot_lq=str(tmp_path / 'any_lq'), filename_tmpl='{}')
    opt['datasets']['val'].update(roots, type=kind, float32=True)
    if kind == 'PairedImageDataset':
        del opt['datasets']['val']['float32']
    if mode in ('L', 'P', 'RGBA'):
        parse(opt)
        return
    with pytest.raises(InputError) as of_prepare:
        prepare(tmp_path / 'out', tmp_path / 'any_gt', scales=(2,))
    reason = refused(opt).partition(': ')[2].partition(': ')[2]
    assert f'any_gt/{name}' in reason and reason in str(of_prepare.value)


@pytest.mark.parametrize('edit', [missing_rows, damaged_stream, huge_header])
@pytest.mark.parametrize('flags', [[], ['--check']])
def test_png_files_with_valid_checksums_and_other_pixels(tmp_path, opt, refused, monkeypatch, edit, flags):
    path = tmp_path / 'gt/p1.png'
    path.write_bytes(edit_png(path.read_bytes(), edit))
    assert 'p1.png' in refused(opt, *flags)
    monkeypatch.setattr('lkdn_basicsr.options.check_data.DECODE_BELOW', 0)
    if flags or edit is huge_header:
        assert 'p1.png' in refused(opt, *flags)


@pytest.mark.parametrize('kind', ['PairedImageDataset', 'PairedCropDataset', 'SingleImageDataset'])
def test_what_is_not_a_file_is_refused(tmp_path, opt, kind):
    os.mkfifo(tmp_path / 'lq/p0.png')
    dataset = dict(opt['datasets'].pop('train'), name='Pipe', type=kind, dataroot_gt=str(tmp_path / 'lq'), scale=1)
    opt['datasets'] = {'val': dict(dataset, phase='val', filename_tmpl='{}')}
    with pytest.raises(InputError, match='p0.png,? (which )?is not a regular file'):
        check_data(OptionFile('x.yml', RunOptions(opt), {}, []))


def test_the_smallest_image_is_returned_by_its_index(tmp_path, opt):
    for folder, size, suffix in (('gt', (8, 10), ''), ('lq', (4, 5), 'x2')):
        Image.new('RGB', size).save(tmp_path / folder / f'p2{suffix}.png')
    prepare(tmp_path / 'raw', tmp_path / 'gt', scales=(2,))
    roots = dict(dataroot_gt=f'{tmp_path}/raw/HR.lmdb', dataroot_lq=f'{tmp_path}/raw/LR_bicubic_X2.lmdb')
    crops = dict(roots, name='crops', type='PairedCropDataset', gt_size=8, crop_size=8, step=4)
    phases = {'val': opt['datasets']['val'], 'val_2': dict(crops), 'train': dict(crops, batch_size_per_gpu=1)}
    phases['val_3'] = dict(name='lq', type='SingleImageDataset', dataroot_lq=f'{tmp_path}/lq')
    for phase, dataset in phases.items():
        dataset.update(phase=phase[:3].replace('tra', 'train'), scale=2, io_backend={'type': 'disk'})
    opt.update(datasets=phases, num_gpu=0, val=None, is_train=True)
    found = check_data(OptionFile('x.yml', RunOptions(opt), {}, []), complete=True)
    assert list(found) == list(phases)
    for phase, index in found.items():
        sample = build_dataset(phases[phase])[index]
        assert 'p2' in sample['lq_path'], phase


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


def encoded(size, dtype=np.uint8):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return cv2.imencode('.png', image.astype(dtype))[1].tobytes()


def write_lmdb(path, names, size, meta=None, meta_size=True, **flags):
    """Write images of (height, width) under some names, and list them, or other names, in ``meta_info.txt``."""
    if flags:
        shutil.rmtree(path)
        width = 8 if 'integerkey' in flags else 1
        with lmdb.open(str(path), max_dbs=1) as env, env.begin(write=True) as transaction:
            env.open_db(b'other', transaction, **flags)
            transaction.put(b'a'.ljust(width), b'x', db=env.open_db(b'other', transaction, **flags))
    with lmdb.open(str(path), map_size=1 << 22) as env, env.begin(write=True) as transaction:
        for name in names:
            transaction.put(name.encode(), encoded(size))
    size = f' ({size[0]},{size[1]},3) 1' if meta_size else ''
    (path / 'meta_info.txt').write_text(''.join(f'{name}.png{size}\n' for name in (names if meta is None else meta)))


def put(path, key, value):
    with lmdb.open(str(path), map_size=1 << 22) as env, env.begin(write=True) as transaction:
        transaction.put(key, value)


def rename(path, key, new):
    with lmdb.open(str(path), map_size=1 << 22) as env, env.begin(write=True) as transaction:
        transaction.put(new, transaction.pop(key))


def zero(path, begin, size, after=None):
    """Overwrite bytes with zeros, ``begin`` bytes after the start or after the last ``after``."""
    data = bytearray(path.read_bytes())
    begin += 0 if after is None else data.rindex(after)
    data[begin : begin + size] = bytes(len(data[begin : begin + size]))
    path.write_bytes(data)


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
    assert 'of the dataset Same cannot be read (The environment' in refused(lmdb_opt)
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
        ('lq', lambda path: write_lmdb(path, 'abc', (6, 6)), 'differ in scale: a in'),
        ('lq', lambda path: write_lmdb(path, 'abc', (6, 6), meta_size=False), 'differ in scale: a in'),
        ('lq', lambda path: write_lmdb(path, 'b', (6, 6), 'abc', meta_size=False), 'differ in scale: b in'),
        ('lq', lambda path: put(path, b'b', b'x' * 9000), 'b in'),
        ('lq', lambda path: put(path, b'b', b''), 'b in'),
        ('lq', lambda path: put(path, b'b', encoded((12, 13), np.uint16)), '16 bits per channel'),
        ('lq', lambda path: put(path, b'b', edit_png(encoded((12, 13)), missing_rows)), 'b in'),
        ('gt', lambda path: rename(path, b'b', b'x'), 'does not contain b, which its meta_info.txt lists'),
        ('gt', lambda path: (path / 'meta_info.txt').write_text('a\nb\nc\n'), 'lines that BasicSR cannot read'),
        ('gt', lambda path: (path / 'meta_info.txt').write_text('a.png\nb.png\n\nc.png\n'), 'lines that BasicSR'),
        ('gt', lambda path: write_lmdb(path, 'abc', (24, 26), dupsort=True), 'of another kind'),
        ('gt', lambda path: write_lmdb(path, 'abc', (24, 26), integerkey=True), 'of another kind'),
        ('gt', lambda path: zero(path / 'data.mdb', 0, 1 << 20), 'is not an LMDB file'),
        ('gt', lambda path: zero(path / 'data.mdb', 8192, 1 << 20), 'its B-tree is damaged'),
        ('gt', lambda path: zero(path / 'data.mdb', -8, 8, b'c'), 'damaged'),
        ('lq', lambda path: write_lmdb(path, ['d'], (12, 13), ['a', 'b', 'c', 'a.x']), 'lists a twice'),
        ('gt', lambda path: cut(path / 'data.mdb', 0.5), 'is cut short'),
        ('gt', lambda path: (path / 'data.mdb').write_bytes(b'x' * 100), 'is not an LMDB file'),
    ],
)
def test_refused_lmdbs(tmp_path, lmdb_opt, side, change, reason, refused):
    change(tmp_path / f'{side}.lmdb')
    message = refused(lmdb_opt)
    assert reason in message and f'{side}.lmdb' in message
    assert refused(lmdb_opt, '--check') == message


@pytest.mark.parametrize('flags', [[], ['--check']])
def test_a_listing_with_other_sizes_is_refused(tmp_path, lmdb_opt, refused, monkeypatch, flags):
    (tmp_path / 'lq.lmdb/meta_info.txt').write_text(''.join(f'{name}.png (6,6,3) 1\n' for name in 'abc'))
    reason = f'a in {tmp_path}/lq.lmdb is 13x12, but 6x6 in meta_info.txt'
    assert reason in refused(lmdb_opt, *flags)
    monkeypatch.setattr('lkdn_basicsr.options.check_data.DECODE_BELOW', 0)
    assert (reason if flags else 'differ in scale: a in') in refused(lmdb_opt, *flags)


def test_check_decodes_large_datasets(tmp_path, lmdb_opt, refused, monkeypatch):
    monkeypatch.setattr('lkdn_basicsr.options.check_data.DECODE_BELOW', 0)
    put(tmp_path / 'lq.lmdb', b'b', flipped(encoded((12, 13)), 200))
    assert 'b in' in refused(lmdb_opt, '--check')


def test_flipped_bits_in_raw_stores_are_found(tmp_path, opt, parse, refused):
    stores = prepare(tmp_path / 'raw', tmp_path / 'gt', scales=(2,))
    roots = dict(zip(('dataroot_gt', 'dataroot_lq'), stores, strict=True))
    opt['datasets']['train'].update(roots, type='PairedCropDataset', float32=True, crop_size=16, step=8)
    del opt['datasets']['train']['filename_tmpl']
    parse(opt)
    data = tmp_path / 'raw/HR.lmdb/data.mdb'
    begin, size = locate(data)[0][b'00000002']
    data.write_bytes(flipped(data.read_bytes(), begin + size - 1))
    message = refused(opt, '--check')
    assert 'Image 2 (p2) of' in message and 'HR.lmdb does not match its checksum' in message
    assert refused(opt) == message  # small datasets are checked at every start
