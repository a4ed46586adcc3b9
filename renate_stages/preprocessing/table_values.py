"""Convert columns of an Arrow table to numbers, and find the values that cannot be converted."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, so pyright does not know them.

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from renate_stages.preprocessing.table_texts import (
    combined,
    dictionary_of,
    is_number,
    is_text,
    without_nulls,
)

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
COMMA = r"^[+-]?([0-9]{1,3}([.' ][0-9]{3})+|[0-9]+)?,[0-9]+([.,][0-9]+)*$"
BOOLEANS = {
    **dict.fromkeys(("true", "yes", "t", "y", "1"), 1.0),
    **dict.fromkeys(("false", "no", "f", "n", "0"), 0.0),
}
DATE_PARTS = ("days", "week_sin", "week_cos", "year_sin", "year_cos")
"""Numbers that a date becomes: days since 1970, and its place in the week and in the year."""
LARGEST = float(np.finfo(np.float32).max)

Bad = dict[int, str]
"""The reason for each row of a block that cannot be converted."""


def numbers(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[np.ndarray, Bad]:
    """Return a column as float64 or float32 `(rows,)`, NaN where a value is missing.

    Args:
        column: Numbers, booleans, or texts that contain numbers.
        name: Its name, for the reasons.
    """
    column, bad = combined(column), {}
    kind = column.type
    if is_text(kind):
        found, bad = _numbers_in_texts(column, name)
    elif pa.types.is_float64(kind) or pa.types.is_float32(kind):
        found = column.to_numpy(zero_copy_only=False)
    else:
        if pa.types.is_boolean(kind):
            column = pc.cast(column, pa.int8())
        values = pc.cast(column, pa.float64(), safe=False)
        found = values.to_numpy(zero_copy_only=False)
    if len(found) and not (found.max() <= LARGEST and found.min() >= -LARGEST):  # or one is NaN
        too_large = np.flatnonzero(np.abs(found) > LARGEST)  # infinite, or beyond float32
        if len(too_large):
            bad |= dict.fromkeys(too_large.tolist(), f"{name} is infinite or too large")
            found = found.copy()
            found[too_large] = np.nan
    return found, bad


def booleans(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[np.ndarray, Bad]:
    """Return a column as 1.0 for true and 0.0 for false, float64 `(rows,)`, NaN where missing."""
    column = combined(column)
    if pa.types.is_boolean(column.type):
        return numbers(column, name)
    texts, places = dictionary_of(column)
    values = np.array([BOOLEANS.get(text.lower(), -1.0) for text in texts] + [np.nan])
    found = values[places]
    wrong = np.flatnonzero(found < 0)
    found[wrong] = np.nan
    return found, dict.fromkeys(wrong.tolist(), f"{name} is neither true nor false")


def dates(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[np.ndarray, Bad]:
    """Return a column of dates or times as seconds since 1970, float64 `(rows,)`; NaN where missing.

    Args:
        column: Dates, timestamps, or texts in ISO 8601. Times without a zone are taken as UTC.
        name: Its name, for the reasons.
    """
    column = combined(column)
    if is_text(column.type):
        texts, places = dictionary_of(column)
        found = np.array([_seconds(text) for text in texts] + [np.nan])[places]
        wrong = np.flatnonzero(np.isinf(found))
        found[wrong] = np.nan
        return found, dict.fromkeys(wrong.tolist(), f"{name} is not a date in ISO 8601")
    zone = column.type.tz if pa.types.is_timestamp(column.type) else None
    micro = pc.cast(pc.cast(column, pa.timestamp("us", zone), safe=False), pa.int64())
    return pc.cast(micro, pa.float64(), safe=False).to_numpy(zero_copy_only=False) / 1e6, {}


def times(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[np.ndarray, Bad, bool]:
    """Return a column that orders rows, float64 `(rows,)`: numbers as they are, dates as seconds.

    Returns:
        The values, NaN where missing; the reason for each row that cannot be read; and whether the
        values are numbers. If some are numbers and others dates, those of the rarer form are bad.
    """
    column = combined(column)
    if is_number(column.type):
        return (*_as_float64(*numbers(column, name)), True)
    if not is_text(column.type):
        return (*dates(column, name), False)
    cleaned = without_nulls(column)
    count = pc.sum(pc.match_substring_regex(cleaned, NUMBER)).as_py() or 0
    if 2 * count > len(cleaned) - cleaned.null_count:
        return (*_as_float64(*numbers(column, name)), True)
    return (*dates(column, name), False)


def date_parts(seconds: np.ndarray) -> np.ndarray:
    """Return the numbers of `DATE_PARTS` for times in seconds since 1970, float64 `(rows, 5)`."""
    days = seconds / 86400
    week = 2 * np.pi * ((days + 3) % 7) / 7  # 1970-01-01 was a Thursday
    year = 2 * np.pi * (days % 365.2425) / 365.2425
    return np.stack([days, np.sin(week), np.cos(week), np.sin(year), np.cos(year)], axis=1)


def _numbers_in_texts(column: pa.Array, name: str) -> tuple[np.ndarray, Bad]:
    try:  # most columns contain only plain numbers
        found = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
        if not column.null_count and np.isfinite(found).all():
            return found, {}
    except pa.ArrowInvalid:
        pass
    column, bad = without_nulls(column), {}
    fits = pc.match_substring_regex(column, NUMBER).fill_null(True)
    if not pc.all(fits, min_count=0).as_py():
        wrong = np.flatnonzero(~fits.to_numpy(zero_copy_only=False))
        commas = pc.match_substring_regex(column, COMMA).fill_null(False)
        commas = commas.to_numpy(zero_copy_only=False)[wrong]
        bad = dict.fromkeys(wrong[~commas].tolist(), f"{name} is not a number")
        bad |= dict.fromkeys(wrong[commas].tolist(), f"{name} is a number with a comma")
        column = pc.if_else(fits, column, pa.scalar(None, column.type))
    return pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), bad


def _as_float64(values: np.ndarray, bad: Bad) -> tuple[np.ndarray, Bad]:
    return values.astype(np.float64, copy=False), bad


def _seconds(text: str) -> float:
    """Return a date or time in ISO 8601 as seconds since 1970; infinity if it is none."""
    if not re.match(r"[0-9]{4}-?[0-9]{2}", text):  # fromisoformat reads more than people mean
        return np.inf
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return np.inf
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


CONVERSIONS: dict[str, Callable[[Any, str], tuple[np.ndarray, Bad]]] = {
    "numeric": numbers,
    "boolean": booleans,
    "date": dates,
}
"""How to read the values of a column, by the kind of the column."""
