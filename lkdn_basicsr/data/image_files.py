"""Image files: list them, pair HR with LR, probe them, and read them as 8-bit RGB."""

import collections
import contextlib
import dataclasses
import math
import os
import stat
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Literal

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from lkdn_basicsr.errors import InputError, system_error

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
MAX_PIXELS = 1 << 30  # of an image; OpenCV's own limit, several times what cameras have
Depth = Literal['header', 'checksums', 'pixels']
# Formats that OpenCV reads as well. Pillow knows more of them, and starts Ghostscript for one.
_FORMATS = ('PNG', 'JPEG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'PPM', 'GIF', 'JPEG2000', 'SUN')
_PNG_SIGNATURE, _PNG_END, _JPEG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82', b'\xff\xd9'
_END_SIZE = 1024  # bytes at the end of a file that are searched for an end marker
_PILLOW = threading.Lock()  # its limit and Python's warnings are global


@dataclasses.dataclass
class ImagePair:
    """One HR image and its LR images."""

    name: str  # file name of the HR image without extension
    hr: str  # path
    lr: dict[int, str] = dataclasses.field(default_factory=dict)  # scale to path, where LR images exist
    shape: tuple[int, int] = (0, 0)  # (height, width) of the HR image, once it is probed


@dataclasses.dataclass(frozen=True)
class Matches:
    """What `pair_names` found."""

    pairs: list[tuple[int, int]]  # index of the GT name, index of the LQ name; in the order of the GT names
    missing: list[int]  # indices of GT names that have no LQ name
    left_over: list[int]  # indices of LQ names that have no GT name


def list_images(folder: str) -> dict[str, str]:
    """Return name without extension to path of the images in a folder, sorted; hidden and other files are ignored.

    Raises:
        InputError: The folder does not exist, contains no image, or contains two images with the same name.
    """
    if not os.path.isdir(folder):
        raise InputError(f'The folder {folder} does not exist; correct the path.')
    files = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and not name.startswith('.'))
    if not files:
        raise InputError(f'The folder {folder} contains no image ({", ".join(SUFFIXES)}); correct the path.')
    names = [os.path.splitext(name)[0] for name in files]
    if len(set(names)) < len(names):
        duplicates = ', '.join(name for name, count in collections.Counter(names).items() if count > 1)
        raise InputError(f'The folder {folder} contains several images named {duplicates}; rename all but one.')
    return {name: os.path.join(folder, file) for name, file in zip(names, files, strict=True)}


def pair_names(gt_names: Sequence[str], lq_names: Sequence[str], candidates: Callable[[str], Sequence[str]]) -> Matches:
    """Pair GT names with LQ names, of which ``candidates`` returns those to try for a GT name, in order.

    An LQ name is used for one GT name only; a GT name that occurs twice gets the same LQ name twice.
    """
    index = {name: i for i, name in enumerate(lq_names)}
    owner: dict[str, str] = {}
    pairs, missing = [], []
    for i, gt_name in enumerate(gt_names):
        for name in candidates(gt_name):
            if name in index and owner.setdefault(name, gt_name) == gt_name:
                pairs.append((i, index[name]))
                break
        else:
            missing.append(i)
    return Matches(pairs, missing, [i for name, i in index.items() if name not in owner])


def pair_images(hr_folder: str, lr_folders: dict[int, str]) -> tuple[list[ImagePair], list[str], list[str]]:
    """Pair images with their LR images (scale to folder), which have the same name or end in the scale: ``0001x4.png``.

    Returns:
        The images by name; sentences on LR images that are missing; and sentences on LR images without an HR image.
    """
    images = [ImagePair(name, path) for name, path in list_images(hr_folder).items()]
    missing, left_over = [], []
    for scale, folder in lr_folders.items():
        found = list_images(folder)
        names, paths, suffix = [image.name for image in images], list(found.values()), f'x{scale}'
        matches = pair_names(names, list(found), lambda name, suffix=suffix: [name + suffix, name])  # type: ignore[misc]
        for i, j in matches.pairs:
            images[i].lr[scale] = paths[j]
        missing += [
            f'{images[i].hr} has no LR image {names[i]} or {names[i]}x{scale} in {folder}' for i in matches.missing
        ]
        left_over += [f'{paths[j]} belongs to no HR image of {hr_folder}' for j in matches.left_over]
    return images, missing, left_over


def probe_image(path: str, depth: Depth = 'checksums') -> tuple[int, int]:
    """Check that an image file is intact and can become 8-bit RGB, and return its (height, width) as OpenCV reads it.

    See `probe` for the arguments and for what is raised.
    """
    with _reading(path), _open(path) as file:
        return probe(file, path, depth)


def probe(file: BinaryIO, label: str, depth: Depth) -> tuple[int, int]:
    """Check an image file that is open at its beginning; see `probe_image`.

    Gray and palette images can become RGB, and opaque alpha can be dropped.

    Args:
        label: What messages call the file.
        depth: How much is checked. ``'header'``: only header and end, which still detects files that are cut short.
            ``'checksums'``: every byte, of a PNG against its own checksums, which is several times faster than decoding
            it, of other formats by decoding. ``'pixels'``: every byte, and PNG files are decoded too, because a few
            encoders that failed left intact checksums.

    Raises:
        InputError: The file is damaged or cut short, has more than ``MAX_PIXELS``, or is 16-bit, CMYK or partly
            transparent.
    """
    with _reading(label):
        size = file.seek(0, os.SEEK_END)
        if not size:
            raise ValueError('the file is empty')
        file.seek(0)
        data = file.read(_END_SIZE if depth == 'header' else -1)
        file.seek(max(0, size - _END_SIZE))
        tail = file.read()
        file.seek(0)
        is_png = data.startswith(_PNG_SIGNATURE)
        if is_png and depth != 'header':
            png_chunks(memoryview(data))
        elif is_png and _PNG_END not in tail:
            raise ValueError('the file is cut short')
        with _PILLOW, _without_limit(), Image.open(file, formats=_FORMATS) as image:
            mode, shape = image.mode, image.size[::-1]
            if math.prod(shape) > MAX_PIXELS:
                reason = f'says that it has {shape[1]}x{shape[0]} pixels, more than OpenCV reads ({MAX_PIXELS:,})'
                raise InputError(f'{label} {reason}; get it again or remove it.')
            # Asked for its EXIF data, Pillow would decode a PNG that has none.
            exif = {} if is_png and 'exif' not in image.info else image.getexif()
            is_rotated = exif.get(ExifTags.Base.Orientation, 1) >= 5
            has_alpha = mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info
            if not is_png and (depth != 'header' or not _has_end(image, tail, size)):
                image.draft('RGB', (1, 1))  # a JPEG is then parsed completely, but at an eighth of its resolution
                image.load()
    if is_png and data[24] == 16:
        raise InputError(f'{label} has 16 bits per channel; convert it to 8-bit RGB.')
    if mode not in ('1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'PA'):
        raise InputError(f'{label} has pixels of type {mode}; convert it to 8-bit RGB.')
    is_decoded = is_png and depth == 'pixels'
    if not (is_decoded or has_alpha or is_rotated):
        return shape
    if depth == 'header':
        file.seek(0)
        data = file.read()
    encoded = np.frombuffer(data, np.uint8)
    if has_alpha:
        pixels = decode_image(encoded, label, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 3 and pixels.shape[2] in (2, 4) and pixels[..., -1].min() < 255:
            raise InputError(f'{label} is partly transparent, and the background is not known; flatten it to RGB.')
    # In which formats the EXIF orientation counts depends on the version of OpenCV.
    return decode_image(encoded, label).shape[:2] if is_decoded or is_rotated else shape


def _open(path: str) -> BinaryIO:
    """Open a regular file to read; a pipe would block."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError(f'{path} is not a regular file, but a folder, pipe, socket or device; remove it.')
    return open(path, 'rb')


@contextlib.contextmanager
def _reading(label: str) -> Iterator[None]:
    """Convert any exception of reading a file, or of a decoder, to InputError."""
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f'{label} is damaged or not an image; get it again or remove it.') from None
    except FileNotFoundError:
        raise InputError(f'{label} does not exist; correct the path.') from None
    except Exception as error:  # Pillow's decoders raise anything from OSError to SyntaxError
        damaged = InputError(f'{label} is damaged or not an image ({error}); get it again or remove it.')
        raise system_error(error) or damaged from None


@contextlib.contextmanager
def _without_limit() -> Iterator[None]:
    """Lift Pillow's limit on the number of pixels, because large images are not an attack, and silence its warnings."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings(action='ignore'):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _has_end(image: Image.Image, tail: bytes, size: int) -> bool:
    """Return whether a file's own structure shows that its end is there; False where only decoding shows it."""
    if image.format != 'TIFF':
        return image.format == 'JPEG' and tail.endswith(_JPEG_END)
    tags = image.tag_v2  # type: ignore[attr-defined]
    return any(
        all(start + length <= size for start, length in zip(tags[offsets], tags[counts], strict=True))
        for offsets, counts in ((273, 279), (324, 325))  # strips, tiles
        if offsets in tags and counts in tags
    )


def read_image(path: str, order: Literal['rgb', 'bgr'] = 'rgb') -> np.ndarray:
    """Read an image file as (H, W, 3) uint8, or raise InputError; ``'bgr'`` is the order of OpenCV's functions."""
    with _reading(path), _open(path) as file:
        data = np.frombuffer(file.read(), np.uint8)
    return decode_image(data, path, cv2.IMREAD_COLOR_RGB if order == 'rgb' else cv2.IMREAD_COLOR)


def decode_image(data: np.ndarray, label: str, flag: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """Decode the bytes of an image file, (n,) uint8, as BasicSR does, to (H, W, 3) uint8 for the default ``flag``.

    OpenCV compares a PNG with its checksums.

    Raises:
        InputError: The image cannot be decoded. The message calls it ``label``.
    """
    try:
        image = cv2.imdecode(data, flag) if data.size else None
    except cv2.error:  # more than MAX_PIXELS
        image = None
    if image is None:
        raise InputError(f'{label} is damaged or not an image; get it again, or remove it with its pair.')
    return image


def png_chunks(data: memoryview) -> list[bytes]:
    """Compare all bytes of a PNG with its own checksums, and return the types of its chunks: ``[b'IHDR', …, b'IEND']``.

    Raises:
        ValueError: The file is not a PNG, cut short, or damaged.
    """
    if data[:8] != _PNG_SIGNATURE:
        raise ValueError('it is not a PNG')
    position, types = 8, list[bytes]()
    while position < len(data) and types[-1:] != [b'IEND']:
        end = position + 12 + int.from_bytes(data[position : position + 4], 'big')
        if end > len(data):
            raise ValueError('it is cut short')
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], 'big'):
            raise ValueError('its checksums do not match')
        types.append(bytes(data[position + 4 : position + 8]))
        position = end
    if types[:1] != [b'IHDR'] or types[-1:] != [b'IEND'] or b'IDAT' not in types:
        raise ValueError('it is cut short')
    return types
