"""Arguments of the user's functions: their names, their types, and which values fit these."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin, get_type_hints


def named_parameters(function: Callable) -> list[inspect.Parameter]:
    """Return the parameters of a function that can be passed by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each for each in inspect.signature(function).parameters.values() if each.kind in kinds]


def type_hints(function: Callable) -> dict[str, Any]:
    """Return the types of a function's parameters by name; none if they cannot be resolved."""
    try:
        return get_type_hints(function)
    except (NameError, TypeError):  # an annotation may exist only for type checkers
        return {}


def fits(value: Any, expected: Any) -> bool:
    """Return whether a YAML value matches an annotation; any value matches a type not listed here."""
    origin = get_origin(expected)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in get_args(expected))
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if expected in (bool, str):
        return isinstance(value, expected)
    if expected is None or expected is type(None):
        return value is None
    if expected in (list, tuple) or origin in (list, tuple):
        return isinstance(value, list | tuple)
    return True


def name_of(expected: Any) -> str:
    """Return a type as the user wrote it, for messages."""
    return expected.__name__ if isinstance(expected, type) else str(expected)
