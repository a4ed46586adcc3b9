"""Fit the numbers and categories of a table to training rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from renate_stages.memory import ExampleStore
from renate_stages.preprocessing.table_columns import MISSING, Categories, Moments, Value

BLOCK = 65536  # rows


def fit_columns(
    values: Sequence[Value], categories: Sequence[Categories], train: ExampleStore
) -> dict[str, dict[str, float]]:
    """Fit means and scales that are not fitted yet, and mark categories as trained.

    Args:
        values: The numbers, which are changed.
        categories: The categorical columns, which are changed.
        train: The training rows.

    Returns:
        Figures by what they count and by column; see `TablePreprocessing.fit`.
    """
    new = [Moments() for _ in values]
    found: dict[str, dict[str, float]] = {
        "new_categories": {},
        "differ_only_in_case": {},
        "outside_range": {},
        "low_precision_in_steps_of": {},
        "missing": {},
    }
    for block in _blocks(train, "inputs.numeric") if values else ():
        for place, value in enumerate(values):
            new[place].add(block[:, place].astype(np.float64))
            if value.low is not None and value.high is not None:
                outside = (block[:, place] < value.low) | (block[:, place] > value.high)
                _count(found["outside_range"], value.name, int(outside.sum()))
    for value, moments in zip(values, new, strict=True):
        _count(found["missing"], value.name, moments.missing / max(1, len(train)))
        _count(found["low_precision_in_steps_of"], value.name, moments.coarse_step)
        if value.mean is None and moments.count:
            value.mean, value.scale = moments.mean, moments.deviation
            value.low, value.high = moments.low, moments.high
    had_some = any(any(each.trained) for each in categories)
    for block in _blocks(train, "inputs.categorical") if categories else ():
        for place, column in enumerate(categories):
            codes, counts = np.unique(block[:, place], return_counts=True)
            for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
                if code == MISSING:
                    _count(found["missing"], column.name, count / len(train))
                if not column.trained[code - 1]:
                    column.trained[code - 1] = True
                    if code > MISSING:
                        _count(found["new_categories"], column.name, int(had_some))
                        alike = int(column.has_twin(code))
                        _count(found["differ_only_in_case"], column.name, alike)
    return found


def _count(counts: dict[str, float], name: str, more: float) -> None:
    if more:
        counts[name] = counts.get(name, 0) + more


def _blocks(store: ExampleStore, path: str) -> Iterator[np.ndarray]:
    for start in range(0, len(store), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(store)))
        yield store.columns(rows, [path])[path]  # type: ignore[misc]
