"""Check hyperparameters: each function returns the valid value or raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from renate_stages.errors import InvalidHyperparameterError
from renate_stages.files.typed import is_number

Value = TypeVar("Value")


def positive(name: str, value: int) -> int:
    """Return a hyperparameter that must be a whole number >= 1.

    Raises:
        InvalidHyperparameterError: If it is not.
    """
    if not is_number(value) or not isinstance(value, int) or value < 1:
        raise InvalidHyperparameterError(name, value, "a whole number >= 1")
    return value


def in_range(
    name: str, value: float, least: float, most: float = np.inf, *, below: bool = False
) -> float:
    """Return a hyperparameter that must be a number in [least, most], or [least, most) if `below`.

    Raises:
        InvalidHyperparameterError: If it is not.
    """
    if not is_number(value) or not least <= value <= most or (below and value == most):
        end = ")" if below or most == np.inf else "]"
        raise InvalidHyperparameterError(name, value, f"a number in [{least:g}, {most:g}{end}")
    return float(value)


def one_of(name: str, value: Value, allowed: Sequence[Value]) -> Value:
    """Return a hyperparameter that must be one of the allowed values.

    Raises:
        InvalidHyperparameterError: If it is not.
    """
    if value not in allowed:
        raise InvalidHyperparameterError(name, value, f"one of {', '.join(map(str, allowed))}")
    return value
