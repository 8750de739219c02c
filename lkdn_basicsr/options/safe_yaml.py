"""YAML as plain data: a safe loader that knows the line of every key, and a dumper that it understands."""

import re
from collections import OrderedDict

import yaml

from lkdn_basicsr.errors import InputError

MAX_ENTRIES = 10_000  # aliases of aliases can stand for billions of entries
_PLAIN_TAGS = {f'tag:yaml.org,2002:{name}' for name in ('str', 'int', 'float', 'bool', 'null', 'seq', 'map', 'merge')}
_MAP_TAG = yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG


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


def construct(text, source):
    """Parses one YAML document.

    Args:
        text (str): The document.
        source (str): What begins the messages: the file, or the argument.

    Returns:
        tuple[object, dict[tuple[str], int]]: Its value, and the line of each of its keys, by the path of the key.

    Raises:
        InputError: It is not YAML, or asks for anything but plain data; a key is there twice, or is not text.
    """
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


def dump(data):
    """Plain data as the text of a YAML document, in its order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
