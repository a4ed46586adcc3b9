"""Rows of earlier updates are recognized by id and by content."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from renate_stages.data import ingest
from renate_stages.memory.earlier_rows import EarlierRows
from renate_stages.memory.identity import given_ids

INPUTS = torch.arange(40, dtype=torch.float32).reshape(10, 4)
LABELS = torch.arange(10)


class Named(Dataset):
    """Examples with ids of their own."""

    def __init__(self, rows, prefix: str) -> None:
        self.rows, self.prefix = list(rows), prefix

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        row = self.rows[index]
        return INPUTS[row], LABELS[row], {"id": f"{self.prefix}{row}"}


def plain(rows) -> TensorDataset:
    rows = list(rows)
    return TensorDataset(INPUTS[rows], LABELS[rows])


@pytest.mark.parametrize(
    ("held", "new"),
    [
        (plain(range(4)), plain(range(2, 8))),
        (Named(range(4), "a"), Named(range(2, 8), "a")),
        (Named(range(4), "a"), plain(range(2, 8))),
        (plain(range(4)), Named(range(2, 8), "a")),
        (Named(range(4), "a"), Named(range(2, 8), "b")),
    ],
    ids=["by content", "by id", "holdout has ids", "new data has ids", "other ids, same content"],
)
def test_rows_of_a_holdout_are_left_out_and_counted(tmp_path, held, new):
    holdout = ingest(held, tmp_path / "held", 1, "test")
    earlier = EarlierRows([holdout])
    store = ingest(new, tmp_path / "new", 2, "train", unwanted=[earlier.left_out("train")])
    assert store.column("targets").tolist() == [4, 5, 6, 7] and earlier.held_out == 2
    assert not len(earlier.reused)


def test_row_with_the_id_of_a_holdouts_row_is_left_out_even_if_its_content_changed(tmp_path):
    holdout = ingest(Named([3], "a"), tmp_path / "held", 1, "test")

    class Corrected(Named):
        def __getitem__(self, index: int):
            inputs, _, metadata = super().__getitem__(index)
            return inputs, torch.tensor(99), metadata

    earlier = EarlierRows([holdout])
    unwanted = [earlier.left_out("train")]
    store = ingest(Corrected([3, 4], "a"), tmp_path / "new", 2, "train", unwanted=unwanted)
    assert len(store) == 1
    assert not len(earlier.reused), "a corrected label is no other row"


@pytest.mark.parametrize("place", ["held out", "memory"])
@pytest.mark.parametrize("by_content", [True, False])
def test_ids_that_earlier_rows_have_with_other_inputs_are_found(tmp_path, place, by_content):
    class Others(Named):
        def __getitem__(self, index: int):
            inputs, label, metadata = super().__getitem__(index)
            return inputs + 100 * (self.rows[index] > 2), label, metadata

    known = ingest(Named(range(5), "a"), tmp_path / "known", 1, "test")
    stores, memory = ([known], None) if place == "held out" else ([], known)
    earlier = EarlierRows(stores, memory, by_content=by_content)
    unwanted = [earlier.left_out("train")]
    store = ingest(Others(range(1, 8), "a"), tmp_path / "new", 2, "train", unwanted=unwanted)
    reused = {bytes(each) for each in earlier.reused}
    assert reused == {bytes(each) for each in given_ids(["a3", "a4"])}
    assert store.column("targets").tolist() == [*range(5 if place == "held out" else 1, 8)]
    remembered = {"train": 2 if by_content else 4} if place == "memory" else {"train": 0}
    assert earlier.in_memory == remembered


def test_rows_in_memory_are_found_by_content_in_every_split(tmp_path):
    memory = ingest(Named(range(6), "a"), tmp_path / "memory", 1, "train")
    held = ingest(plain(range(2)), tmp_path / "held", 1, "test")
    earlier = EarlierRows([held], memory)
    kept = {}
    for split in ("train", "test"):
        new, unwanted = Named(range(8), "renamed"), [earlier.left_out(split)]
        kept[split] = len(ingest(new, tmp_path / split, 2, split, unwanted=unwanted))
    assert kept == {"train": 6, "test": 8}
    assert earlier.in_memory == {"train": 4, "test": 6} and earlier.held_out == 2


def test_nothing_is_left_out_without_holdouts(tmp_path):
    earlier = EarlierRows()
    unwanted = [earlier.left_out("train")]
    store = ingest(plain(range(3)), tmp_path / "new", 1, "train", unwanted=unwanted)
    assert np.array_equal(store.column("targets"), [0, 1, 2]) and earlier.held_out == 0


@pytest.mark.parametrize(
    ("held", "new", "kept"),
    [
        (Named(range(4), "a"), Named(range(2, 8), "b"), 6),
        (Named(range(4), "a"), Named(range(2, 8), "a"), 4),
        (plain(range(4)), plain(range(2, 8)), 4),
    ],
    ids=["other ids, same content", "by id", "without ids, by content"],
)
def test_rows_of_tables_with_other_ids_are_other_rows_though_they_are_equal(
    tmp_path, held, new, kept
):
    stored = ingest(held, tmp_path / "held", 1, "test")
    earlier = EarlierRows([stored], by_content=False)
    found = ingest(new, tmp_path / "new", 2, "train", unwanted=[earlier.left_out("train")])
    assert (len(found), earlier.held_out) == (kept, len(new) - kept)
