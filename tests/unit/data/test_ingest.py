"""Ingest datasets of pairs; errors name items that cannot be stored and how to fix them."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from renate_stages.data import StoredDataset, ingest
from renate_stages.data.columns import BLOCK_BYTES
from renate_stages.errors import (
    EmptyDatasetError,
    ItemMismatchError,
    NotAPairError,
    UnstorableValueError,
)


class Items(Dataset):
    """A map-style dataset of given items."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter((torch.full((2,), n), n) for n in range(5))


def test_tensor_datasets_and_their_subsets_are_read_in_blocks(tmp_path, monkeypatch):
    data = TensorDataset(torch.arange(60, dtype=torch.uint8).reshape(20, 3), torch.arange(20))
    nested = Subset(Subset(data, list(range(19, 9, -1))), [0, 3, 3])
    monkeypatch.setattr(TensorDataset, "__getitem__", None)  # not item by item
    whole = ingest(data, tmp_path / "whole", 1, "train")
    np.testing.assert_array_equal(whole.column("inputs"), data.tensors[0])
    part = ingest(nested, tmp_path / "part", 1, "train")
    assert part.column("targets").tolist() == [19, 16, 16]
    assert part.spec == whole.spec


def test_tensor_views_are_stored_without_their_backing_tensor(tmp_path):
    """Renate stored the whole backing tensor with each view."""
    data = TensorDataset(torch.zeros(1000, 50), torch.zeros(1000, dtype=torch.int64))
    store = ingest(Subset(data, [1, 2]), tmp_path / "s", 1, "train")
    assert sum(file.stat().st_size for file in store.files()) < 2000


def test_numbers_arrays_and_nested_items_are_stored(tmp_path):
    Pair = namedtuple("Pair", "a b")
    items = [
        (
            {"image": torch.full((2, 2), n, dtype=torch.uint8), "age": n},
            [0.5 * n, n > 1, Pair(n, n)],
        )
        for n in range(3)
    ]
    store = ingest(Items(*items), tmp_path / "s", 1, "train")
    kinds = {path: str(field) for path, field in store.spec.fields.items()}
    assert kinds == {
        "inputs.age": "int64 ()",
        "inputs.image": "uint8 (2, 2)",
        "targets.0": "float32 ()",
        "targets.1": "bool ()",
        "targets.2.0": "int64 ()",
        "targets.2.1": "int64 ()",
    }
    inputs, targets = StoredDataset(store)[2]
    assert inputs["age"] == 2 and inputs["image"].tolist() == [[2, 2], [2, 2]]
    assert targets[0] == 1.0 and targets[1] and isinstance(targets[2], tuple)


def test_numpy_scalars_keep_their_dtype_and_any_byte_order_is_accepted(tmp_path):
    items = Items(*((np.arange(2, dtype=">f8"), np.float64(n)) for n in range(2)))
    store = ingest(items, tmp_path / "s", 1, "train")
    assert [str(field) for field in store.spec.fields.values()] == ["float64 (2,)", "float64 ()"]
    assert store.column("inputs").tolist() == [[0, 1], [0, 1]]


def test_iterable_datasets_are_streamed(tmp_path):
    assert ingest(Stream(), tmp_path / "s", 1, "train").column("targets").tolist() == list(range(5))


def test_a_dataset_may_reuse_the_array_it_returns(tmp_path):
    class Reuse(Items):
        array = np.zeros(2)

        def __getitem__(self, index):
            self.array[:] = index
            return self.array, index

    store = ingest(Reuse(*range(4)), tmp_path / "s", 1, "train")
    assert store.column("inputs")[:, 0].tolist() == [0, 1, 2, 3]


def test_reading_by_item_and_by_block_writes_the_same_bytes(tmp_path):
    inputs, targets = torch.rand(50, 4), torch.arange(50)
    fast = ingest(TensorDataset(inputs, targets), tmp_path / "fast", 3, "train")
    slow = ingest(Items(*zip(inputs, targets, strict=True)), tmp_path / "slow", 3, "train")
    for one, other in zip(fast.files(), slow.files(), strict=True):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


GOOD = (torch.zeros(3), 1)


@pytest.mark.parametrize(
    ("items", "error", "message"),
    [
        ([], EmptyDatasetError, "val data: found 0 items"),
        ([GOOD, None], NotAPairError, r"val data, item 1 is None; expected \(inputs, targets\) or"),
        ([torch.zeros(3)], NotAPairError, "item 0 is a Tensor"),
        ([(1, 2, 3)], NotAPairError, "item 0 is a tuple of 3"),
        ([{"x": 1, "y": 2}], NotAPairError, "item 0 is a dict"),
        ([GOOD, (torch.zeros(4), 1)], ItemMismatchError, r"item 1: inputs is float32 \(4,\)"),
        ([GOOD, (torch.zeros(3), 1.0)], ItemMismatchError, r"targets is float32 \(\).*int64 \(\)"),
        (
            [GOOD, ((torch.zeros(3),), 1)],
            ItemMismatchError,
            r"is \(\(array,\), array\), but item 0 has \(array, array\)",
        ),
        ([GOOD, ("a word", 1)], UnstorableValueError, "(?s)item 1: inputs is a str.*token ids"),
        (
            [(Image.new("RGB", (2, 2)), 1)],
            UnstorableValueError,
            r"(?s)PIL\.Image\.Image.*torch\.from_numpy\(np\.array\(image\)\)",
        ),
        ([({"a": object()}, 1)], UnstorableValueError, r"(?s)inputs\.a is a object.*as_tensor"),
        ([(torch.zeros(3), None)], UnstorableValueError, "(?s)targets is a NoneType.*instead"),
        ([(np.array(["a"]), 1)], UnstorableValueError, "an array of <U1"),
        (
            [(torch.zeros(3, dtype=torch.bfloat16), 1)],
            UnstorableValueError,
            r"(?s)torch\.bfloat16.*\.float\(\)",
        ),
    ],
)
def test_items_that_cannot_be_stored_are_reported(tmp_path, items, error, message):
    with pytest.raises(error, match=message):
        ingest(Items(*items), tmp_path / "s", 1, "val")
    assert not (tmp_path / "s" / "index.json").exists()


def test_empty_tensor_dataset_is_refused(tmp_path):
    with pytest.raises(EmptyDatasetError, match="test data"):
        ingest(TensorDataset(torch.zeros(0, 3), torch.zeros(0)), tmp_path / "s", 1, "test")


def test_failure_to_store_a_block_stops_reading_and_is_raised(tmp_path):
    read = []

    class Large(Items):
        def __len__(self):
            return 100

        def __getitem__(self, index):
            read.append(index)
            return np.zeros(BLOCK_BYTES, np.uint8), 0  # each item is a block

    def full_disk(columns, spec):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        ingest(Large(), tmp_path / "s", 1, "train", unwanted=[full_disk])
    assert len(read) <= 2
    assert not (tmp_path / "s" / "index.json").exists()
