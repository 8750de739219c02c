"""Classes and functions by the names that option files use."""

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import Registry

from lkdn_basicsr.errors import hint
from lkdn_basicsr.options.option_file import Keys, OptionFile, format_value


def registered(known: Registry | Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a registry, or of a mapping, by their names in option files.

    ``Registry.get`` is not used because it prints a line for a name that is not registered.
    """
    entries = known.items() if isinstance(known, Mapping) else known
    return {key.removesuffix('_basicsr'): value for key, value in entries}


def find_registered(
    option_file: OptionFile, keys: Keys, known: Registry | Mapping[str, Any], kind: str, type_key: str = 'type'
) -> Any:
    """Return the registered class or function that the block at ``keys`` names; an error has the nearest name."""
    options, entries = option_file.block(keys), registered(known)
    if type_key not in options:
        if keys in option_file.forced:  # probably a typo of a block that is in the file
            others = [name for name in option_file.block(keys[:-1]) if name != keys[-1]]
            raise option_file.error(keys, f'is new and has no {type_key}; {hint(keys[-1], others)}')
        raise option_file.error(keys, f'has no {type_key}; add the name of a {kind}')
    name = options[type_key]
    if not isinstance(name, str) or name not in entries:
        reason = f'is {format_value(name)}, which is not a known {kind}; {hint(name, entries)}'
        raise option_file.error((*keys, type_key), reason)
    return entries[name]
