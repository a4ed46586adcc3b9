"""Cells of files with texts as values to store: texts, names of labels, numbers and metadata.

Each function raises `UnusableCellError` with a reason that is the same for the same mistake.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache, wraps
from typing import Any, TypeVar

import numpy as np

from renate_stages.memory.row_weights import EXPECTED, is_weight
from renate_stages.memory.spec import TEXT_BYTES

MOST_CHARACTERS = 200  # of the name of a label, as `tasks.labels` has it
_WHOLE = re.compile(r"([-+]?\d+)\.0*")
_FRACTION = re.compile(r"[-+]?\d*\.\d+([eE][-+]?\d+)?")


T = TypeVar("T")


def _remembered(read: Callable[[Any, str], T]) -> Callable[[Any, str], T]:
    """Let a function remember recent texts, because labels and dates occur again and again."""
    recent = lru_cache(4096)(read)

    @wraps(read)
    def reading(cell: Any, column: str) -> T:
        return recent(cell, column) if type(cell) is str else read(cell, column)

    return reading


class UnusableCellError(Exception):
    """A cell cannot be used; its text is the reason."""


def text_in(cell: Any, column: str) -> str:
    """Return the text of a cell, which may be empty."""
    if cell is None:
        raise UnusableCellError(f"{column} is missing")
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            raise UnusableCellError(f"{column} is not UTF-8") from None
    if not isinstance(cell, str):
        raise UnusableCellError(f"{column} is not a text")
    try:
        cell.encode()
    except UnicodeEncodeError:
        raise UnusableCellError(f"{column} is not UTF-8") from None
    return cell


def plain(cell: Any, column: str) -> str:
    """Return a text or number of a cell as a text without spaces at its ends; it is not empty."""
    if isinstance(cell, float) and math.isnan(cell):
        cell = None
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # a column of whole numbers with gaps is often one of floats
    if isinstance(cell, bool | int | float):
        return str(cell)
    if isinstance(cell, Decimal):
        return f"{cell:f}"
    if not isinstance(cell, str | bytes | None):
        raise UnusableCellError(f"{column} is neither a text nor a number")
    text = text_in(cell, column).strip()
    if not text:
        raise UnusableCellError(f"{column} is missing")
    return text


@_remembered
def label_in(cell: Any, column: str) -> str:
    """Return the name of a label; whole numbers are written without a fraction, `3.0` as `3`."""
    name = plain(cell, column)
    if whole := _WHOLE.fullmatch(name):
        name = whole[1]
    if not name.isprintable() or len(name) > MOST_CHARACTERS:
        problem = f"is not a printable name of at most {MOST_CHARACTERS} characters"
        raise UnusableCellError(f"{column} {problem}")
    return name


@lru_cache(4096)
def has_fraction(name: str) -> bool:
    """Return whether the name of a label is a number with a fraction, such as 0.73."""
    return _FRACTION.fullmatch(name) is not None


def number_in(cell: Any, column: str) -> float:
    """Return a number that float32 can hold."""
    text = plain(cell, column)
    try:
        value = math.nan if "_" in text else float(text)  # Python takes 1_000 for a number
    except ValueError:
        raise UnusableCellError(f"{column} is not a number") from None
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(value)):
            raise UnusableCellError(f"{column} is not a finite number of 32 bits")
    return value


def weight_in(cell: Any, column: str) -> float:
    """Return the weight of a row."""
    value = number_in(cell, column)
    if not is_weight(np.array([value])).all():
        raise UnusableCellError(f"{column} is no weight, expected {EXPECTED}")
    return value


def weights_in(cells: Iterable[Any], column: str, reasons: dict[int, str]) -> list[float]:
    """Return the weight of each row.

    Args:
        cells: The cell of each row.
        column: Where the cells are, for messages.
        reasons: Rows that cannot be used, with the reason; gets those without a valid weight, which
            are returned as 1.
    """
    weights = []
    for row, cell in enumerate(cells):
        try:
            weights.append(1.0 if row in reasons else weight_in(cell, column))
        except UnusableCellError as error:
            reasons[row] = str(error)
            weights.append(1.0)
    return weights


def flag_in(cell: Any, column: str) -> int:
    """Return 0 or 1; true and false count as numbers."""
    found = {"0": 0, "1": 1, "true": 1, "false": 0}.get(label_in(cell, column).lower())
    if found is None:
        raise UnusableCellError(f"{column} is not 0 or 1")
    return found


@_remembered
def short_in(cell: Any, column: str) -> str:
    """Return a text of metadata."""
    text = plain(cell, column)
    if len(text.encode()) > TEXT_BYTES or "\0" in text:
        raise UnusableCellError(f"{column} has more than {TEXT_BYTES} bytes, or NUL characters")
    return text


@_remembered
def time_in(cell: Any, column: str) -> float:
    """Return a number, or the seconds since 1970 of a date or time; UTC if it names no time zone."""
    if isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime.combine(cell, time())
    if not isinstance(cell, datetime):
        text = plain(cell, column)
        if is_number(text):
            if not math.isfinite(value := float(text)):
                raise UnusableCellError(f"{column} is not a finite number")
            return value
        try:
            cell = datetime.fromisoformat(text)
        except ValueError:
            raise UnusableCellError(
                f"{column} is not a number, nor a date or time of ISO 8601"
            ) from None
    zoned = cell.replace(tzinfo=UTC) if cell.tzinfo is None else cell
    return zoned.timestamp()


def is_number(cell: Any) -> bool:
    """Return whether a cell is a number, or a text that is one; a date is none."""
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return different names sorted: whole numbers by value, then others by alphabet."""
    return tuple(sorted({*names}, key=_key))


def _key(name: str) -> tuple[bool, int, str]:
    is_number = re.fullmatch(r"-?[0-9]{1,100}", name) is not None
    return not is_number, int(name) if is_number else 0, name
