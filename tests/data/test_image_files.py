import cv2
import numpy as np
import pytest
from PIL import Image

from lkdn_basicsr.data.image_files import list_images, pair_images, probe_image, read_image
from lkdn_basicsr.errors import InputError


def pixels(height=20, width=30, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path, mode='RGB', **options):
    image = Image.fromarray(pixels(channels=4)).convert(mode)
    image.save(path, **options)
    return image


@pytest.mark.parametrize(
    'mode, suffix',
    [
        ('RGB', 'png'),
        ('L', 'png'),
        ('1', 'png'),
        ('P', 'png'),
        ('RGB', 'bmp'),
        ('RGB', 'tif'),
        ('L', 'jpg'),
        ('RGB', 'jpg'),
        ('P', 'bmp'),
    ],
)
def test_pictures_of_any_usual_kind_become_rgb(tmp_path, mode, suffix):
    path = str(tmp_path / f'a.{suffix}')
    image = Image.fromarray(pixels()).convert(mode)
    image.save(path)
    assert probe_image(path) == (20, 30)
    read = read_image(path)
    assert read.shape == (20, 30, 3) and read.dtype == np.uint8
    if suffix != 'jpg':
        np.testing.assert_array_equal(read, np.asarray(image.convert('RGB')))
    np.testing.assert_array_equal(read_image(path, 'bgr'), read[..., ::-1])


def test_alpha_is_dropped_where_it_is_opaque_and_refused_elsewhere(tmp_path):
    image = pixels(channels=4)
    image[..., 3] = 255
    Image.fromarray(image).save(tmp_path / 'opaque.png')
    assert probe_image(str(tmp_path / 'opaque.png')) == (20, 30)
    np.testing.assert_array_equal(read_image(str(tmp_path / 'opaque.png')), image[..., :3])
    image[3, 4, 3] = 254
    for suffix in ('png', 'tif', 'webp'):
        Image.fromarray(image).save(tmp_path / f'seen_through.{suffix}', lossless=True)
        with pytest.raises(InputError, match=rf'seen_through.{suffix} is partly transparent'):
            probe_image(str(tmp_path / f'seen_through.{suffix}'))
    palette = Image.fromarray(image[..., :3]).quantize(16)
    palette.save(tmp_path / 'palette.png', transparency=2)
    with pytest.raises(InputError, match='palette.png is partly transparent'):
        probe_image(str(tmp_path / 'palette.png'))


def test_sixteen_bits_and_cmyk_are_refused_by_name(tmp_path):
    cv2.imwrite(str(tmp_path / 'deep.png'), pixels().astype(np.uint16) * 257)
    with pytest.raises(InputError, match=r'deep.png has 16 bits a channel'):
        probe_image(str(tmp_path / 'deep.png'))
    Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257).save(tmp_path / 'deep.tif')
    with pytest.raises(InputError, match='deep.tif has pixels of type I;16'):
        probe_image(str(tmp_path / 'deep.tif'))
    Image.fromarray(pixels()).convert('CMYK').save(tmp_path / 'print.jpg')
    with pytest.raises(InputError, match='print.jpg has pixels of type CMYK'):
        probe_image(str(tmp_path / 'print.jpg'))


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'bmp', 'tif', 'webp'])
def test_files_cut_short_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    Image.fromarray(pixels(200, 300)).save(path)
    whole = path.read_bytes()
    for length in (0, 5, 30, len(whole) // 2, len(whole) - 1000):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=rf'a\.{suffix} (is cut short|is damaged or no picture)'):
            probe_image(str(path))


def test_any_flipped_byte_of_a_png_is_noticed(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(pixels(4, 5)).save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r'a\.png'):
            probe_image(str(path))


def test_pictures_on_their_side_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels()).save(tmp_path / 'a.jpg', exif=exif)
    assert probe_image(str(tmp_path / 'a.jpg')) == read_image(str(tmp_path / 'a.jpg')).shape[:2] == (30, 20)


def test_folders_list_pictures_by_name_and_pass_over_the_rest(tmp_path):
    for name in ('b.png', 'a.JPG', '.hidden.png', 'notes.txt', 'Thumbs.db'):
        (tmp_path / name).touch()
    assert list_images(str(tmp_path)) == {'a': f'{tmp_path}/a.JPG', 'b': f'{tmp_path}/b.png'}
    (tmp_path / 'a.png').touch()
    with pytest.raises(InputError, match='several pictures named a,'):
        list_images(str(tmp_path))
    with pytest.raises(InputError, match='does not exist'):
        list_images(str(tmp_path / 'nowhere'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='holds no picture'):
        list_images(str(tmp_path / 'empty'))


def test_lr_pictures_are_found_with_and_without_the_scale_in_their_name(tmp_path):
    for folder, names in {'hr': ['1', '2', 'fox2', '4'], 'x2': ['1x2', '2', 'fox2x2', '9x2']}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f'{name}.png').touch()
    pictures, missing, left_over = pair_images(str(tmp_path / 'hr'), {2: str(tmp_path / 'x2')})
    assert [picture.name for picture in pictures] == ['1', '2', '4', 'fox2']
    assert [picture.lr.get(2, '').rpartition('/')[2] for picture in pictures] == ['1x2.png', '2.png', '', 'fox2x2.png']
    assert len(missing) == 1 and '4x2' in missing[0]
    assert len(left_over) == 1 and '9x2.png belongs to no HR picture' in left_over[0]
