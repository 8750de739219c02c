"""What a case changes: tables of small functions.

A function gets a random generator and the path of a file, changes the file, and returns what it did, for the reader of
a failure. ``MUTATORS`` has those for each kind of file; which of them a case calls is in ``mutate_file``.
"""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from PIL import Image

from lkdn_basicsr.checkpoints import sha256
from lkdn_basicsr.data.raw_store import write_index
from lkdn_basicsr.options.schema import SECTIONS
from tests.fuzz.values import JSON, NUMBERS, PATHS, SETTINGS, TYPES, YAML

Mutator = Callable[[Random, Path], str]

KEYS = sorted({option.key for options in SECTIONS.values() for option in options if '*' not in option.key})
PLACEHOLDER = 'PLACEHOLDER'


# ----------------------------------------------------- bytes ------------------------------------------------------ #


def flip_bits(rng: Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 20))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def truncate(rng: Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def zero_range(rng: Random, data: bytearray) -> None:
    start, size = rng.randrange(len(data)), rng.choice((1, 16, 512, 4096, len(data)))
    data[start : start + size] = bytes(len(data[start : start + size]))


def insert_bytes(rng: Random, data: bytearray) -> None:
    start = rng.choice((0, rng.randrange(len(data)), len(data)))
    data[start:start] = rng.randbytes(rng.choice((1, 4, 100, 10_000)))


def remove_bytes(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 4, 100))]


def swap_ranges(rng: Random, data: bytearray) -> None:
    size = rng.randint(1, max(1, len(data) // 2))
    one, other = sorted(rng.randrange(len(data) - size + 1) for _ in range(2))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


def change_bytes(rng: Random, path: Path) -> str:
    data, function = bytearray(path.read_bytes()), rng.choice(BYTES)
    function(rng, data)
    path.write_bytes(data)
    return f'{function.__name__} of {path}'


BYTES = (flip_bits, truncate, zero_range, insert_bytes, remove_bytes, swap_ranges)

# ----------------------------------------------------- files ------------------------------------------------------ #


def replace_by(rng: Random, path: Path) -> str:
    """Replace a file, or an output folder, by something else."""
    kind = rng.choice(
        ('nothing', 'empty file', 'folder', 'FIFO', '/dev/zero', '/dev/full', 'loop', 'nowhere', 'locked')
    )
    if kind == 'locked' and path.exists():  # no obstacle for root
        path.chmod(0)
        return f'{path} is not readable'
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if kind == 'empty file':
        path.touch()
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'FIFO':
        os.mkfifo(path)
    elif kind != 'nothing':
        path.symlink_to(path.name if kind == 'loop' else kind)
    return f'{path} is replaced by {kind}'


def replace_by_other_kind(rng: Random, path: Path) -> str:
    other = rng.choice(['train.yml', 'lkdn.pth', 'raw/HR.lmdb/data.mdb', 'raw/HR.lmdb/index.json', 'train/gt/00.png'])
    path.write_bytes(Path(other).read_bytes())
    return f'{path} is replaced by {other}'


def swap_with_sibling(rng: Random, path: Path) -> str:
    siblings = sorted(p for p in path.parent.iterdir() if p.suffix == path.suffix and p.is_file() and p != path)
    other = rng.choice(siblings or [path])
    one_data, other_data = path.read_bytes(), other.read_bytes()
    path.write_bytes(other_data)
    other.write_bytes(one_data)
    return f'{path} and {other} are swapped'


def change_folder(rng: Random, path: Path) -> str:
    """Damage the folder of a file."""
    kind = rng.choice(('removed', 'file', 'loop', 'extra'))
    if path.parent == Path() or kind == 'extra':
        name = rng.choice(('Thumbs.db', '.hidden.png', 'x.png', '7.state', 'net_g_7.pth', '00.jpg', 'copy.json'))
        path.with_name(name).write_bytes(rng.choice((b'', b'junk', path.read_bytes())))
        return f'{name} is added to {path.parent}'
    shutil.rmtree(path.parent)
    if kind == 'file':
        path.parent.write_text('')
    elif kind == 'loop':
        path.parent.symlink_to(path.parent.name)
    return f'{path.parent} is replaced by {kind}'


FILES = (replace_by, replace_by_other_kind, swap_with_sibling, change_folder)

# -------------------------------------------- trees of dicts and lists -------------------------------------------- #


def edit(rng: Random, tree: Any, new_value: Callable[[Any, Any], tuple[str, Any]]) -> str:
    """Change one entry of a tree in place; ``new_value`` maps a key and its old value to a description and a value."""
    path, container, key = [], tree, None
    while key is None or (isinstance(container[key], dict | list) and container[key] and rng.random() < 0.8):
        container = container if key is None else container[key]
        key = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        path.append(str(key)[:40])
    label, kind = ':'.join(path), rng.choice(('replace',) * 5 + ('remove', 'rename', 'add', 'copy'))
    if kind == 'remove':
        del container[key]
    elif kind == 'rename' and isinstance(container, dict):
        new_key = rng.choice((str(key)[:-1], f'{key}x', str(key).upper(), 7, 'params', 'type', rng.choice(KEYS)))
        container[new_key] = container.pop(key)
        label += f' to {new_key}'
    elif kind == 'add' and isinstance(container, dict):
        new_key = rng.choice((*KEYS, 'x', 'params_ema', 'network_d', 'perceptual_opt'))
        label, container[new_key] = new_value(new_key, None)
        label = f'{":".join([*path[:-1], new_key])} = {label}'
    elif kind == 'copy' and isinstance(container, dict):
        other = rng.choice(list(container))
        container[other] = container[key]
        label += f' to {other}'
    else:
        kind = 'replace'
        text, container[key] = new_value(key, container[key])
        label += f' = {text}'
    return f'{kind} {label}'


def _text_value(rng: Random, texts: list[str], chosen: list[str]) -> Callable[[Any, Any], tuple[str, Any]]:
    """Return a function for :func:`edit` that inserts the placeholder of a text, and appends the text to ``chosen``."""

    def new_value(key: Any, old: Any) -> tuple[str, Any]:
        text = rng.choice(TYPES) if key == 'type' and rng.random() < 0.8 else rng.choice(texts)
        chosen.append(text)
        return shown(text), PLACEHOLDER

    return new_value


def shown(text: object) -> str:
    """Return a text as it is in a line, shortened."""
    line = str(text) if str(text).isprintable() else ascii(text)
    return line if len(line) <= 60 else f'{line[:40]}… ({len(line)} characters)'


def change_options(rng: Random, path: Path) -> str:
    tree, chosen = yaml.safe_load(path.read_text()), []
    what = edit(rng, tree, _text_value(rng, YAML, chosen))
    text = yaml.safe_dump(tree, sort_keys=False)
    path.write_text(text.replace(PLACEHOLDER, *chosen or ['']))
    return f'{what} in {path}'


def change_json(rng: Random, path: Path) -> str:
    """Change an entry; ``index.json`` gets a valid checksum if it is still JSON."""
    tree, chosen = json.loads(path.read_text()), []
    what = edit(rng, tree, _text_value(rng, JSON, chosen))
    path.write_text(json.dumps(tree).replace(json.dumps(PLACEHOLDER), *chosen or ['']))
    if path.name == 'index.json':
        with suppress(ValueError, RecursionError, KeyError):
            tree = json.loads(path.read_text())
            del tree['checksum']
            write_index(str(path.parent), tree)
    return f'{what} in {path}'


def change_settings(rng: Random, path: Path) -> str:
    """Set some options; blocks that are missing are created."""
    tree, settings = yaml.safe_load(path.read_text()), rng.sample(SETTINGS, rng.choice((1, 1, 2, 3)))
    for setting in settings:
        keys, _, text = setting.partition('=')
        *parents, last = keys.split(':')
        block = tree
        for key in parents:
            if not isinstance(block.get(key), dict):
                block[key] = {}
            block = block[key]
        block[last] = yaml.safe_load(text)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return f'{", ".join(settings)} in {path}'


TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    'NaN': lambda x: torch.full_like(x, float('nan')) if x.is_floating_point() else x + 1,
    '1e30': lambda x: x + 1e30,
    'float64': torch.Tensor.double,
    'float16': torch.Tensor.half,
    'int64': torch.Tensor.long,
    'bool': torch.Tensor.bool,
    'complex': lambda x: x.to(torch.complex64),
    'flat': torch.Tensor.flatten,
    'batch': lambda x: x[None],
    'transposed': lambda x: x.transpose(0, -1) if x.dim() else x,
    'half of it': lambda x: x[: len(x) // 2] if x.dim() else x,
    'twice': lambda x: torch.cat([x, x]) if x.dim() else x[None],
    '5×5': lambda x: torch.nn.functional.pad(x, (1, 1, 1, 1)) if x.dim() >= 2 else x[None],
    'empty': lambda x: x.new_zeros(0),
    'number': lambda x: x.sum().item(),
    'list': torch.Tensor.tolist,
    'sparse': torch.Tensor.to_sparse,
    'meta': lambda x: x.to('meta'),
    'quantized': lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
    'parameter': lambda x: torch.nn.Parameter(x.float()),
    'expanded': lambda x: x.sum().expand(x.shape),
}
OBJECTS = [None, True, 0, -1, 7, 1.5, 1e300, float('nan'), 10**400, '', 'x', 'a/b', '\udcff', [], {}, [None], {'a': 1}]
OBJECTS += [torch.zeros(3), torch.tensor(1), {7: torch.zeros(1)}, [torch.zeros(1)], b'x', (1, 2), torch.float32, 1j]


def _load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def change_checkpoint(rng: Random, path: Path) -> str:
    """Change an entry of a network or a training state. A state may get the new checksum of its network."""
    tree = _load(path)

    def new_value(_: Any, old: Any) -> tuple[str, Any]:
        name = rng.choice(list(TENSORS))
        if isinstance(old, torch.Tensor) and rng.random() < 0.8:
            return name, TENSORS[name](old)
        value = rng.choice(OBJECTS)
        return shown(value), value

    what = edit(rng, tree, new_value) if rng.random() < 0.95 else f'replace all by {shown(tree := rng.choice(OBJECTS))}'
    torch.save(tree, path, _use_new_zipfile_serialization=rng.random() < 0.9)
    states = path.parent.parent.glob('training_states/*.state') if path.suffix == '.pth' else ()
    for file in states if rng.random() < 0.7 else ():
        state = _load(file)
        if path.name in state['files']:
            state['files'][path.name] = sha256(str(path))
            torch.save(state, file)
    return f'{what} in {path}'


# ------------------------------------------------------ text ------------------------------------------------------ #


def change_text(rng: Random, path: Path) -> str:
    """Change a line of a text file."""
    lines = path.read_text().splitlines()
    i, kind = (
        rng.randrange(len(lines)),
        rng.choice(('typo', 'indent', 'double', 'remove', 'tab', 'colon', 'NUL', 'join')),
    )
    line = lines[i]
    place = rng.randrange(len(line) or 1)
    if kind == 'typo':
        lines[i] = line[:place] + rng.choice('abcxyz_-{}[]&*!|>%@`#",:') + line[place + rng.randrange(2) :]
    elif kind == 'indent':
        lines[i] = rng.choice((line[1:], f' {line}', f'    {line}'))
    elif kind == 'remove':
        del lines[i]
    elif kind == 'join':
        lines[i : i + 2] = [''.join(lines[i : i + 2])]
    else:
        replacement = {'double': f'{line}\n{line}', 'tab': f'\t{line}', 'colon': f'{line}: x', 'NUL': f'{line}\0'}
        lines[i] = replacement[kind]
    path.write_text('\n'.join(lines) + '\n')
    return f'{kind} in line {i + 1} of {path}'


def change_encoding(rng: Random, path: Path) -> str:
    encoding = rng.choice(('utf-16', 'utf-32-le', 'utf-8-sig', 'cp037'))
    path.write_bytes(path.read_text().encode(encoding))
    return f'{path} is in {encoding}'


def set_base(rng: Random, path: Path) -> str:
    """Add a base to an option file."""
    base = rng.choice([*map(json.dumps, (path.name, 'derived.yml', 'nothing.yml', 'train_LKDN_x4.yml')), *YAML])
    path.write_text(f'base: {base}\n{path.read_text()}')
    return f'base: {shown(base)} in {path}'


# ----------------------------------------------------- images ----------------------------------------------------- #


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the contents of the chunks of a PNG."""
    place = 8
    while place < len(data):
        (size,) = struct.unpack('>I', data[place : place + 4])
        yield data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        place += size + 12


def change_png(rng: Random, path: Path) -> str:
    """Change the contents of a PNG, with valid CRCs."""
    data = path.read_bytes()
    kind = rng.choice(('header', 'damaged stream', 'missing rows', 'no data', 'extra rows', 'extra chunk', 'reordered'))
    chunks = dict(_chunks(data))
    pixels = bytearray(zlib.decompress(chunks[b'IDAT']))
    if kind == 'header':
        fields = list(struct.unpack('>IIBBBBB', chunks[b'IHDR']))
        i = rng.randrange(7)
        fields[i] = rng.choice((100_000, 0, 1 << 31, fields[i] + 1)) if i < 2 else rng.choice((0, 1, 3, 6, 16, 255))
        if i == 0 and rng.random() < 0.5:
            fields[1] = fields[0]
        chunks[b'IHDR'] = struct.pack('>IIBBBBB', *fields)
        kind = f'header {fields}'
    elif kind == 'extra chunk':
        bomb = b'x\0\0' + zlib.compress(bytes(50_000_000))
        kind = rng.choice(('zTXt', 'iCCP', 'tRNS', 'eXIf', 'ABCD', 'acTL'))
        chunks = {b'IHDR': chunks[b'IHDR'], kind.encode(): bomb, **chunks}
    elif kind == 'reordered':
        chunks = dict(reversed(chunks.items()))
    elif kind == 'no data':
        del chunks[b'IDAT']
    else:
        if kind == 'missing rows':
            truncate(rng, pixels)
        elif kind == 'extra rows':
            pixels = pixels + pixels
        stream = bytearray(zlib.compress(bytes(pixels)))
        if kind == 'damaged stream':
            rng.choice(BYTES)(rng, stream)
        chunks[b'IDAT'] = bytes(stream)
    packed = (
        struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))
        for name, body in chunks.items()
    )
    path.write_bytes(data[:8] + b''.join(packed))
    return f'{kind} of {path}'


SIZES = ((1, 1), (2, 2), (1, 40), (7, 7), (8, 8), (15, 16), (16, 16), (17, 16), (31, 32), (32, 32), (64, 64), (3, 2000))
MODES = ('1', 'L', 'LA', 'P', 'RGBA', 'CMYK', 'YCbCr', 'HSV', 'I', 'I;16', 'F')
FORMATS = ('JPEG', 'BMP', 'GIF', 'WEBP', 'TIFF', 'ICO', 'PPM', 'JPEG2000')


def change_image(rng: Random, path: Path) -> str:
    """Save an image in another size, mode or format, under the same name."""
    with Image.open(path) as image:
        image.load()
    what = []
    if rng.random() < 0.4:
        image = image.resize(rng.choice(SIZES))
        what.append(f'{image.width}×{image.height}')
    if not what or rng.random() < 0.5:
        mode = rng.choice(MODES)
        image = image.convert('L').convert(mode) if mode in ('I', 'I;16', 'F') else image.convert(mode)
        if mode in ('LA', 'RGBA') and rng.random() < 0.7:
            image.putalpha(100)
        what.append(mode)
    formats = ['PNG', rng.choice(FORMATS), 'TIFF']
    for kind in formats if rng.random() < 0.7 else formats[1:]:  # the first that can store this mode
        with suppress(OSError, ValueError):
            exif = Image.Exif()
            exif[0x0112] = rng.randint(1, 9)  # orientation
            image.save(path, kind, exif=exif)
            break
    return f'{path} is {" ".join(what)} as {kind}'


NAMES = '\udcff.png  %s.png  a b.png  a\nb.png  \x1b[31m.png  {}.png  日本.png  00.PNG  -x.png  00.x.png  00  00.txt'
NAMES = [*NAMES.split('  '), '<b>.png', '|.png', "'.png", '01x2.png', '..png', f'{"x" * 251}.png']


def rename_image(rng: Random, path: Path) -> str:
    """Rename an image, or the images of its name in all folders next to its own."""
    name = rng.choice(NAMES)
    paths = sorted(path.parent.parent.glob(f'*/{path.name}')) if rng.random() < 0.7 else [path]
    for each in paths:
        each.rename(each.with_name(name))
    return f'{path} is {shown(name)}' + ', as in the other folders' * (len(paths) > 1)


MUTATORS: dict[str, tuple[Mutator, ...]] = {
    '.yml': (change_options,) * 5 + (change_settings,) * 5 + (change_text, change_text, change_encoding, set_base),
    '.pth': (change_checkpoint,) * 3,
    '.state': (change_checkpoint,) * 4,
    '.json': (change_json,) * 4,
    '.png': (change_image, change_image, change_png, rename_image),
    '.txt': (change_text,),
}


def mutate_file(rng: Random, path: Path) -> str:
    """Change a file in a way that its name suggests, or in one for any file; return what was done."""
    specific = MUTATORS.get(path.suffix, ())
    chosen = rng.choice(specific) if specific and rng.random() < 0.7 else rng.choice((change_bytes, *FILES))
    return chosen(rng, path)


# ------------------------------------------------- command lines -------------------------------------------------- #


FLAGS = (
    '--debug  --local_rank 3  --launcher pytorch  --launcher slurm  --check  --x  --help  --auto_resume  --iters 0  x'
)


def change_arguments(rng: Random, arguments: list[str]) -> str:
    """Change the arguments of a command in place."""
    kind = rng.choice(('remove', 'double', 'swap', 'replace', 'replace', 'add', 'force', 'force', 'force'))
    i, j = (rng.randrange(1, len(arguments)) for _ in range(2))
    value = rng.choice(PATHS + NUMBERS)
    if kind == 'remove':
        value = arguments.pop(i)
    elif kind == 'double':
        value = arguments[i]
        arguments.insert(j, value)
    elif kind == 'swap':
        arguments[i], arguments[j] = arguments[j], arguments[i]
        value = f'{i} and {j}'
    elif kind == 'replace':
        arguments[i] = value
    elif kind == 'add':
        value = rng.choice(FLAGS.split('  '))
        arguments += value.split()
    else:
        value = rng.choice(SETTINGS)
        if rng.random() < 0.5:
            value = f'{value.partition("=")[0]}={rng.choice(YAML)}'
        arguments += ['--force_yml', value]
    return f'{kind} {shown(value)} in the arguments'
