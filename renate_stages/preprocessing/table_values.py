"""Convert columns of an Arrow table to numbers, and find the values that cannot be converted."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, so pyright does not know them.

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NULLS = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "n/a", "#N/A")
"""Texts that stand for a missing value."""
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
BOOLEANS = {
    **dict.fromkeys(("true", "yes", "t", "y", "1", "1.0"), 1.0),
    **dict.fromkeys(("false", "no", "f", "n", "0", "0.0"), 0.0),
}
DATE_PARTS = ("days", "week_sin", "week_cos", "year_sin", "year_cos")
"""Numbers that a date becomes: days since 1970, and its place in the week and in the year."""
LARGEST = float(np.finfo(np.float32).max)

Bad = dict[int, str]
"""The reason for each row of a block that cannot be converted."""


def numbers(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[np.ndarray, Bad]:
    """Return a column as float64 `(rows,)`, NaN where a value is missing.

    Args:
        column: Numbers, booleans, or texts that contain numbers.
        name: Its name, for the reasons.
    """
    column, bad = _combined(column), {}
    if is_text(column.type):
        column = without_nulls(column)
        fits = pc.match_substring_regex(column, NUMBER).fill_null(True)
        if not pc.all(fits, min_count=0).as_py():
            wrong = np.flatnonzero(~fits.to_numpy(zero_copy_only=False))
            bad = dict.fromkeys(wrong.tolist(), f"{name} is not a number")
            column = pc.if_else(fits, column, pa.scalar(None, column.type))
        values = pc.cast(column, pa.float64())
    elif pa.types.is_boolean(column.type):
        values = pc.cast(pc.cast(column, pa.int8()), pa.float64())
    else:
        values = pc.cast(column, pa.float64(), safe=False)
    found = values.to_numpy(zero_copy_only=False).astype(np.float64)
    too_large = np.flatnonzero(np.abs(found) > LARGEST)  # an infinite value, or one beyond float32
    for row in too_large.tolist():
        bad[row] = f"{name} is infinite or too large"
        found[row] = np.nan
    return found, bad


def booleans(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[np.ndarray, Bad]:
    """Return a column as 1.0 for true and 0.0 for false, float64 `(rows,)`, NaN where missing."""
    column = _combined(column)
    if pa.types.is_boolean(column.type):
        return numbers(column, name)
    texts, codes = dictionary_of(column)
    values = np.array([BOOLEANS.get(text.lower(), -1.0) for text in texts] + [np.nan])
    found, bad = values[codes], {}
    for row in np.flatnonzero(found < 0).tolist():
        bad[row] = f"{name} is neither true nor false"
        found[row] = np.nan
    return found, bad


def dates(column: pa.ChunkedArray | pa.Array, name: str) -> tuple[np.ndarray, Bad]:
    """Return a column of dates or times as seconds since 1970, float64 `(rows,)`; NaN where missing.

    Args:
        column: Dates, timestamps, or texts in ISO 8601. Times without a zone are taken as UTC.
        name: Its name, for the reasons.
    """
    column, bad = _combined(column), {}
    if is_text(column.type):
        texts, codes = dictionary_of(column)
        seconds = np.array([_seconds(text) for text in texts] + [np.nan])
        found = seconds[codes]
        for row in np.flatnonzero(np.isinf(found)).tolist():
            bad[row] = f"{name} is not a date in ISO 8601"
            found[row] = np.nan
        return found, bad
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return numbers(column, name)
    micro = pc.cast(pc.cast(column, pa.timestamp("us", _zone(column.type)), safe=False), pa.int64())
    return pc.cast(micro, pa.float64(), safe=False).to_numpy(zero_copy_only=False) / 1e6, bad


def date_parts(seconds: np.ndarray) -> np.ndarray:
    """Return the numbers of `DATE_PARTS` for times in seconds since 1970, float64 `(rows, 5)`."""
    days = seconds / 86400
    week = 2 * np.pi * ((days + 3) % 7) / 7  # 1970-01-01 was a Thursday
    year = 2 * np.pi * (days % 365.2425) / 365.2425
    return np.stack([days, np.sin(week), np.cos(week), np.sin(year), np.cos(year)], axis=1)


def dictionary_of(column: pa.ChunkedArray | pa.Array) -> tuple[list[str], np.ndarray]:
    """Return the different texts of a column, and the place of each row's text among them.

    Whole numbers are written without a decimal point, so that 3 and 3.0 are the same category.

    Returns:
        The texts in order of appearance, and places int64 `(rows,)`; -1 where a value is missing.
    """
    column = without_nulls(_as_texts(_combined(column)))
    encoded = pc.dictionary_encode(column)
    places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return encoded.dictionary.to_pylist(), places


def without_nulls(column: pa.Array) -> pa.Array:
    """Return texts without spaces at the ends; what stands for a missing value becomes null."""
    column = pc.utf8_trim_whitespace(column)
    missing = pc.is_in(column, value_set=pa.array(NULLS, column.type))
    return pc.if_else(missing, pa.scalar(None, column.type), column)


def is_text(kind: pa.DataType) -> bool:
    """Return whether an Arrow type is a text, also one that is dictionary-encoded."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_scalar(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type can be a column of a table: no list, struct or bytes."""
    scalars = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    times = (pa.types.is_date, pa.types.is_timestamp)
    return is_text(kind) or pa.types.is_null(kind) or any(each(kind) for each in (*scalars, *times))


def _combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        column = pc.cast(column, pa.string())
    return pc.cast(column, pa.string()) if pa.types.is_large_string(column.type) else column


def _as_texts(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = pc.cast(column, pa.float64(), safe=False)
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
        return pc.cast(values, pa.string())  # which writes 3.0 as "3"
    return column if is_text(kind) else pc.cast(column, pa.string())


def _zone(kind: pa.DataType) -> str | None:
    return kind.tz if pa.types.is_timestamp(kind) else None


def _seconds(text: str) -> float:
    """Return a date or time in ISO 8601 as seconds since 1970; infinity if it is none."""
    from datetime import UTC, datetime

    if not re.match(r"\d{4}-?\d{2}", text):  # fromisoformat reads more than people mean as a date
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
