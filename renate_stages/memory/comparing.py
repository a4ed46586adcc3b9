"""Compare metadata columns with constants by exact value, as Python does.

NumPy rounds before it compares: to NumPy, the int64 2**53 + 1 equals 2.0**53, and a float32 equals
0.1, which no float32 is exactly.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

Constant: TypeAlias = bool | int | float | str

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def kind_of(column: np.ndarray) -> Literal["number", "text"] | None:
    """Return the kind of a column's values; None if they cannot be compared with constants."""
    if column.dtype.kind == "S":
        return "text"
    return "number" if column.dtype.kind in "biuf" and column.dtype.itemsize <= 8 else None


def compare(column: np.ndarray, operation: str, constant: Constant) -> np.ndarray:
    """Return for which values of a column `value operation constant` is true, bool `(rows,)`.

    Args:
        column: Numbers, bools, or texts as UTF-8 bytes, `(rows,)`; the result for NaN is undefined.
        operation: `==`, `!=`, `<`, `<=`, `>` or `>=`.
        constant: A text if the column holds texts, otherwise a number other than NaN.
    """
    if isinstance(constant, str):
        return _OPERATORS[operation](column, constant.encode())
    if column.dtype.kind == "f":
        place = _among_floats(constant)
        column = column.astype(np.float64, copy=False)
    else:
        column = column.astype(np.uint8) if column.dtype.kind == "b" else column
        place = _within(column.dtype, _among_ints(constant))
    number, sign = place
    if not sign:
        return _OPERATORS[operation](column, number)
    if operation in ("==", "!="):  # no value of this dtype is the constant
        return np.full(len(column), operation == "!=")
    below = column <= number if sign > 0 else column < number
    return below if operation in ("<", "<=") else ~below


def is_in(column: np.ndarray, constants: Sequence[Constant]) -> np.ndarray:
    """Return which values of a column equal any of the constants, bool `(rows,)`."""
    if column.dtype.kind == "S":
        return np.isin(column, np.array([str(each).encode() for each in constants], "S"))
    if column.dtype.kind == "f":
        floats = [number for number, sign in map(_among_floats, constants) if not sign]
        return np.isin(column.astype(np.float64, copy=False), np.array(floats, np.float64))
    whole = [number for number, sign in map(_among_ints, constants) if not sign]
    column = column.astype(np.uint8) if column.dtype.kind == "b" else column
    limits = np.iinfo(column.dtype)
    fitting = [number for number in whole if limits.min <= number <= limits.max]
    return np.isin(column, np.array(fitting, column.dtype))


def _among_floats(constant: Any) -> tuple[float, int]:
    """Return the float64 nearest to a number, and the sign of the number minus that float."""
    try:
        nearest = float(constant)
    except OverflowError:  # the int is larger than any float
        largest = float(np.finfo(np.float64).max)
        return (largest, 1) if constant > 0 else (-largest, -1)
    if isinstance(constant, float) or int(nearest) == constant:
        return nearest, 0
    return nearest, 1 if constant > int(nearest) else -1


def _among_ints(constant: Any) -> tuple[int, int]:
    """Return the floor of a number, and the sign of the number minus its floor."""
    if isinstance(constant, float) and math.isinf(constant):
        return (2**64, 1) if constant > 0 else (-(2**64), -1)
    whole = math.floor(constant)
    return whole, 0 if whole == constant else 1


def _within(dtype: np.dtype, place: tuple[int, int]) -> tuple[int, int]:
    """Clip a result of `_among_ints` to a dtype's range, because NumPy compares no other ints."""
    limits = np.iinfo(dtype)
    if place[0] > limits.max:
        return int(limits.max), 1
    if place[0] < limits.min:
        return int(limits.min), -1
    return place
