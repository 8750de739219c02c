"""ImagePair files as people have them: found, paired with their LR, looked at, and read as 8-bit RGB."""

import collections
import dataclasses
import os
import struct
import warnings
import zlib

import cv2
import numpy as np
from PIL import Image

from lkdn_basicsr.errors import InputError

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


@dataclasses.dataclass
class ImagePair:
    """One HR picture and its LR pictures.

    Attributes:
        name (str): File name of the HR picture without extension.
        hr (str): Its path.
        lr (dict[int, str]): Scale to path, for the scales whose LR pictures are given.
        shape (tuple[int, int] | None): Height and width, once it was looked at.
    """

    name: str
    hr: str
    lr: dict
    shape: tuple = None


def list_images(folder):
    """Names without extension and paths of the pictures in a folder, sorted; hidden and other files are passed over.

    Raises:
        InputError: The folder is missing, holds no picture, or two with the same name.
    """
    if not os.path.isdir(folder):
        raise InputError(f'The folder {folder} does not exist; correct the path.')
    files = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and not name.startswith('.'))
    if not files:
        raise InputError(f'The folder {folder} holds no picture ({", ".join(SUFFIXES)}); correct the path.')
    names = [os.path.splitext(name)[0] for name in files]
    twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
    if twice:
        raise InputError(
            f'The folder {folder} holds several pictures named {", ".join(twice)}, which would be one '
            'entry of the store; rename or remove all but one.'
        )
    return {name: os.path.join(folder, file) for name, file in zip(names, files, strict=True)}


def pair_images(hr_folder, lr_folders):
    """The pictures of a folder with their LR pictures, which are named alike or with the scale behind: ``0001x4.png``.

    Args:
        hr_folder (str): Folder of HR pictures.
        lr_folders (dict[int, str]): Scale to folder of LR pictures, for the scales where they are given.

    Returns:
        tuple[list[ImagePair], list[str], list[str]]: The pictures by name; which LR pictures are missing, in words; and
        which belong to no HR picture.
    """
    pictures = [ImagePair(name, path, {}) for name, path in list_images(hr_folder).items()]
    missing, left_over = [], []
    for scale, folder in lr_folders.items():
        found = list_images(folder)
        for picture in pictures:
            path = found.pop(f'{picture.name}x{scale}', None) or found.pop(picture.name, None)
            if path:
                picture.lr[scale] = path
            else:
                missing.append(f'{picture.hr} has no LR picture {picture.name}x{scale} in {folder}')
        left_over += [f'{path} belongs to no HR picture of {hr_folder}' for path in found.values()]
    return pictures, missing, left_over


def probe_image(path):
    """Height and width of a picture, after making sure that its file is whole and can become 8-bit RGB.

    Grey and palette pictures can, and alpha can be dropped where it is opaque. All bytes of a PNG are checked against
    its own checksums, which is several times faster than decoding it; other formats are decoded.

    Raises:
        InputError: Damaged, cut short, 16-bit, CMYK, or partly transparent.
    """
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}); make it readable.') from None
    if data.startswith(PNG_SIGNATURE):
        return _look_at_png(path, data)
    try:
        with warnings.catch_warnings(action='ignore'), Image.open(path) as image:
            image.load()
            mode, (width, height) = image.mode, image.size
            turned = image.getexif().get(0x0112, 1) >= 5
    except Exception as error:  # Pillow's decoders raise anything from OSError to SyntaxError
        raise InputError(f'{path} is damaged or no picture ({error}); get it again or remove it.') from None
    if mode not in ('1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'PA'):
        raise InputError(f'{path} has pixels of type {mode}; convert it to 8-bit RGB.')
    if mode in ('RGBA', 'LA', 'PA'):
        _refuse_transparency(path, data)
    # A picture lying on its side by its EXIF entry is stored upright, as OpenCV reads it.
    return (width, height) if turned else (height, width)


def _look_at_png(path, data):
    try:
        chunks = png_chunks(memoryview(data))
    except ValueError as problem:
        raise InputError(f'{path} {problem}; get it again or remove it.') from None
    width, height, depth, colour = struct.unpack_from('>IIBB', data, 16)
    if depth == 16:
        raise InputError(f'{path} has 16 bits a channel; convert it to 8-bit RGB.')
    if colour in (4, 6) or b'tRNS' in chunks:
        _refuse_transparency(path, data)
    return height, width


def _refuse_transparency(path, data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is not None and image.ndim == 3 and image.shape[2] in (2, 4) and image[..., -1].min() < 255:
        raise InputError(f'{path} is partly transparent, and what should show through is not known; flatten it to RGB.')


def read_image(path, order='rgb'):
    """Read a picture that `probe_image` passed.

    Args:
        path (str): The file.
        order (str): ``'rgb'``, or ``'bgr'`` as OpenCV's own functions want it.

    Returns:
        ndarray: (H, W, 3) uint8.

    Raises:
        InputError: It cannot be decoded after all.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}); make it readable.') from None
    image = None
    if data.size:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB if order == 'rgb' else cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f'{path} is damaged or no picture; get it again or remove it.')
    return image


def png_chunks(data):
    """The kinds of a PNG's chunks, after all of its bytes were compared with the checksums in it.

    Args:
        data (memoryview): The whole file.

    Returns:
        list[bytes]: ``[b'IHDR', ..., b'IEND']``.

    Raises:
        ValueError: What is wrong, to be read behind the file's name: ``'is cut short'``, ...
    """
    if data[:8] != PNG_SIGNATURE:
        raise ValueError('is no PNG')
    position, kinds = 8, []
    while position < len(data) and kinds[-1:] != [b'IEND']:
        length, kind = int.from_bytes(data[position : position + 4], 'big'), bytes(data[position + 4 : position + 8])
        end = position + 12 + length
        if end > len(data):
            raise ValueError('is cut short')
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], 'big'):
            raise ValueError('is damaged, by its own checksums')
        kinds.append(kind)
        position = end
    if kinds[:1] != [b'IHDR'] or kinds[-1:] != [b'IEND'] or b'IDAT' not in kinds:
        raise ValueError('is cut short')
    return kinds
