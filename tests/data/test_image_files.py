import contextlib
import os
import socket
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from lkdn_basicsr.data.image_files import decode_image, list_images, pair_images, pair_names, probe_image, read_image
from lkdn_basicsr.errors import InputError
from tests.support.images import damaged_stream, edit_png, flipped, huge_header, missing_rows, random_image

every_depth = pytest.mark.parametrize('depth', ['header', 'checksums', 'pixels'])
IMAGES = 'RGB.png L.png 1.png P.png RGB.bmp P.bmp RGB.tif RGB.jpg L.jpg'.split()


@pytest.mark.parametrize('mode, suffix', [name.split('.') for name in IMAGES])
def test_images_of_any_usual_mode_become_rgb(tmp_path, mode, suffix):
    path = str(tmp_path / f'a.{suffix}')
    image = Image.fromarray(random_image()).convert(mode)
    image.save(path)
    assert probe_image(path) == probe_image(path, 'header') == probe_image(path, 'pixels') == (20, 30)
    read = read_image(path)
    assert read.shape == (20, 30, 3) and read.dtype == np.uint8
    if suffix != 'jpg':
        np.testing.assert_array_equal(read, np.asarray(image.convert('RGB')))
    np.testing.assert_array_equal(read_image(path, 'bgr'), read[..., ::-1])


def test_alpha_is_dropped_where_it_is_opaque_and_refused_elsewhere(tmp_path):
    image = random_image(channels=4)
    image[..., 3] = 255
    opaque = str(tmp_path / 'opaque.png')
    Image.fromarray(image).save(opaque)
    assert probe_image(opaque) == (20, 30)
    np.testing.assert_array_equal(read_image(opaque), image[..., :3])
    image[3, 4, 3] = 254
    Image.fromarray(image[..., :3]).quantize(16).save(tmp_path / 'palette.png', transparency=2)
    for suffix in ('png', 'tif', 'webp'):
        Image.fromarray(image).save(tmp_path / f'transparent.{suffix}', lossless=True)
    for name in ('palette.png', 'transparent.png', 'transparent.tif', 'transparent.webp'):
        with pytest.raises(InputError, match=f'{name} is partly transparent'):
            probe_image(str(tmp_path / name))


@every_depth
def test_sixteen_bits_and_cmyk_are_refused_by_name(tmp_path, depth):
    deep = random_image().astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / 'deep.png'), deep)
    Image.fromarray(deep[..., 0]).save(tmp_path / 'deep.tif')
    Image.fromarray(random_image()).convert('CMYK').save(tmp_path / 'print.jpg')
    for reason in ('deep.png has 16 bits per channel', 'deep.tif has .* type I;16', 'print.jpg has .* type CMYK'):
        path = str(tmp_path / reason.split()[0])
        with pytest.raises(InputError, match=reason):
            probe_image(path, depth)


@every_depth
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'bmp', 'tif', 'webp'])
def test_files_cut_short_are_refused_by_name(tmp_path, suffix, depth):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(random_image(200, 300)).save(path)
    content = path.read_bytes()
    for length in (0, 5, 30, len(content) // 2, len(content) - 1000):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=rf'^{path} is damaged or not an image'):
            probe_image(str(path), depth)


def test_any_flipped_byte_of_a_png_is_detected(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(random_image(4, 5)).save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(flipped(content, place, 4))
        with pytest.raises(InputError, match=r'a\.png'):
            probe_image(str(path))


@pytest.mark.parametrize('edit', [missing_rows, damaged_stream])
def test_png_files_with_valid_checksums_and_damaged_pixels_are_refused(tmp_path, edit):
    path = tmp_path / 'a.png'
    Image.fromarray(random_image()).save(path)
    path.write_bytes(edit_png(path.read_bytes(), edit))
    assert probe_image(str(path), 'checksums') == (20, 30)
    for read in (read_image, lambda path: probe_image(path, 'pixels')):
        with pytest.raises(InputError, match='a.png is damaged or not an image'):
            read(str(path))


@pytest.mark.parametrize('content', [cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_FILTER_PAETH])
def test_opencv_detects_flipped_bits_in_the_stream_of_a_png(tmp_path, content):
    """Training relies on it: every PNG is compared with its checksums when it is decoded."""
    png = cv2.imencode('.png', random_image(64, 64), [cv2.IMWRITE_PNG_FILTER, content])[1].tobytes()
    for place in range(60, len(png) - 20, 97):
        with pytest.raises(InputError, match='a.png is damaged'):
            decode_image(np.frombuffer(flipped(png, place, 1 << place % 8), np.uint8), 'a.png')


@every_depth
def test_sizes_that_do_not_fit_into_memory_are_refused_by_the_header(tmp_path, depth):
    Image.fromarray(random_image()).save(tmp_path / 'a.png')
    (tmp_path / 'a.png').write_bytes(edit_png((tmp_path / 'a.png').read_bytes(), huge_header))
    Image.fromarray(random_image()).save(tmp_path / 'a.bmp')
    data = bytearray((tmp_path / 'a.bmp').read_bytes())
    data[18:26] = struct.pack('<2i', 100_000, 100_000)
    (tmp_path / 'a.bmp').write_bytes(data)
    for name in ('a.png', 'a.bmp'):
        with pytest.raises(InputError, match=f'{name} says that it has 100000x100000 pixels, more than OpenCV reads'):
            probe_image(str(tmp_path / name), depth)
        with pytest.raises(InputError, match=f'{name} is damaged or not an image'):
            read_image(str(tmp_path / name))


def test_what_is_not_a_regular_file_is_refused_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'folder.png').mkdir()
    (tmp_path / 'device.png').symlink_to('/dev/zero')
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):
        server.bind('socket.png')
        for name in ('pipe', 'folder', 'device', 'socket'):
            for read in (probe_image, read_image):
                with pytest.raises(InputError, match=f'{name}.png is not a regular file'):
                    read(f'{name}.png')


def test_names_that_are_not_utf8_are_read_and_shown_escaped(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b'/a\xff\n.png')
    Image.fromarray(random_image()).save(path)
    assert probe_image(path, 'pixels') == (20, 30) and read_image(path).shape == (20, 30, 3)
    os.truncate(path, 100)
    for read in (probe_image, read_image):
        with pytest.raises(InputError, match=r'a\\xff\\n.png is damaged'):
            read(path)


@every_depth
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'webp'])
def test_the_size_is_that_after_exif_rotation(tmp_path, suffix, depth):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = str(tmp_path / f'a.{suffix}')
    Image.fromarray(random_image()).save(path, exif=exif)
    assert probe_image(path, depth) == read_image(path).shape[:2] == (30, 20)


def test_images_of_any_number_of_pixels_are_probed(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    Image.fromarray(random_image()).save(tmp_path / 'a.jpg')
    assert probe_image(str(tmp_path / 'a.jpg')) == (20, 30) and Image.MAX_IMAGE_PIXELS == 100


def test_folders_list_images_by_name_and_ignore_the_rest(tmp_path):
    for name in ('b.png', 'a.JPG', '.hidden.png', 'notes.txt', 'Thumbs.db'):
        (tmp_path / name).touch()
    assert list_images(str(tmp_path)) == {'a': f'{tmp_path}/a.JPG', 'b': f'{tmp_path}/b.png'}
    (tmp_path / 'a.png').touch()
    (tmp_path / 'empty').mkdir()
    for folder, reason in (('', 'several images named a;'), ('nowhere', 'not exist'), ('empty', 'contains no image')):
        with pytest.raises(InputError, match=reason):
            list_images(str(tmp_path / folder))


def test_lr_images_are_found_with_and_without_the_scale_in_their_name(tmp_path):
    for folder, names in {'hr': ['1', '2', 'fox2', '4'], 'x2': ['1x2', '2', 'fox2x2', '9x2']}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f'{name}.png').touch()
    images, missing, left_over = pair_images(str(tmp_path / 'hr'), {2: str(tmp_path / 'x2')})
    assert [image.name for image in images] == ['1', '2', '4', 'fox2']
    assert [image.lr.get(2, '').rpartition('/')[2] for image in images] == ['1x2.png', '2.png', '', 'fox2x2.png']
    assert len(missing) == 1 and '4x2' in missing[0]
    assert len(left_over) == 1 and '9x2.png belongs to no HR image' in left_over[0]


def test_an_lr_name_is_paired_with_one_hr_name_only():
    matches = pair_names(['a', 'ax2', 'a', 'b'], ['ax2', 'c'], lambda name: [f'{name}x2', name])
    assert matches.pairs == [(0, 0), (2, 0)] and matches.missing == [1, 3] and matches.left_over == [1]
