"""Option files: found by name, merged with their bases, changed by ``--force_yml``, and written back as YAML."""

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lkdn_basicsr.errors import InputError, hint, nearest
from lkdn_basicsr.options import safe_yaml

Keys = tuple[str, ...]  # the path of an option: ('train', 'optim_g', 'lr')

MAX_BYTES = 1 << 20  # a real option file has some 5 kB; this refuses a checkpoint that is given by mistake
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The option files of this package: an installed package contains them, in a clone they are next to it.
SHIPPED_FOLDER = os.path.join(_PACKAGE, 'shipped_options')
if not os.path.isdir(SHIPPED_FOLDER):
    SHIPPED_FOLDER = os.path.join(os.path.dirname(_PACKAGE), 'options')
# What parse_options adds to the options of the file, and dump_yaml leaves out again.
_DERIVED = ('dist', 'rank', 'world_size', 'auto_resume', 'is_train', 'root_path')
_DERIVED_PATHS = ('experiments_root', 'models', 'training_states', 'log', 'visualization', 'results_root')


def format_value(value: Any) -> str:
    """Return the value of an option as the middle of a message, shortened to 60 characters."""
    text = repr(dict(value) if isinstance(value, dict) else value)
    return text if len(text) <= 60 else f'{text[:57]}...'


class RunOptions(OrderedDict[str, Any]):
    """The options of a run; for BasicSR, a dictionary.

    Attributes:
        option_file: Path of the option file.
        effective: The options in effect, as the text of an option file that starts the same run.
        notes: Corrections and fallbacks that were applied to the options; for the log.
        differences: How they differ from the shipped option file of the same name.
        seed_is_drawn: Whether the file gives no ``manual_seed``; a resumed run then uses the seed of its checkpoint.
    """

    option_file: str = ''
    effective: str = ''
    notes: Sequence[str] = ()
    differences: Sequence[str] = ()
    seed_is_drawn: bool = False


class OptionFile:
    """An option file that was read, merged with its bases.

    Attributes:
        path: The file.
        opt: The options.
        places: File and line of every key.
        files: The file, its base, the base of that, and so on.
        forced: The keys that ``--force_yml`` set.
        notes: Corrections and fallbacks that were applied to the options; for the log.
    """

    def __init__(self, path: str, opt: OrderedDict[str, Any], lines: Mapping[Keys, int]) -> None:
        self.path = path
        self.opt = opt
        self.places: dict[Keys, tuple[str, int]] = {keys: (path, line) for keys, line in lines.items()}
        self.files = [path]
        self.forced: set[Keys] = set()
        self.notes: list[str] = []

    def where(self, *keys: str) -> str:
        """Return ``options/x.yml, line 12: train:optim_g:lr``; a key without a place gets that of its parent."""
        place = self.path
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.forced:
                place += ', --force_yml'
                break
            if keys[:end] in self.places:
                place = '{}, line {}'.format(*self.places[keys[:end]])
                break
        return f'{place}: {":".join(map(str, keys))}' if keys else place

    def error(self, keys: Keys, reason: str) -> InputError:
        """Return the error for the option at ``keys``; ``reason`` continues the sentence that the option begins."""
        return InputError(f'{self.where(*keys)} {reason}')


def find_option_file(path: str) -> str:
    """Return ``path`` if it exists, else the file or folder of that name among the shipped option files.

    ``train_LKDN_x4.yml`` and ``options/train_LKDN_x4.yml`` are both found from any folder.

    Raises:
        InputError: There is neither.
    """
    if os.path.exists(path):
        return path
    shipped = shipped_option_file(path)
    if shipped is not None:
        return shipped
    near = [file for file in (_nearest_file(path), _nearest_file(_shipped_path(path))) if file]
    raise InputError(
        f'The option file {path} does not exist, neither at that path nor in {SHIPPED_FOLDER}; '
        + (f'did you mean {" or ".join(near)}?' if near else 'check the path given with -opt')
    )


def shipped_option_file(path: str) -> str | None:
    """Return the shipped option file (or folder) of that relative path, which may begin with ``options/``, or None."""
    shipped = _shipped_path(path)
    inside = shipped.startswith(SHIPPED_FOLDER + os.sep)  # not so for absolute paths and those that begin with ..
    return shipped if inside and os.path.exists(shipped) else None


def _shipped_path(path: str) -> str:
    name = os.path.normpath(path).removeprefix('options' + os.sep)
    return os.path.normpath(os.path.join(SHIPPED_FOLDER, name))


def _nearest_file(path: str) -> str | None:
    """Return the option file in the folder of ``path`` whose name is most similar, or None."""
    folder = os.path.dirname(path)
    names = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
    near = nearest(os.path.basename(path), [name for name in names if name.endswith(('.yml', '.yaml'))])
    return os.path.join(folder, near) if near else None


def read_option_file(path: str | os.PathLike[str]) -> OptionFile:
    """Read an option file and its bases; nothing in them is executed.

    ``base: FILE``, relative to the file that has this line, names the option file that this one is based on; that file
    may have a base as well. A mapping is merged with the mapping of that name in the base, key by key; anything else
    replaces what the base has there. A mapping whose ``type`` differs from the base's replaces it: Adam gets none of
    Adan's betas.

    Args:
        path: The file, or the name of a shipped one: see :func:`find_option_file`.

    Returns:
        The merged options in the order of the base, without ``base``.

    Raises:
        InputError: A file is missing, unreadable, empty, not YAML or not a mapping; a key is given twice; a tag is not
            of plain data; a file is its own base.
    """
    return _merge_base(_read_one(find_option_file(os.fspath(path))), [])


def _read_one(path: str) -> OptionFile:
    """Read an option file without its base."""
    if os.path.isdir(path):
        raise InputError(f'{path} is a folder; give an option file with -opt')
    if not os.path.isfile(path) or os.path.getsize(path) > MAX_BYTES:
        raise InputError(f'{path} is not an option file: it is too large, or not a regular file')
    try:
        with open(path, 'rb') as file:
            text = file.read().decode('utf-8-sig')
    except OSError as error:
        raise InputError(f'The option file {path} cannot be read: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is not an option file: byte {error.start} is not UTF-8 text') from error
    opt, lines = safe_yaml.load(text, path)
    if opt is None:
        raise InputError(f'The option file {path} is empty; start from one of those in {SHIPPED_FOLDER}')
    if not isinstance(opt, dict):
        raise InputError(f'{path} is not an option file: it is one {type(opt).__name__}, not `key: value` lines')
    return OptionFile(path, OrderedDict(opt), lines)


def _merge_base(option_file: OptionFile, derived_files: list[str]) -> OptionFile:
    """Merge an option file, in place, into its base; ``derived_files`` are those that are based on it."""
    if 'base' not in option_file.opt:
        return option_file
    name = option_file.opt.pop('base')
    if not isinstance(name, str) or not name.strip():
        raise option_file.error(('base',), f'is {name!r}, but must be the path of an option file, relative to this one')
    path = os.path.join(os.path.dirname(option_file.path), os.path.expanduser(name))
    tidy = os.path.normpath(path)
    path = tidy if os.path.realpath(tidy) == os.path.realpath(path) else path  # they differ behind symbolic links
    if not os.path.isfile(path):
        near = _nearest_file(path)
        advice = f'did you mean {near}?' if near else 'the path is relative to the file that names it'
        raise option_file.error(('base',), f'is {name}, but {path} is not a file; {advice}')
    derived_files = [*derived_files, option_file.path]
    if any(os.path.samefile(path, other) for other in derived_files):
        raise option_file.error(('base',), f'is {name}, which is based on this file; remove one of the two bases')
    base = _merge_base(_read_one(path), derived_files)
    option_file.opt, replaced = _merge(base.opt, option_file.opt, ())
    kept = {
        keys: place
        for keys, place in base.places.items()
        if not any(keys[:end] in replaced for end in range(1, len(keys) + 1))
    }
    option_file.places = kept | option_file.places
    option_file.files += base.files
    return option_file


def _merge(base: dict[str, Any], derived: dict[str, Any], keys: Keys) -> tuple[OrderedDict[str, Any], set[Keys]]:
    """Merge two mappings at ``keys``; return the result, and the paths of what ``derived`` replaces in ``base``."""
    merged, replaced = OrderedDict(base), set()
    for key, value in derived.items():
        old, path = base.get(key), (*keys, key)
        if isinstance(old, dict) and isinstance(value, dict) and _same_type(old, value):
            merged[key], inner = _merge(old, value, path)
            replaced |= inner
        else:
            merged[key] = value
            replaced.add(path)
    return merged, replaced


def _same_type(base: dict[str, Any], derived: dict[str, Any]) -> bool:
    return 'type' not in base or 'type' not in derived or base['type'] == derived['type']


def force_options(option_file: OptionFile, entries: Iterable[str] | None) -> None:
    """Set options from ``--force_yml``, in place.

    Args:
        entries: ``a:b=value`` each. The option must be in the file. What follows the first ``=`` is read as YAML
            (``1e-3`` a number, ``~`` null, ``[1, 2]`` a list).

    Raises:
        InputError: An entry has no ``=``, names an option that is not in the file, or has a value that is not YAML.
    """
    place = option_file.path + (' or its base' if len(option_file.files) > 1 else '')
    for entry in entries or ():
        name, equals, text = entry.partition('=')
        keys = tuple(key.strip() for key in name.split(':'))
        label = f'--force_yml {entry}'
        if not equals or not all(keys):
            raise InputError(f'{label} is not of the form key:key=value, as in train:ema_decay=0.99')
        parent: Any = option_file.opt
        for depth, key in enumerate(keys):
            if not isinstance(parent, dict):
                raise InputError(f'{label}: {":".join(keys[:depth])} in {place} is a value, not a block of options')
            if key not in parent:
                raise InputError(f'{label}: {":".join(keys[: depth + 1])} is not in {place}; {hint(key, parent)}')
            if depth < len(keys) - 1:
                parent = parent[key]
        parent[keys[-1]] = safe_yaml.load(text.strip(), label)[0]
        option_file.places = {path: line for path, line in option_file.places.items() if path[: len(keys)] != keys}
        option_file.forced.add(keys)


def dump_yaml(opt: dict[str, Any]) -> str:
    """Return the effective options as the text of an option file.

    What ``parse_options`` derived (paths, rank, phases) is left out, so that the text, saved to a file, starts the same
    run again.
    """
    plain = _without(opt, _DERIVED)
    if isinstance(opt.get('path'), dict):
        plain['path'] = _without(opt['path'], _DERIVED_PATHS)
    if isinstance(opt.get('datasets'), dict):
        inherited = ('phase', 'scale') if 'scale' in opt else ('phase',)
        plain['datasets'] = {phase: _without(dataset, inherited) for phase, dataset in opt['datasets'].items()}
    return safe_yaml.dump(plain)


def _without(opt: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in opt.items() if key not in keys}
