"""Option files: found by name, merged with their bases, changed by ``--force_yml``, and written back as YAML."""

import functools
import operator
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lkdn_basicsr.errors import InputError, hint, nearest
from lkdn_basicsr.files import exists
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
    """The options of a run; for BasicSR, a dictionary."""

    option_file: str = ''  # its path
    effective: str = ''  # the options in effect, as the text of an option file that starts the same run
    notes: Sequence[str] = ()  # corrections and fallbacks that were applied to the options, for the log
    differences: Sequence[str] = ()  # from the shipped option file of the same name
    seed_is_drawn: bool = False  # manual_seed is not given; a resumed run then uses the seed of its checkpoint

    def networks(self) -> dict[str, dict[str, Any]]:
        """Return ``network_g`` and other blocks of that kind, by name."""
        return {key: block for key, block in self.items() if key.startswith('network_') and isinstance(block, dict)}


@dataclass
class OptionFile:
    """An option file that was read, merged with its bases."""

    path: str
    opt: RunOptions
    places: dict[Keys, tuple[str, int]]  # file and line of every key
    files: list[str]  # the file, its base, the base of that, and so on
    forced: set[Keys] = field(default_factory=set)  # what --force_yml set
    notes: list[str] = field(default_factory=list)  # corrections and fallbacks that were applied, for the log

    def block(self, keys: Keys) -> Any:
        """Return the block of options (or the value) at ``keys``."""
        return functools.reduce(operator.getitem, keys, self.opt)

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
    """Return ``path`` if it exists, else the shipped option file (or folder) of that name.

    ``train_LKDN_x4.yml`` and ``options/train_LKDN_x4.yml`` are both found from any folder.

    Raises:
        InputError: There is neither.
    """
    found = path if exists(path) else shipped_option_file(path)
    if found is None:
        advice = _advise([path, _shipped_path(path)], 'check the path')
        raise InputError(f'Option file {path} does not exist, neither at that path nor in {SHIPPED_FOLDER}; {advice}')
    return found


def shipped_option_file(path: str) -> str | None:
    """Return the shipped option file (or folder) of that relative path, which may begin with ``options/``, or None."""
    shipped = _shipped_path(path)
    inside = shipped.startswith(SHIPPED_FOLDER + os.sep)  # not so for absolute paths and those that begin with ..
    return shipped if inside and os.path.exists(shipped) else None


def _shipped_path(path: str) -> str:
    name = os.path.normpath(path).removeprefix('options' + os.sep)
    return os.path.normpath(os.path.join(SHIPPED_FOLDER, name))


def _advise(missing: Sequence[str], default: str) -> str:
    """Name the option files whose names are most similar to ``missing`` ones, in the folders of these."""
    found: dict[str, None] = {}  # without duplicates
    for path in missing:
        folder, name = os.path.split(path)
        files = os.listdir(folder or '.') if os.path.isdir(folder or '.') else []
        near = nearest(name, [file for file in files if file.endswith(('.yml', '.yaml'))])
        if near:
            found[os.path.join(folder, near)] = None
    return f'did you mean {" or ".join(found)}?' if found else default


def read_option_file(path: str | os.PathLike[str]) -> OptionFile:
    """Read an option file, or the shipped one of that name, and its bases; nothing in them is executed.

    ``base: FILE``, relative to the file that has this line, or the name of a shipped file, names the option file that
    this one is based on; that file may have a base as well. A mapping is merged with the mapping of that name in the
    base, key by key; anything else replaces what the base has there. A mapping whose ``type`` differs from the base's
    replaces it: Adam gets none of Adan's betas.

    Returns:
        The merged options in the order of the base, without ``base``.

    Raises:
        InputError: A file is missing, unreadable, empty, not YAML or not a mapping; a key is given twice; a tag is not
            of plain data; a file is its own base.
    """
    option_file = _merge_base(_read_one(find_option_file(os.fspath(path))), [])
    option_file.opt.option_file = option_file.path
    return option_file


def _read_one(path: str) -> OptionFile:
    """Read an option file without its base."""
    if os.path.isdir(path):
        raise InputError(f'{path} is a folder; give an option file with -opt')
    if not os.path.isfile(path) or os.path.getsize(path) > MAX_BYTES:
        raise InputError(f'{path} is not an option file: it is too large, or not a regular file')
    try:
        with open(path, 'rb') as file:
            text = file.read().decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is not an option file: byte {error.start} is not UTF-8 text') from error
    opt, lines = safe_yaml.load(text, path)
    if opt is None:
        raise InputError(f'The option file {path} is empty; start from one of those in {SHIPPED_FOLDER}')
    if not isinstance(opt, dict):
        raise InputError(f'{path} is not an option file: it is one {type(opt).__name__}, not `key: value` lines')
    return OptionFile(path, RunOptions(opt), {keys: (path, line) for keys, line in lines.items()}, [path])


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
    found = path if os.path.isfile(path) else shipped_option_file(name)
    if found is None or not os.path.isfile(found):
        advice = _advise([path, _shipped_path(name)], 'the path is relative to the file that names it')
        raise option_file.error(
            ('base',), f'is {name}, but {path} is not a file, and no shipped file has that name; {advice}'
        )
    derived_files = [*derived_files, option_file.path]
    if any(os.path.samefile(found, other) for other in derived_files):
        raise option_file.error(('base',), f'is {name}, which is based on this file; remove one of the two bases')
    base = _merge_base(_read_one(found), derived_files)
    merged, replaced = _merge(base.opt, option_file.opt, ())
    option_file.opt = RunOptions(merged)
    option_file.places = _without_places(base.places, replaced) | option_file.places
    option_file.files += base.files
    return option_file


def _merge(base: dict[str, Any], derived: dict[str, Any], keys: Keys) -> tuple[OrderedDict[str, Any], set[Keys]]:
    """Merge two mappings at ``keys``; return the result, and the paths of what ``derived`` replaces in ``base``."""
    merged, replaced = OrderedDict(base), set()
    for key, value in derived.items():
        old, path = base.get(key), (*keys, key)
        # The last condition is false only if both have a type and these differ.
        if isinstance(old, dict) and isinstance(value, dict) and (old | value).get('type') == (value | old).get('type'):
            merged[key], inner = _merge(old, value, path)
            replaced |= inner
        else:
            merged[key] = value
            replaced.add(path)
    return merged, replaced


def _without_places(places: dict[Keys, tuple[str, int]], replaced: set[Keys]) -> dict[Keys, tuple[str, int]]:
    """Return the places that are not at or below ``replaced`` keys."""
    return {keys: place for keys, place in places.items() if not any(keys[: len(r)] == r for r in replaced)}


def force_options(option_file: OptionFile, entries: Iterable[str] | None) -> None:
    """Set options from ``--force_yml``, in place, whether or not the file has them; ``check_schema`` then checks them.

    Args:
        entries: ``a:b=value``: an option and its value as YAML (``1e-3``, ``~``, ``[1, 2]``).

    Raises:
        InputError: An entry has no ``=``, is below a value, leaves out a dataset that is not in the file, or has a
            value that is not YAML.
    """
    place = option_file.path + (' or its base' if len(option_file.files) > 1 else '')
    for entry in entries or ():
        name, equals, text = entry.partition('=')
        keys = tuple(key.strip() for key in name.split(':'))
        label = f'--force_yml {entry if len(entry) <= 100 else f"{entry[:97]}..."}'
        if not equals or not all(keys):
            raise InputError(f'{label} is not of the form key:key=value, as in train:ema_decay=0.99')
        if keys[0] == 'base':
            raise InputError(f'{label}: the base is merged before; write it to a file, and give that with -opt')
        block: Any = option_file.opt
        for depth, key in enumerate(keys[:-1], 1):
            if block.get(key) is None:
                block[key] = OrderedDict()
                option_file.forced.add(keys[:depth])
            block = block[key]
            if not isinstance(block, dict):
                raise InputError(f'{label}: {":".join(keys[:depth])} in {place} is a value, not a block of options')
        value = safe_yaml.load(text.strip(), label)[0]
        if keys[:-1] == ('datasets',) and value is None and keys[-1] not in block:
            raise InputError(f'{label}: {name} is not in {place}; {hint(keys[-1], block)}')
        block[keys[-1]] = value
        option_file.places = _without_places(option_file.places, {keys})
        option_file.forced.add(keys)


def dump_yaml(opt: dict[str, Any]) -> str:
    """Return the options as the text of an option file; saved to a file, it starts the same run again.

    What ``parse_options`` derived (paths, rank, phases) is left out, and so are datasets that are ``~``.
    """
    plain = _without(opt, _DERIVED)
    if isinstance(opt.get('path'), dict):
        plain['path'] = _without(opt['path'], _DERIVED_PATHS)
    if isinstance(opt.get('datasets'), dict):
        inherited = ('phase', 'scale') if 'scale' in opt else ('phase',)
        datasets = {phase: block for phase, block in opt['datasets'].items() if isinstance(block, dict)}
        plain['datasets'] = {phase: _without(block, inherited) for phase, block in datasets.items()}
    return safe_yaml.dump(plain)


def _without(opt: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in opt.items() if key not in keys}
