"""Convert columns of Arrow tables to columns of a `ColumnDataset`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from renate_stages.memory import Ragged


def input_column(column: pa.ChunkedArray) -> Any:
    """Return a column without missing values as an array or `Ragged`; None for other types.

    Args:
        column: Numbers, texts, lists of numbers, or tensors of an extension type.

    Returns:
        Whole numbers as int64 and others as float32, `(rows,)`; texts as `Ragged` of UTF-8 bytes;
        lists as `Ragged`, or as an array `(rows, n)` if the type has a length; tensors `(rows, ...)`.
        Lists and tensors keep their dtype.
    """
    kind = column.type
    if _is_text(kind):
        texts = [each.encode() for each in column.to_pylist()]
        lengths = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return Ragged(np.frombuffer(b"".join(texts), np.uint8), lengths)
    if _is_number(kind):
        values = column.to_numpy()
        if values.dtype.kind in "iu":
            return values.astype(np.int64)
        return values.astype(np.float32) if values.dtype.kind == "f" else values
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # of no chunks, or too large for one
        whole = pa.concat_arrays(whole.chunks)
    if isinstance(kind, pa.BaseExtensionType):
        values = whole.to_numpy(zero_copy_only=False)
        return values if values.dtype.kind in "biuf" else None
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if (is_list or pa.types.is_fixed_size_list(kind)) and _is_number(kind.value_type):
        flat = whole.flatten()
        if flat.null_count:
            return None
        values = flat.to_numpy(zero_copy_only=False)
        if not is_list:
            return values.reshape(len(whole), kind.list_size)
        lengths = whole.value_lengths().to_numpy(zero_copy_only=False)
        return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    return None


def metadata_values(column: pa.ChunkedArray) -> list[Any] | None:
    """Return numbers or texts as a list, missing ones as NaN or ""; None for other types."""
    kind = column.type
    if _is_text(kind):
        return ["" if each is None else each for each in column.to_pylist()]
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return ["" if each is None else each.isoformat() for each in column.to_pylist()]
    if _is_number(kind):
        values = column.to_pylist()
        if column.null_count:
            return [np.nan if each is None else float(each) for each in values]
        return values
    return None


def is_text(column: pa.ChunkedArray) -> bool:
    """Return whether a column has texts."""
    return _is_text(column.type)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
