"""YAML as plain data: a safe loader that records the line of every key, and a dumper whose output it reads back."""

import re
from collections import OrderedDict
from typing import Any

import yaml

from lkdn_basicsr.errors import InputError

MAX_NODES = 20_000  # nested aliases can expand to billions of nodes
MAX_DEPTH, MAX_DIGITS = 50, 100  # of lists and mappings, and of numbers, which Python computes exactly
Lines = dict[tuple[str, ...], int]
_TAG = 'tag:yaml.org,2002:'
_SCALARS = ('str', 'int', 'float', 'bool', 'null', 'merge')
_PLAIN_TAGS = {_TAG + name: yaml.ScalarNode for name in _SCALARS}
_PLAIN_TAGS |= {_TAG + 'seq': yaml.SequenceNode, _TAG + 'map': yaml.MappingNode}


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``1e-3`` as a number and dates as text, and keeps mappings in the order of the file."""

    def construct_ordered(self, node: yaml.MappingNode) -> OrderedDict[str, Any]:
        self.flatten_mapping(node)
        return OrderedDict(
            (self.construct_object(key), self.construct_object(value, deep=True)) for key, value in node.value
        )


# add_constructor and add_implicit_resolver copy the tables of the parent class before they change them.
_Loader.add_constructor(_TAG + 'map', _Loader.construct_ordered)
# YAML 1.1 requires a point and a signed exponent in a float, so that PyYAML reads 1e-3 and 5e3 as text.
_Loader.add_implicit_resolver(
    _TAG + 'float', re.compile(r'^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$'), list('-+.0123456789')
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in (_TAG + 'timestamp', _TAG + 'value')]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers  # so that the text '1e-3' is quoted
_Dumper.add_representer(OrderedDict, lambda dumper, data: dumper.represent_dict(data.items()))
_Dumper.add_representer(tuple, lambda dumper, data: dumper.represent_list(data))


def load(text: str, source: str) -> tuple[Any, Lines]:
    """Return the value of a YAML document, and the line of each key by the path of the key.

    Args:
        source: What the messages begin with: the file, or the command-line argument.

    Raises:
        InputError: The text is not YAML, has tags of other than plain data, or has keys that are not text or repeated.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, {}
        _check_nodes(root, source)
        lines = _key_lines(root, (), source)  # before the constructor, which replaces `<<` by what is merged
        return loader.construct_document(root), lines
    except yaml.reader.ReaderError as error:
        raise InputError(f'{source} is not an option file: character {error.position} is invalid in YAML') from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f', line {mark.line + 1}:' if mark else ''
        raise InputError(f'{source}{line} is not YAML ({error.problem or error.context}); correct that line') from error
    except RecursionError as error:
        raise InputError(f'{source} is not an option file: it is nested too deeply') from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f'{source} contains "\\U" and a number that is no character ({error}); correct it') from error


def dump(data: Any) -> str:
    """Return plain data as a YAML document, in its order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _check_nodes(root: yaml.Node, source: str) -> None:
    """Refuse other than plain data, and documents that their aliases make very large or endless."""
    nodes = [(root, 0)]
    for node, depth in nodes:  # grows while it is read; a node is appended once for each alias
        if not isinstance(node, _PLAIN_TAGS.get(node.tag, ())):
            tag = node.tag.replace(_TAG, '!!')
            raise InputError(f'{_line(source, node)}: the tag {tag} is not allowed; remove it, and write plain data')
        if isinstance(node, yaml.MappingNode):
            nodes += [(child, depth + 1) for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            nodes += [(child, depth + 1) for child in node.value]
        if len(nodes) > MAX_NODES:
            raise InputError(f'{_line(source, node)} is not an option file: aliases make it endless or very large')
        if depth > MAX_DEPTH:
            raise InputError(f'{_line(source, node)} is not an option file: it is nested too deeply')


def _key_lines(node: yaml.Node, keys: tuple[str, ...], source: str) -> Lines:
    """Return the lines of the keys below ``node``, whose own path is ``keys``; refuse wrong keys and values."""
    lines: Lines = {}
    merged: Lines = {}
    if isinstance(node, yaml.ScalarNode):
        problem = _describe_problem(node)
        if problem:
            name = f': {":".join(keys)}' if keys else ''
            raise InputError(f'{_line(source, node)}{name} is {node.value[:60]!r}, {problem}')
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _key_lines(child, keys, source)  # only checked: what is in a list has no path
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            path = (*keys, key.value)
            if key.tag == _TAG + 'merge':
                merged |= _key_lines(child, keys, source)
                continue
            if key.tag != _TAG + 'str':
                name = repr(key.value) if isinstance(key, yaml.ScalarNode) else 'that is a list or mapping'
                raise InputError(f'{_line(source, key)}: the key {name} is not text; put it in quotes or correct it')
            if path in lines:
                raise InputError(f'{_line(source, key)}: {":".join(path)} is given a second time; remove one of them')
            lines[path] = key.start_mark.line + 1
            lines |= _key_lines(child, path, source)
    return merged | lines


def _describe_problem(node: yaml.ScalarNode) -> str | None:
    """Return why the text of a value cannot be read, as a clause; None if it can."""
    kind = node.tag.removeprefix(_TAG)
    if kind in ('int', 'float') and len(node.value) > MAX_DIGITS:
        return f'a number of {len(node.value)} characters; round it'
    if re.search('[\0\ud800-\udfff]', node.value):
        return 'with a character that no text can contain; remove it'
    if kind in ('int', 'float', 'bool'):
        try:
            getattr(yaml.constructor.SafeConstructor(), f'construct_yaml_{kind}')(node)
        except (ValueError, LookupError):  # as for !!int abc, !!bool maybe
            return f'which does not fit its tag !!{kind}; correct it'
    return None


def _line(source: str, node: yaml.Node) -> str:
    return f'{source}, line {node.start_mark.line + 1}'
