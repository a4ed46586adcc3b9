"""Columns of metadata and of other values that repeat, in the form in which they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from renate_stages.data.items import ItemReader
from renate_stages.errors import ItemMismatchError
from renate_stages.memory.identity import given_ids
from renate_stages.memory.row_weights import WEIGHT, is_weight
from renate_stages.memory.spec import METADATA

BLOCK_ROWS = 4096  # of an array, whose values become Python objects for a moment


def _ids_of(values: list[Any]) -> np.ndarray | None:
    """Return the hashes of a user's ids, uint64 `(rows, 2)`; None if a value cannot be an id."""
    if not all(type(value) in (str, int) for value in values):
        return None
    try:
        return given_ids(map(str, values))
    except UnicodeEncodeError:
        return None


def metadata_column(name: str, column: Any, start: int, reader: ItemReader) -> np.ndarray:
    """Return rows of a metadata column in the form in which it is stored.

    Args:
        name: Name of the field.
        column: Its values, one for each row.
        start: Number of the first row, for messages.
        reader: Validates values.

    Raises:
        InvalidMetadataError: If a value cannot be stored.
        ItemMismatchError: If some values are numbers and others texts, or of different types.
    """
    known = reader.metadata_value
    if isinstance(column, Tensor):
        column = column.numpy()
    plain = isinstance(column, np.ndarray) and column.dtype.kind in "biuf" and column.ndim == 1
    if name != "id" and plain and len(column):
        first = known(name, column[0], start)
        if name == WEIGHT and len(wrong := np.flatnonzero(~is_weight(column))):
            known(name, column[wrong[0]], start + int(wrong[0]))
        if column.dtype.kind != "u" or column.dtype.itemsize < 8:
            return column.astype(first.dtype)
    if name == "id" and (ids := _ids_of(list(_values_in(column)))) is not None:
        return ids
    distinct, places = distinct_values(column, lambda value, row: known(name, value, start + row))
    rows = [known(name, value, start + row) for value, row in distinct]
    for (_, place), row in zip(distinct, rows, strict=True):
        if (row.dtype, row.shape) != (rows[0].dtype, rows[0].shape):
            kinds = (str(each.dtype) for each in (row, rows[0]))
            raise ItemMismatchError(reader.split, start + place, METADATA + name, *kinds)
    return np.stack(rows)[places]


def distinct_values(
    column: Any, refuse: Callable[[Any, int], object] = lambda value, row: None
) -> tuple[list[tuple[Any, int]], np.ndarray]:
    """Return the different values of a column, and the place of each row's value among them.

    Args:
        column: A list or an array of values; those of different types differ.
        refuse: Called with a value that cannot be compared, and its row.

    Returns:
        The values with their first rows, in order of appearance; and places int64 `(rows,)`.
    """
    known: dict[Any, int] = {}
    first: list[tuple[Any, int]] = []
    places = np.empty(len(column), dtype=np.int64)
    for row, value in enumerate(_values_in(column)):
        try:
            place = known.setdefault((type(value), value), len(first))
        except TypeError:  # a list, for example
            refuse(value, row)
            raise
        if place == len(first):
            first.append((value, row))
        places[row] = place
    return first, places


def _values_in(column: Any) -> Iterator[Any]:
    """Yield the values of a column; those of an array are made block by block."""
    if not isinstance(column, np.ndarray):
        yield from column
        return
    for start in range(0, len(column), BLOCK_ROWS):
        yield from column[start : start + BLOCK_ROWS].tolist()
