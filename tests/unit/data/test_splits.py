"""Splitting rows off: the newest, the same share of each label, whole groups; fields that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from renate_stages.data import ColumnDataset
from renate_stages.data.splits import in_group, labels_of, newest, sort_keys, split_off, stratified
from renate_stages.errors import DataModuleError
from renate_stages.randomness import Generators

DAYS = ["2026-11-03", "2026-11-01", "2026-11-05", "2026-11-02", "2026-11-04"]


def items(field: str, values: list) -> list[tuple]:
    return [(torch.tensor([float(row)]), 0, {field: value}) for row, value in enumerate(values)]


@pytest.mark.parametrize("values", [DAYS, [3, 1, 5, 2, 4], [0.3, 1e-3, 1e9, 0.2, 4]])
def test_newest_rows_are_split_off_in_original_order(values) -> None:
    dataset = items("day", values)
    older, parts = split_off(dataset, {"test": 0.4}, Generators(0, 1), "newest", "day")
    assert ([*older.indices], [*parts["test"].indices]) == ([0, 1, 3], [2, 4])
    assert float(parts["test"][0][0]) == 2


def test_later_ones_of_rows_with_equal_keys_are_newer() -> None:
    assert newest(np.zeros(4), 0.5).tolist() == [2, 3]
    assert newest(np.zeros(1), 0.9).tolist() == []


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


# -- by label -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("counts", [(100, 100), (97, 2, 1), (5, 3, 40, 1, 11)])
def test_stratified_rows_have_the_share_of_each_label_within_one_row(share, counts):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = stratified(labels, share, seed=3)
    assert len(rows) == len(set(rows)) == round(share * len(labels))
    taken = np.bincount(labels[rows], minlength=len(counts))
    assert (np.abs(taken - share * np.array(counts)) < 1.01).all()
    assert not np.array_equal(rows, stratified(labels, share, seed=4))


def test_each_row_of_a_label_is_equally_likely():
    labels = np.repeat([0, 1], [6, 4])
    taken = np.zeros(10)
    for seed in range(2000):
        taken[stratified(labels, 0.5, seed)] += 1
    assert np.abs(taken / 2000 - 0.5).max() < 0.05


LABELS = ["cat", "dog", "cat"]


@pytest.mark.parametrize(
    "dataset",
    [
        [(0, label) for label in LABELS],
        [(0, torch.tensor(n), {"a": 1}) for n in (1, 0, 1)],
        TensorDataset(torch.zeros(3), torch.tensor([1, 0, 1])),
        ColumnDataset(np.zeros(3), LABELS),
        Subset(ColumnDataset(np.zeros(4), ["x", *LABELS]), [1, 2, 3]),
    ],
)
def test_labels_of_any_dataset_are_found(dataset):
    found = labels_of(dataset)
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
    "dataset",
    [
        [(0, 1), (0, 0.5)],
        [(0, 1), (0, torch.zeros(2))],
        TensorDataset(torch.zeros(2), torch.zeros(2, 2)),
        ColumnDataset({"a": np.zeros(2)}, {"a": np.zeros(2)}),
    ],
)
def test_rows_without_one_label_cannot_be_stratified(dataset):
    with pytest.raises(DataModuleError, match="needs one label for each row"):
        split_off(dataset, {"test": 0.5}, Generators(0, 1), "stratified")


# -- by group -------------------------------------------------------------------------------------


def customers(values) -> ColumnDataset:
    return ColumnDataset(np.zeros(len(values)), np.zeros(len(values)), {"customer": list(values)})


@pytest.mark.parametrize(
    "values", [[f"c{n % 40}" for n in range(200)], [n % 40 for n in range(200)]]
)
def test_a_group_is_in_one_split_and_in_the_same_one_in_each_update(values):
    splits: dict[str, dict] = {}
    for update in (1, 2):
        own = values if update == 1 else values[::-1] + values[:3]
        made = Generators(7, update)
        rest, parts = split_off(
            customers(own), {"test": 0.3, "val": 0.2}, made, "grouped", "customer"
        )
        for name, part in {"train": rest, **parts}.items():
            for row in range(len(part)):
                assert splits.setdefault(name, {}).setdefault(part[row][2]["customer"], 0) >= 0
    names = [set(each) for each in splits.values()]
    assert sum(map(len, names)) == 40 == len(set.union(*names))
    assert all(names)


def test_about_the_share_of_the_groups_is_taken_and_seeds_differ():
    groups = np.arange(5000)
    first, second = (in_group(groups, 0.2, f"test {seed}") for seed in (0, 1))
    for taken in (first, second):
        assert 0.18 < len(taken) / 5000 < 0.22
    both = len(np.intersect1d(first, second)) / 5000
    assert 0.03 < both < 0.05  # 0.2 * 0.2


def test_groups_are_the_same_for_items_and_columns():
    values = ["a", "b", "c", "d", "e", "f"] * 2
    made = Generators(0, 1)
    rows = [(0, 0, {"customer": value}) for value in values]
    parts = [
        split_off(each, {"test": 0.5}, made, "grouped", "customer")[1]["test"].indices
        for each in (rows, customers(values))
    ]
    assert parts[0] == parts[1]


def test_too_few_groups_and_unusable_fields_are_named():
    with pytest.raises(DataModuleError, match="too few different values of metadata 'customer'"):
        split_off(customers(["a"] * 9), {"test": 0.5}, Generators(0, 1), "grouped", "customer")
    with pytest.raises(DataModuleError, match="split_by: id differs in every row"):
        split_off(customers(["a"] * 9), {"test": 0.5}, Generators(0, 1), "newest", "id")
