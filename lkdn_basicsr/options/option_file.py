"""Option files as data: read with their bases, the place of every key known, changed, and written back."""

import math
import os
from collections import OrderedDict

from lkdn_basicsr.errors import InputError, hint, nearest
from lkdn_basicsr.options.safe_yaml import construct, dump

MAX_BYTES = 1 << 20  # a real option file has some 5 kB; this keeps a checkpoint given by mistake from being parsed
# What parse_options adds to the options of the file, and dump_yaml leaves out again.
DERIVED = {
    (): ('dist', 'rank', 'world_size', 'auto_resume', 'is_train', 'root_path'),
    ('path',): ('experiments_root', 'models', 'training_states', 'log', 'visualization', 'results_root'),
}


class OptionFile:
    """An option file as read, together with its bases.

    Attributes:
        path (str): The file, as it was given.
        opt (OrderedDict): The options.
        places (dict[tuple[str], tuple[str, int]]): Where every key stands, file and line, by the path of the key:
            ``('train', 'optim_g', 'lr')``.
        files (list[str]): The file, its base, the base of that, and so on.
        forced (set[tuple[str]]): The keys set by ``--force_yml``.
        notes (list[str]): What was taken otherwise than it was written; for the log.
    """

    def __init__(self, path, opt, lines):
        self.path, self.opt, self.files = path, opt, [path]
        self.places = {keys: (path, line) for keys, line in lines.items()}
        self.forced, self.notes = set(), []

    def where(self, *keys):
        """``options/x.yml, line 12: train:optim_g:lr``, with the place of the nearest key that has one."""
        place = self.path
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.forced:
                place += ', --force_yml'
                break
            if keys[:end] in self.places:
                place = '{}, line {}'.format(*self.places[keys[:end]])
                break
        return f'{place}: {":".join(map(str, keys))}' if keys else place

    def error(self, keys, what):
        """The InputError that says ``what`` is wrong with the option at ``keys``."""
        return InputError(f'{self.where(*keys)} {what}')


def read_option_file(path):
    """Reads an option file and its bases; nothing in them is executed.

    ``base: FILE``, relative to the file that says so, names the option file that this one differs from; that may have
    a base as well. A mapping is merged with the base's mapping of that name, key by key; anything else takes the place
    of what the base has there. A mapping that names another ``type`` than the base's takes nothing from it: Adam gets
    none of Adan's betas.

    Args:
        path (str): A YAML file, UTF-8.

    Returns:
        OptionFile: Merged options, in the order of the base, without ``base``; with the place of every key.

    Raises:
        InputError: The file or a base is missing, cannot be read, is not YAML, is empty, or is not a mapping; a key is
            there twice; a tag asks for anything but plain data; a file is its own base.
    """
    return _with_base(_read_one(os.fspath(path)), [])


def _with_base(source, above):
    """``source`` merged into its base; ``above`` are the files that are based on it."""
    if 'base' not in source.opt:
        return source
    name = source.opt.pop('base')
    if not isinstance(name, str) or not name.strip():
        raise source.error(('base',), f'is {name!r}, but must be the path of an option file, relative to this one')
    file = os.path.join(os.path.dirname(source.path), os.path.expanduser(name))
    tidy = os.path.normpath(file)
    file = tidy if os.path.realpath(tidy) == os.path.realpath(file) else file  # which symbolic links can prevent
    if not os.path.isfile(file):
        near = _nearest_file(file)
        raise source.error(
            ('base',),
            f'is {name}, but {file} is no file; '
            + (f'did you mean {near}?' if near else 'the path is relative to the file that names it'),
        )
    above = [*above, source.path]
    if any(os.path.samefile(file, other) for other in above):
        raise source.error(('base',), f'is {name}, which is based on this file; leave one of the two bases out')
    base = _with_base(_read_one(file), above)
    replaced = set()
    source.opt = _merge(base.opt, source.opt, (), replaced)
    kept = {
        keys: place
        for keys, place in base.places.items()
        if not any(keys[:end] in replaced for end in range(1, len(keys) + 1))
    }
    source.places = kept | source.places
    source.files += base.files
    return source


def _merge(below, above, keys, replaced):
    """``above`` on top of its base ``below``; the paths of what it takes the place of go into ``replaced``."""
    merged = OrderedDict(below)
    for key, value in above.items():
        old, path = below.get(key), (*keys, key)
        both = isinstance(value, dict) and isinstance(old, dict)
        if both and value.get('type', old.get('type')) == old.get('type', value.get('type')):
            merged[key] = _merge(old, value, path, replaced)
        else:
            merged[key] = value
            replaced.add(path)
    return merged


def _nearest_file(path):
    """The option file beside ``path`` whose name is most like it, or None."""
    folder = os.path.dirname(path)
    names = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
    near = nearest(os.path.basename(path), [name for name in names if name.endswith(('.yml', '.yaml'))])
    return near and os.path.join(folder, near)


def _read_one(path):
    """The option file by itself."""
    if os.path.isdir(path):
        raise InputError(f'{path} is a folder; give an option file with -opt')
    if not os.path.exists(path):
        near = _nearest_file(path)
        raise InputError(
            f'The option file {path} does not exist; '
            + (f'did you mean {near}?' if near else 'check the path given with -opt')
        )
    if not os.path.isfile(path) or os.path.getsize(path) > MAX_BYTES:
        raise InputError(f'{path} is not an option file: it is too large, or not a regular file')
    try:
        with open(path, 'rb') as f:
            text = f.read().decode('utf-8-sig')
    except OSError as err:
        raise InputError(f'The option file {path} cannot be read: {err.strerror}') from err
    except UnicodeDecodeError as err:
        raise InputError(f'{path} is not an option file: byte {err.start} is not UTF-8 text') from err
    opt, lines = construct(text, path)
    if opt is None:
        raise InputError(f'The option file {path} is empty; start from one of the files in options/')
    if not isinstance(opt, dict):
        raise InputError(f'{path} is not an option file: it holds one {type(opt).__name__}, not `key: value` lines')
    return OptionFile(path, opt, lines)


def load_yaml(path):
    """The options of a file, on those of its bases, as an OrderedDict; see :func:`read_option_file`."""
    return read_option_file(path).opt


def force_options(source, entries):
    """Sets keys from ``--force_yml``, in place.

    Args:
        source (OptionFile): Changed in place.
        entries (list[str] | None): ``a:b=value`` each. The key must be in the file; the value is read as YAML reads it
            (``1e-3`` a number, ``~`` null, ``[1, 2]`` a list), after the first ``=``.

    Raises:
        InputError: An entry has no ``=``, names a key that is not in the file, or has a value that is not YAML.
    """
    place = source.path + (' or its base' if len(source.files) > 1 else '')
    for entry in entries or ():
        name, equals, text = entry.partition('=')
        keys = tuple(key.strip() for key in name.split(':'))
        label = f'--force_yml {entry}'
        if not equals or not all(keys):
            raise InputError(f'{label} is not of the form key:key=value, as in train:ema_decay=0.99')
        parent = source.opt
        for depth, key in enumerate(keys):
            if not isinstance(parent, dict):
                raise InputError(f'{label}: {":".join(keys[:depth])} in {place} holds a value, not options')
            if key not in parent:
                raise InputError(f'{label}: {":".join(keys[: depth + 1])} is not in {place}; {hint(key, parent)}')
            if depth < len(keys) - 1:
                parent = parent[key]
        parent[keys[-1]] = construct(text.strip(), label)[0]
        source.places = {path: place for path, place in source.places.items() if path[: len(keys)] != keys}
        source.forced.add(keys)


def _without_derived(opt):
    plain = OrderedDict((key, value) for key, value in opt.items() if key not in DERIVED[()])
    if isinstance(plain.get('path'), dict):
        plain['path'] = OrderedDict((k, v) for k, v in opt['path'].items() if k not in DERIVED[('path',)])
    if isinstance(plain.get('datasets'), dict):
        inherited = ('phase', 'scale') if 'scale' in opt else ('phase',)
        plain['datasets'] = OrderedDict(
            (phase, OrderedDict((k, v) for k, v in dataset.items() if k not in inherited))
            for phase, dataset in opt['datasets'].items()
        )
    return plain


def dump_yaml(opt):
    """The effective options as the text of an option file.

    Args:
        opt (dict): What ``parse_options`` gave.

    Returns:
        str: YAML; what ``parse_options`` derived (paths, rank, phases) is left out, so that the text, saved to a file,
        starts the same run again.
    """
    return dump(_without_derived(opt))


def is_finite(value):
    """Whether ``value`` is a number other than nan and infinity; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
