"""From folders of pictures to the stores that training reads: checked, in one parallel pass, resumable."""

import collections
import hashlib
import json
import math
import os

import numpy as np

from lkdn_basicsr.data.image_files import pair_images
from lkdn_basicsr.data.prepare.formats import PngFormat, RawFormat
from lkdn_basicsr.data.prepare.store_writer import StoreWriter, begun_settings, finished_settings
from lkdn_basicsr.data.prepare.workers import Plan, check_pictures
from lkdn_basicsr.data.prepare.write import bytes_in_words, write_stores
from lkdn_basicsr.data.raw_store import read_index
from lkdn_basicsr.errors import InputError

# The data sets of the paper: their training pictures, and where their archives put HR and LR.
DF2K = {
    'DIV2K': ([f'{n:04d}' for n in range(1, 801)], 'DIV2K_train_HR', 'DIV2K_train_LR_bicubic'),
    'Flickr2K': ([f'{n:06d}' for n in range(1, 2651)], 'Flickr2K_HR', 'Flickr2K_LR_bicubic'),
}


def prepare_df2k(out, div2k=None, flickr2k=None, allow_missing=False, scales=(4,), **options):
    """Make the stores of DIV2K, Flickr2K, or both together (DF2K), from the folders as they are downloaded.

    Args:
        out (str): Folder for the stores ``DF2K_train_HR.lmdb``, ``DF2K_train_LR_bicubic_X4.lmdb``, ...
        div2k (str | None): Folder that holds ``DIV2K_train_HR`` and, if at hand, ``DIV2K_train_LR_bicubic/X4``.
        flickr2k (str | None): Folder that holds ``Flickr2K_HR`` and, if at hand, ``Flickr2K_LR_bicubic/X4``.
        allow_missing (bool): Go on without pictures that are missing, and make LR pictures that are.
        scales, options: See `prepare`.

    Returns:
        list[str]: The stores.

    Raises:
        InputError: See `prepare`.
    """
    pictures, problems, missing = [], [], []
    folders = {name: folder for name, folder in (('DIV2K', div2k), ('Flickr2K', flickr2k)) if folder}
    for name, folder in folders.items():
        expected, hr_name, lr_name = DF2K[name]
        hr = os.path.join(folder, hr_name)
        if not os.path.isdir(hr):  # the HR folder itself was given
            hr, folder = folder, os.path.dirname(os.path.normpath(folder))
        lr = {}
        for scale in scales:
            # As unpacked by itself, and as unpacked into a folder named like the archive.
            for middle in (lr_name, 'LR_bicubic', os.path.join(f'{lr_name}_X{scale}', lr_name)):
                if os.path.isdir(os.path.join(folder, middle, f'X{scale}')):
                    lr.setdefault(scale, os.path.join(folder, middle, f'X{scale}'))
        found, unpaired, left_over = pair_images(hr, lr)
        absent = sorted(set(expected) - {picture.name for picture in found})
        missing += [f'{hr} lacks {text}' for text in ranges(absent)]
        problems += [
            f'{picture.hr} is not a training picture of {name}'
            for picture in found
            if picture.name not in set(expected)
        ]
        missing += unpaired
        problems += left_over
        pictures += found
    prefix = 'DF2K' if len(folders) == 2 else next(iter(folders))
    return prepare(
        pictures,
        out,
        scales=scales,
        prefix=f'{prefix}_train_',
        problems=problems,
        missing=missing,
        allow_missing=allow_missing,
        **options,
    )


def prepare_folder(out, hr, lr=None, allow_missing=False, scales=(4,), **options):
    """Make the stores ``HR.lmdb``, ``LR_bicubic_X4.lmdb``, ... from any folder of HR pictures.

    Args:
        out (str): Folder for the stores.
        hr (str): Folder of HR pictures.
        lr (str | None): Folder of LR pictures, or of one folder ``X4`` for each scale; without it they are made.
        allow_missing (bool): Make LR pictures that are missing.
        scales, options: See `prepare`.

    Returns:
        list[str]: The stores.

    Raises:
        InputError: See `prepare`.
    """
    folders = {}
    if lr:
        folders = {scale: os.path.join(lr, f'X{scale}') for scale in scales}
        folders = {scale: folder for scale, folder in folders.items() if os.path.isdir(folder)}
        if not folders:
            if len(scales) > 1:
                raise InputError(
                    f'{lr} has no folders {", ".join(f"X{scale}" for scale in scales)}; give one for each '
                    'scale, or ask for one scale at a time.'
                )
            folders = {scales[0]: lr}
    pictures, missing, problems = pair_images(hr, folders)
    return prepare(
        pictures, out, scales=scales, problems=problems, missing=missing, allow_missing=allow_missing, **options
    )


def ranges(names):
    """Numbered names in words: ``['0003', '0004', '0007']`` becomes ``['0003 to 0004', '0007']``."""
    runs = []
    for name in names:
        if runs and int(runs[-1][1]) + 1 == int(name):
            runs[-1][1] = name
        else:
            runs.append([name, name])
    return [first if first == last else f'{first} to {last}' for first, last in runs]


def prepare(
    pictures,
    out,
    scales=(4,),
    prefix='',
    format='raw',
    crop_size=480,
    step=240,
    thresh=0,
    workers=None,
    verify_lr=False,
    allow_missing=False,
    problems=(),
    missing=(),
    say=lambda line: None,
    progress=False,
):
    """Make one HR store, and one LR store for each scale.

    All pictures are looked at first, and everything that is wrong is reported together. HR pictures are cropped at the
    right and bottom to multiples of every scale. LR pictures that are not given are made with `imresize`, edges
    mirrored.

    Killed at any moment, the same call goes on where it stopped. Finished stores are left alone.

    Args:
        pictures (list[ImagePair]): See `picture_files.pair`.
        out (str): Folder for the stores; made where it is missing.
        scales (Sequence[int]): Scales of the LR stores.
        prefix (str): What the stores' names begin with.
        format (str): ``'raw'`` (see `store`), or ``'png'`` for BasicSR's sub-images.
        crop_size, step, thresh (int): The windows of the PNG format, in HR pixels.
        workers (int | None): Processes; as many as there are cores.
        verify_lr (bool): Compare LR pictures that are given with what `imresize` makes of their HR.
        allow_missing (bool): Go on when something is ``missing``.
        problems, missing (Sequence[str]): What was found wrong before, to be reported with the rest.
        say (Callable[[str], None]): Receives lines for the user.
        progress (bool): Show progress bars.

    Returns:
        list[str]: The stores, HR first.

    Raises:
        InputError: Pictures that cannot be used, other settings than a store was made with, no room, a full disk, a
            worker that was killed.
    """
    scales = tuple(sorted(set(scales)))
    format = {'raw': RawFormat, 'png': lambda: PngFormat(crop_size, step, thresh)}[format]()
    formats = {scale: _at_scale(format, scale) for scale in (1, *scales)}
    out = os.path.abspath(out)
    paths = {scale: os.path.join(out, f'{prefix}LR_bicubic_X{scale}{format.suffix}.lmdb') for scale in scales}
    paths = {1: os.path.join(out, f'{prefix}HR{format.suffix}.lmdb'), **paths}
    # The order of BasicSR's listing of sub-images, so that both formats hold the same windows in the same order.
    pictures = sorted(pictures, key=lambda picture: f'{picture.name}_s')
    workers = workers or len(os.sched_getaffinity(0))
    plan = Plan(pictures, formats, scales, _multiple(paths[1], scales), verify_lr)
    settings = {scale: _settings(plan, scale) for scale in paths}
    writers = {scale: StoreWriter(path, settings[scale]) for scale, path in paths.items()}
    problems = list(problems) if allow_missing else [*missing, *problems]
    twice = [name for name, count in collections.Counter(picture.name for picture in pictures).items() if count > 1]
    problems += [f'{name} is the name of several pictures' for name in twice]
    unfinished = {scale: writer for scale, writer in writers.items() if not writer.finished}
    if not unfinished and not problems and not verify_lr:
        say(f'Already complete: {", ".join(paths.values())}.')
        return list(paths.values())
    say(f'Checking {len(pictures):,} pictures.')
    problems += check_pictures(plan, workers, progress)
    if problems:
        raise InputError(
            f'{len(problems)} problem{"s" * (len(problems) > 1)} with the pictures; mend or remove them'
            f'{", or add --allow-missing where they are only missing" if missing else ""}, then run this '
            'again:\n  ' + '\n  '.join(problems)
        )
    if unfinished:
        write_stores(plan, unfinished, workers, say, progress)
    _summarize(plan, paths, say, missing if allow_missing else ())
    return list(paths.values())


def _at_scale(format, scale):
    """The format for the pictures at 1 / scale: windows are divided by it."""
    if format.suffix == '' or scale == 1:
        return format
    for name, size in (('--crop-size', format.crop_size), ('--step', format.step), ('--thresh', format.thresh)):
        if size % scale:
            raise InputError(
                f'{name} {size} is not a multiple of the scale {scale}, so LR and HR windows would not '
                'match; choose a multiple of every scale.'
            )
    return PngFormat(format.crop_size // scale, format.step // scale, format.thresh // scale)


def _multiple(hr_path, scales):
    """What the sides of the HR pictures are made multiples of: that of an HR store that is there, if it serves."""
    asked = math.lcm(*scales)
    settings = finished_settings(hr_path)
    if settings:
        stored = settings.get('sides_multiple_of', asked)
        sides = np.array(read_index(hr_path)['shapes'])[:, :2]
        return stored if not np.any(sides % asked) else asked
    stored = (begun_settings(hr_path) or {}).get('sides_multiple_of', asked)
    return stored if stored % asked == 0 else asked


def _settings(plan, scale):
    """Everything that decides what is in the store of a scale (1 is HR). Pictures count by name and size of file."""
    files = [picture.hr if scale == 1 else picture.lr.get(scale, picture.hr) for picture in plan.pictures]
    sizes = [(picture.name, os.path.getsize(file)) for picture, file in zip(plan.pictures, files, strict=True)]
    digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()[:12]
    given = sum(scale in picture.lr for picture in plan.pictures)
    made = {0: 'imresize', len(plan.pictures): 'given'}.get(given, f'{given} given, others imresize')
    format = plan.format[scale]
    return dict(
        format=format.name,
        version=format.version,
        role='gt' if scale == 1 else 'lq',
        scale=scale,
        sides_multiple_of=plan.multiple,
        **format.settings(),
        **({} if scale == 1 else {'lr': made}),
        pictures=f'{len(files)} ({sum(size for _, size in sizes)} bytes, {digest})',
    )


def _summarize(plan, paths, say, missing):
    for path in paths.values():
        size = sum(os.stat(entry).st_blocks * 512 for entry in os.scandir(path))
        say(f'{path}: {len(plan.pictures):,} pictures, {bytes_in_words(size)}.')
    cropped = sum(plan.cropped(picture) != picture.shape for picture in plan.pictures)
    if cropped:
        say(f'{cropped:,} pictures were cropped at the right or bottom to multiples of {plan.multiple}.')
    for scale in plan.scales:
        made = sum(scale not in picture.lr for picture in plan.pictures)
        if made:
            say(f"{made:,} LR pictures at x{scale} were made from HR, by MATLAB's bicubic.")
    if missing:
        say(f'Went on although something was missing: {"; ".join(missing)}.')
