"""Rows of earlier holdouts are recognized by id and by content."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from renate_stages.data import ingest
from renate_stages.memory.held_out import HeldOut

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
    held_out = HeldOut([holdout])
    store = ingest(new, tmp_path / "new", 2, "train", unwanted=[held_out])
    assert store.column("targets").tolist() == [4, 5, 6, 7] and held_out.rows == 2


def test_row_with_the_id_of_a_holdouts_row_is_left_out_even_if_its_content_changed(tmp_path):
    holdout = ingest(Named([3], "a"), tmp_path / "held", 1, "test")

    class Corrected(Named):
        def __getitem__(self, index: int):
            inputs, _, metadata = super().__getitem__(index)
            return inputs, torch.tensor(99), metadata

    store = ingest(
        Corrected([3, 4], "a"), tmp_path / "new", 2, "train", unwanted=[HeldOut([holdout])]
    )
    assert len(store) == 1


def test_nothing_is_left_out_without_holdouts(tmp_path):
    held_out = HeldOut()
    store = ingest(plain(range(3)), tmp_path / "new", 1, "train", unwanted=[held_out])
    assert np.array_equal(store.column("targets"), [0, 1, 2]) and held_out.rows == 0


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
    held_out = HeldOut([stored], by_content=False)
    found = ingest(new, tmp_path / "new", 2, "train", unwanted=[held_out])
    assert (len(found), held_out.rows) == (kept, len(new) - kept)
