"""Classes and functions by the names that option files use."""

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import Registry

# What a constructor raises for arguments that it refuses.
_WRONG_ARGUMENT = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
CONSTRUCTOR_ERRORS = (*_WRONG_ARGUMENT, ImportError, OSError, RuntimeError)


def registered(known: Registry | Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a registry, or of a mapping, by their names in option files.

    ``Registry.get`` is not used because it prints a line for a name that is not registered.
    """
    entries = known.items() if isinstance(known, Mapping) else known
    return {key.removesuffix('_basicsr'): value for key, value in entries}
