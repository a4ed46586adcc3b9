"""Read the columns of an Arrow table as texts: names of categories and labels, ids, groups."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, so pyright does not know them.

from __future__ import annotations

from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NULLS = (
    *("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "NaT"),
    *("NULL", "null", "None"),
)
"""Texts that stand for a missing value."""
TEXTS = np.dtypes.StringDType()
"""Dtype of arrays of texts: 16 bytes each, and the characters of longer ones."""
EXACT = 2.0**53  # above it, float64 does not have all whole numbers


def dictionary_of(column: pa.ChunkedArray | pa.Array) -> tuple[list[str], np.ndarray]:
    """Return the different texts of a column, and the place of each row's text among them.

    A value has one text, whatever the file makes of it: 3, 3.0 and "3.0" are "3", and true and "TRUE"
    are "true". Spaces at the ends are removed, and Unicode is brought to normal form C.

    Returns:
        The texts in order of appearance, and places int64 `(rows,)`; -1 where a value is missing.
    """
    first = pc.dictionary_encode(as_texts(combined(column)))
    again = pc.dictionary_encode(without_nulls(_in_one_form(first.dictionary)))
    places = np.append(_places(again), -1)
    return again.dictionary.to_pylist(), places[_places(first)]


def texts_of(column: pa.ChunkedArray | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return a column as texts `(rows,)` of dtype `TEXTS`, and the rows where a value is missing."""
    texts, places = dictionary_of(column)
    return np.array([*texts, ""], dtype=TEXTS)[places], np.flatnonzero(places < 0)


def without_nulls(column: pa.Array) -> pa.Array:
    """Return texts without spaces at the ends; what stands for a missing value becomes null."""
    column = pc.utf8_trim_whitespace(column)
    missing = pc.is_in(column, value_set=pa.array(NULLS, column.type))
    return pc.if_else(missing, pa.scalar(None, column.type), column)


def combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array, of a plain type: no dictionary, and one type for all texts."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    plain = pa.types.is_string(column.type)
    if not plain and (is_text(column.type) or pa.types.is_null(column.type)):
        return pc.cast(column, pa.string())
    return column


def is_text(kind: pa.DataType) -> bool:
    """Return whether an Arrow type is a text, also one that is dictionary-encoded."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(each(kind) for each in texts)


def is_number(kind: pa.DataType) -> bool:
    """Return whether an Arrow type is a number."""
    if pa.types.is_dictionary(kind):
        return is_number(kind.value_type)
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(each(kind) for each in numbers)


def is_date(kind: pa.DataType) -> bool:
    """Return whether an Arrow type is a date, or a date and time."""
    return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def fits(kind: pa.DataType, column: str) -> bool:
    """Return whether values of an Arrow type can be those of a column, by the kind of the column.

    Texts may contain anything, and a column without values may have the type null.
    """
    if pa.types.is_dictionary(kind):
        return fits(kind.value_type, column)
    if is_text(kind) or pa.types.is_null(kind):
        return True
    if column == "date":
        return is_date(kind)
    known = is_number(kind) or pa.types.is_boolean(kind)
    return known or (column == "categorical" and is_date(kind))


def _places(encoded: pa.DictionaryArray) -> np.ndarray:
    """Return the indices of a dictionary, int64 `(rows,)`; -1 for null."""
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def as_texts(column: pa.Array) -> pa.Array:
    """Return a column as texts, in which whole numbers have all digits and no point."""
    kind = column.type
    if pa.types.is_floating(kind):
        values = pc.cast(column, pa.float64(), safe=False)
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
        whole = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), EXACT))
        integers = pc.cast(pc.if_else(whole, values, pa.scalar(None, pa.float64())), pa.int64())
        return pc.coalesce(pc.cast(integers, pa.string()), pc.cast(values, pa.string()))
    if pa.types.is_decimal(kind) and kind.scale > 0:
        zeros = r"(\.[0-9]*[1-9])0+$|\.0+$"
        return pc.replace_substring_regex(pc.cast(column, pa.string()), zeros, r"\1")
    return column if is_text(kind) else pc.cast(column, pa.string())


def _in_one_form(texts: pa.Array) -> pa.Array:
    """Return texts in normal form C; 3.0 becomes 3, and TRUE becomes true."""
    texts = pc.utf8_trim_whitespace(texts)
    if not pc.all(pc.string_is_ascii(texts), min_count=0).as_py():  # Arrow's NFC decomposes texts
        texts = pa.array([normalize("NFC", text) for text in texts.to_pylist()], pa.string())
    texts = pc.replace_substring_regex(texts, r"^(-?[0-9]+)\.0+$", r"\1")
    lower = pc.utf8_lower(texts)
    flags = pc.is_in(lower, value_set=pa.array(["true", "false"]))
    return pc.if_else(flags, lower, texts)
