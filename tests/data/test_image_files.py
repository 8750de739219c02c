import cv2
import numpy as np
import pytest
from PIL import Image

from lkdn_basicsr.data.image_files import list_images, pair_images, pair_names, probe_image, read_image
from lkdn_basicsr.errors import InputError
from tests.support.images import flipped, random_image

every_decode = pytest.mark.parametrize('decode', [True, False])
IMAGES = 'RGB.png L.png 1.png P.png RGB.bmp P.bmp RGB.tif RGB.jpg L.jpg'.split()


@pytest.mark.parametrize('mode, suffix', [name.split('.') for name in IMAGES])
def test_images_of_any_usual_mode_become_rgb(tmp_path, mode, suffix):
    path = str(tmp_path / f'a.{suffix}')
    image = Image.fromarray(random_image()).convert(mode)
    image.save(path)
    assert probe_image(path) == probe_image(path, decode=False) == (20, 30)
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


@every_decode
def test_sixteen_bits_and_cmyk_are_refused_by_name_unless_any_mode_is_accepted(tmp_path, decode):
    deep = random_image().astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / 'deep.png'), deep)
    Image.fromarray(deep[..., 0]).save(tmp_path / 'deep.tif')
    Image.fromarray(random_image()).convert('CMYK').save(tmp_path / 'print.jpg')
    for reason in ('deep.png has 16 bits per channel', 'deep.tif has .* type I;16', 'print.jpg has .* type CMYK'):
        path = str(tmp_path / reason.split()[0])
        with pytest.raises(InputError, match=reason):
            probe_image(path, decode)
        assert probe_image(path, decode, any_mode=True) == (20, 30)


@every_decode
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'bmp', 'tif', 'webp'])
def test_files_cut_short_are_refused_by_name(tmp_path, suffix, decode):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(random_image(200, 300)).save(path)
    content = path.read_bytes()
    for length in (0, 5, 30, len(content) // 2, len(content) - 1000):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=rf'^{path} is damaged or not an image'):
            probe_image(str(path), decode)


def test_any_flipped_byte_of_a_png_is_detected(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(random_image(4, 5)).save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(flipped(content, place, 4))
        with pytest.raises(InputError, match=r'a\.png'):
            probe_image(str(path))


@every_decode
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'webp'])
def test_the_size_is_that_after_exif_rotation(tmp_path, suffix, decode):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = str(tmp_path / f'a.{suffix}')
    Image.fromarray(random_image()).save(path, exif=exif)
    assert probe_image(path, decode) == read_image(path).shape[:2] == (30, 20)


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
