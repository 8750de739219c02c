"""How options differ from each other and from the shipped option file."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.option_file import OptionFile, read_option_file, shipped_option_file

NOT_SET = 'not set'


def differences_from_shipped(option_file: OptionFile, is_train: bool) -> list[str]:
    """Return how checked options differ from the shipped option file of that name, a line each; [] if there is none."""
    path = shipped_option_file(os.path.basename(option_file.path))
    if path is None:
        return []
    try:
        shipped = read_option_file(path)
        check_schema(shipped, is_train)  # fills in the defaults
    except InputError:
        return []
    return [
        f'{name}: {_format(value)} (shipped: {_format(shipped_value)})'
        for name, value, shipped_value in changes(option_file.opt, shipped.opt)
    ]


def _format(value: Any) -> str:
    return value if value == NOT_SET else json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Return options or metrics as plain dicts, lists, numbers and strings, which load without running code."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the options in which two sets of options differ.

    Yields:
        Name, as ``train:optim_g:lr``, and both values; ``NOT_SET`` where an option is missing.
    """
    before, after = dict(_flatten(before)), dict(_flatten(after))
    for name in before | after:
        old, new = before.get(name, NOT_SET), after.get(name, NOT_SET)
        if old != new:
            yield name, old, new


def _flatten(options: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f'{prefix}{key}:')
        else:
            yield f'{prefix}{key}', value
