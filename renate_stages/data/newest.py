"""Split off the newest rows of a dataset, by a metadata field such as a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch.utils.data import Subset

from renate_stages.data.columns import chosen, columns_of, metadata_column
from renate_stages.data.items import ItemReader
from renate_stages.errors import DataModuleError, user_code


def sort_keys(dataset: Any, field: str) -> np.ndarray:
    """Return a metadata field of all items of the training data, `(rows,)`.

    It reads every item once, unless the dataset has columns.

    Args:
        dataset: A dataset with a length, whose items end with a dict of metadata.
        field: Name of the field. Its values are numbers, or texts such as `2026-11-30`, which are
            compared letter by letter.

    Raises:
        DataModuleError: If an item does not have the field, its value is NaN, or some values are
            numbers and others texts.
        UnstorableValueError, InvalidMetadataError: As `ingest`.
    """
    reader, keys = ItemReader("train"), []
    source, rows = columns_of(dataset)
    if source is not None and field in source.metadata:
        column = metadata_column(field, chosen(source.metadata[field], rows), 0, reader)
        if column.dtype.kind == "f" and np.isnan(column).any():
            raise _unordered(field, int(np.flatnonzero(np.isnan(column))[0]))
        return column
    for row in range(len(dataset)):
        with user_code.running(f"data_module_fn, train data, item {row}"):
            item = dataset[row]
        metadata = reader.metadata(item, row)
        if field not in metadata:
            known = ", ".join(sorted(metadata)) or "none"
            problem = f"item {row} of train_data() has no metadata {field!r} (it has: {known})"
            raise DataModuleError(problem, "return it, or change data.split_by in params.yaml")
        key = metadata[field].item()
        if isinstance(key, float) and math.isnan(key):
            raise _unordered(field, row)
        if keys and isinstance(key, bytes) != isinstance(keys[0], bytes):
            problem = (
                f"metadata {field!r} is text in some items and a number in others (item {row})"
            )
            raise DataModuleError(problem, "return one type, or change data.split_by")
        keys.append(key)
    return np.array(keys)


def _unordered(field: str, row: int) -> DataModuleError:
    problem = f"metadata {field!r} of item {row} of train_data() is NaN"
    return DataModuleError(problem, "give it a value, or change data.split_by")


def split_newest(dataset: Any, size: float, keys: np.ndarray) -> tuple[Subset, Subset]:
    """Split a dataset into the older rows and a share of the newest ones, both in original order.

    Args:
        dataset: A dataset with a length.
        size: Share of the second part, in [0, 1), rounded to whole rows; the first part has at
            least one row. Of rows with equal keys, later ones count as newer.
        keys: Key of each row, `(rows,)`.
    """
    total = len(keys)
    count = min(round(size * total), max(0, total - 1))
    rows = np.argsort(keys, kind="stable")
    older, newest = np.sort(rows[: total - count]), np.sort(rows[total - count :])
    return Subset(dataset, older.tolist()), Subset(dataset, newest.tolist())
