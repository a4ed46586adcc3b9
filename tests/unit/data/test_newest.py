"""Splitting off the newest rows, and the errors for fields that cannot be sorted by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from renate_stages.data import ColumnDataset
from renate_stages.data.newest import sort_keys, split_newest
from renate_stages.errors import DataModuleError

DAYS = ["2026-11-03", "2026-11-01", "2026-11-05", "2026-11-02", "2026-11-04"]


def items(field: str, values: list) -> list[tuple]:
    return [(torch.tensor([float(row)]), 0, {field: value}) for row, value in enumerate(values)]


@pytest.mark.parametrize("values", [DAYS, [3, 1, 5, 2, 4], [0.3, 1e-3, 1e9, 0.2, 4]])
def test_newest_rows_are_split_off_in_original_order(values) -> None:
    dataset = items("day", values)
    older, newest = split_newest(dataset, 0.4, sort_keys(dataset, "day"))
    assert (older.indices, newest.indices) == ([0, 1, 3], [2, 4])
    assert float(newest[0][0]) == 2


def test_later_ones_of_rows_with_equal_keys_are_newer() -> None:
    older, newest = split_newest(list("abcd"), 0.5, np.zeros(4))
    assert (older.indices, newest.indices) == ([0, 1], [2, 3])
    older, newest = split_newest(["a"], 0.9, np.zeros(1))
    assert (older.indices, newest.indices) == ([0], [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, float("nan")], "metadata 'day' of item 1 of train_data\\(\\) is NaN"),
        ([1, "2026-11-03"], "is text in some items and a number in others \\(item 1\\)"),
    ],
)
def test_values_without_an_order_are_refused_by_row(values, message) -> None:
    with pytest.raises(DataModuleError, match=message):
        sort_keys(items("day", values), "day")


def test_missing_field_is_refused_with_those_that_exist() -> None:
    with pytest.raises(DataModuleError, match=r"no metadata 'day' \(it has: month\)"):
        sort_keys(items("month", [1, 2]), "day")
    plain = TensorDataset(torch.zeros(2, 1), torch.zeros(2))
    with pytest.raises(DataModuleError, match=r"item 0 .* no metadata 'day' \(it has: none\)"):
        sort_keys(plain, "day")


def test_keys_of_columns_are_read_without_items(monkeypatch):
    times = np.array([5.0, 1.0, 3.0])
    data = ColumnDataset(np.zeros((3, 2)), np.zeros(3), {"time": times, "id": ["a", "b", "c"]})
    monkeypatch.setattr(ColumnDataset, "__getitem__", None)
    assert sort_keys(Subset(data, [2, 0]), "time").tolist() == [3.0, 5.0]
    times[1] = np.nan
    with pytest.raises(DataModuleError, match=r"metadata 'time' of item 1 .* is NaN"):
        sort_keys(data, "time")
