"""Option files as data: read by a safe loader that knows the line of every key, changed, and written back."""

import difflib
import math
import os
import re
from collections import OrderedDict

import yaml

from lkdn_basicsr.errors import InputError

MAX_BYTES = 1 << 20  # a real option file has some 5 kB; this keeps a checkpoint given by mistake from being parsed
MAX_ENTRIES = 10_000  # aliases of aliases can stand for billions of entries
_PLAIN_TAGS = {f'tag:yaml.org,2002:{name}' for name in ('str', 'int', 'float', 'bool', 'null', 'seq', 'map', 'merge')}
_MAP_TAG = yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG
# What parse_options adds to the options of the file, and dump_yaml leaves out again.
DERIVED = {
    (): ('dist', 'rank', 'world_size', 'auto_resume', 'is_train', 'root_path'),
    ('path',): ('experiments_root', 'models', 'training_states', 'log', 'visualization', 'results_root'),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with ``1e-3`` a number, dates left as text, and mappings in the order of the file."""

    def construct_ordered(self, node):
        self.flatten_mapping(node)
        return OrderedDict(
            (self.construct_object(key), self.construct_object(value, deep=True)) for key, value in node.value
        )


# add_constructor and add_implicit_resolver copy the tables of the parent before they change them.
_Loader.add_constructor(_MAP_TAG, _Loader.construct_ordered)
# YAML 1.1 wants a point and a signed exponent in a float, so that 1e-3 and 5e3 were text.
_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float', re.compile(r'^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$'), list('-+.0123456789')
)
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp)
        for tag, regexp in resolvers
        if tag not in ('tag:yaml.org,2002:timestamp', 'tag:yaml.org,2002:value')
    ]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers  # so that the text '1e-3' gets its quotes
_Dumper.add_representer(OrderedDict, lambda dumper, data: dumper.represent_dict(data.items()))
_Dumper.add_representer(tuple, lambda dumper, data: dumper.represent_list(data))


class OptionFile:
    """An option file as read.

    Attributes:
        path (str): The file, as it was given.
        opt (OrderedDict): The options.
        lines (dict[tuple[str], int]): The line of every key, by its path: ``('train', 'optim_g', 'lr')``.
        forced (set[tuple[str]]): The keys set by ``--force_yml``.
        notes (list[str]): What was taken otherwise than it was written; for the log.
    """

    def __init__(self, path, opt, lines):
        self.path, self.opt, self.lines = path, opt, lines
        self.forced, self.notes = set(), []

    def where(self, *keys):
        """``options/x.yml, line 12: train:optim_g:lr``, with the line of the nearest key that has one."""
        place = self.path
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.forced:
                place += ', --force_yml'
                break
            if keys[:end] in self.lines:
                place += f', line {self.lines[keys[:end]]}'
                break
        return f'{place}: {":".join(map(str, keys))}' if keys else place

    def error(self, keys, what):
        """The InputError that says ``what`` is wrong with the option at ``keys``."""
        return InputError(f'{self.where(*keys)} {what}')


def nearest(word, known):
    """The one of ``known`` that ``word`` was probably meant to be, or None. Case and - for _ count little."""
    plain = {name.lower().replace('-', '_'): name for name in known}
    found = difflib.get_close_matches(str(word).lower().replace('-', '_'), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def hint(word, known):
    """The end of a sentence on an unknown name: the nearest one, or the known ones when they are few."""
    near = nearest(word, known)
    if near is not None:
        return f'did you mean {near}?'
    if 0 < len(known) <= 15:
        return f'known here: {", ".join(sorted(known))}'
    return 'docs/options.md lists what is known'


def _construct(text, source):
    """Parses one YAML document; returns its value and the lines of its keys. ``source`` begins the messages."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines = {}
        if node is not None:
            _walk(node, (), lines, source, [0], ())
        return (None if node is None else loader.construct_document(node)), lines
    except yaml.reader.ReaderError as err:
        raise InputError(f'{source} is not an option file: character {err.position} cannot be in YAML text') from err
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        line = f', line {mark.line + 1}:' if mark else ''
        raise InputError(f'{source}{line} is not YAML ({err.problem or err.context}); correct that line') from err
    except RecursionError as err:
        raise InputError(f'{source} is not an option file: it is nested too deeply') from err
    except InputError:
        raise
    except ValueError as err:  # as in !!int abc
        raise InputError(
            f'{source} holds a value that does not fit its tag ({err}); correct or remove the tag'
        ) from err


def _walk(node, keys, lines, source, count, parents):
    """Records the line of every key, and refuses duplicate keys, keys that are not text, and tags that ask for code."""
    line = node.start_mark.line + 1
    count[0] += 1
    if count[0] > MAX_ENTRIES or id(node) in parents:
        raise InputError(f'{source}, line {line}: is not an option file: aliases make it endless or very large')
    if node.tag not in _PLAIN_TAGS:
        tag = node.tag.replace('tag:yaml.org,2002:', '!!')
        raise InputError(
            f'{source}, line {line}: the tag {tag} is not allowed; an option file holds only plain text, '
            'numbers, booleans, lists and mappings'
        )
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _walk(child, keys, {}, source, count, (*parents, id(node)))
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key_node, child in node.value:
            key_line = key_node.start_mark.line + 1
            if key_node.tag == 'tag:yaml.org,2002:merge':
                _walk(child, keys, lines, source, count, (*parents, id(node)))
                continue
            if key_node.tag != 'tag:yaml.org,2002:str':
                name = key_node.value if isinstance(key_node, yaml.ScalarNode) else 'a list or mapping'
                raise InputError(
                    f'{source}, line {key_line}: the key {name!r} is not text; put it in quotes or correct it'
                )
            key = key_node.value
            if key in seen:
                raise InputError(
                    f'{source}, line {key_line}: {":".join((*keys, key))} is given a second time; remove one of the two'
                )
            seen.add(key)
            lines[(*keys, key)] = key_line
            _walk(child, (*keys, key), lines, source, count, (*parents, id(node)))


def read_option_file(path):
    """Reads an option file; nothing in it is executed.

    Args:
        path (str): A YAML file, UTF-8.

    Returns:
        OptionFile: Options in the order of the file, with the line of every key.

    Raises:
        InputError: The file is missing, cannot be read, is not YAML, is empty, or is not a mapping; a key is there
            twice; a tag asks for anything but plain data.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise InputError(f'{path} is a folder; give an option file with -opt')
    if not os.path.exists(path):
        folder = os.path.dirname(path) or '.'
        others = (
            [name for name in os.listdir(folder) if name.endswith(('.yml', '.yaml'))] if os.path.isdir(folder) else []
        )
        near = nearest(os.path.basename(path), others)
        near = (
            f'; did you mean {os.path.join(os.path.dirname(path), near)}?'
            if near
            else '; check the path given with -opt'
        )
        raise InputError(f'The option file {path} does not exist{near}')
    if not os.path.isfile(path) or os.path.getsize(path) > MAX_BYTES:
        raise InputError(f'{path} is not an option file: it is too large, or not a regular file')
    try:
        with open(path, 'rb') as f:
            text = f.read().decode('utf-8-sig')
    except OSError as err:
        raise InputError(f'The option file {path} cannot be read: {err.strerror}') from err
    except UnicodeDecodeError as err:
        raise InputError(f'{path} is not an option file: byte {err.start} is not UTF-8 text') from err
    opt, lines = _construct(text, path)
    if opt is None:
        raise InputError(f'The option file {path} is empty; start from one of the files in options/')
    if not isinstance(opt, dict):
        raise InputError(f'{path} is not an option file: it holds one {type(opt).__name__}, not `key: value` lines')
    return OptionFile(path, opt, lines)


def load_yaml(path):
    """The options of a file as an OrderedDict; see :func:`read_option_file`."""
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
    for entry in entries or ():
        name, equals, text = entry.partition('=')
        keys = tuple(key.strip() for key in name.split(':'))
        label = f'--force_yml {entry}'
        if not equals or not all(keys):
            raise InputError(f'{label} is not of the form key:key=value, as in train:ema_decay=0.99')
        parent = source.opt
        for depth, key in enumerate(keys):
            if not isinstance(parent, dict):
                raise InputError(f'{label}: {":".join(keys[:depth])} in {source.path} holds a value, not options')
            if key not in parent:
                raise InputError(f'{label}: {":".join(keys[: depth + 1])} is not in {source.path}; {hint(key, parent)}')
            if depth < len(keys) - 1:
                parent = parent[key]
        parent[keys[-1]] = _construct(text.strip(), label)[0]
        source.lines = {path: line for path, line in source.lines.items() if path[: len(keys)] != keys}
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
    return yaml.dump(_without_derived(opt), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def is_finite(value):
    """Whether ``value`` is a number other than nan and infinity; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
