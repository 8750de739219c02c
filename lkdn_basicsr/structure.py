"""Whether data from a file, which anyone may have edited, are of the form that the program expects."""

import json
import math
from types import UnionType
from typing import Any

NATURAL = range(10**15)
MAX_DEPTH = 50  # of lists and dicts in each other


def read_json(path: str) -> Any:
    """Return the contents of a JSON file; OSError if it cannot be read, ValueError if it is not JSON."""
    with open(path, encoding='utf-8') as file:
        try:
            contents = json.load(file)
            json.dumps(contents, ensure_ascii=False).encode()  # fails for halves of characters, which no text contains
        except RecursionError:
            raise ValueError('it is nested too deeply') from None
    return contents


def matches(value: Any, form: Any) -> bool:
    """Return whether a value is of a form.

    Args:
        form: a type, or a union of types; a bool is no ``int``; a ``float`` is an int or a float, infinite ones too,
            but not NaN, and none that would overflow in sums. A range, for an int in it. ``[form]``, for a list,
            ``(form, form)``, for one of this length. ``{str: form}``, for a dict with any names, ``{name: form}``, for
            a dict with these entries and any others; a missing entry is None.
    """
    if isinstance(form, UnionType):
        return any(matches(value, part) for part in form.__args__)
    if isinstance(form, tuple):
        return isinstance(value, list) and len(value) == len(form) and all(map(matches, value, form))
    if isinstance(form, range):
        return type(value) is int and value in form
    if isinstance(form, list):
        return isinstance(value, list) and all(matches(item, form[0]) for item in value)
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return False
        if str in form:
            return all(isinstance(name, str) and matches(item, form[str]) for name, item in value.items())
        return all(matches(value.get(name), part) for name, part in form.items())
    if form is float:
        return type(value) in (int, float) and (abs(value) < 1e15 or abs(value) == math.inf)
    if form is int:
        return type(value) is int
    return isinstance(value, form)


def is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Return whether a value consists of dicts with names, lists, tuples, texts, numbers, booleans and None."""
    if isinstance(value, dict):
        return depth > 0 and all(isinstance(name, str) and is_plain(item, depth - 1) for name, item in value.items())
    if isinstance(value, list | tuple):
        return depth > 0 and all(is_plain(item, depth - 1) for item in value)
    return value is None or isinstance(value, str | bool | int | float)
