"""Datasets read in blocks: the stores are those of validating item by item."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset

from renate_stages import errors
from renate_stages.data import ColumnDataset, ingest, row_block, value_rows
from renate_stages.data import columns as columns_file
from renate_stages.memory import Ragged
from renate_stages.tasks.labels import LabelNames


class Items(Dataset):
    """A dataset of items, which returns the same objects again and again."""

    def __init__(self, items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


def files(store) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in store.path.iterdir()}


def validated(items, path, monkeypatch, **arguments):
    """Return the store of items of which each is validated part by part."""
    with monkeypatch.context() as patch:
        patch.setattr(row_block.Copier, "of", lambda *_: None)
        return ingest(Items(items), path, 1, "train", **arguments)


ROWS = 9
FORMS = {
    "tensors": lambda n: (torch.full((2, 3), n / 7), torch.tensor(n)),
    "bytes of images as tensors": lambda n: (torch.full((3, 2), n, dtype=torch.uint8), n),
    "numbers": lambda n: ({"age": n, "income": n / 3, "new": n % 2 == 0}, n % 3),
    "arrays": lambda n: (np.full(2, n, ">f8"), np.float32(n)),
    "tuples and lists": lambda n: ([n, (n / 2, torch.tensor(n))], [n, n]),
    "names": lambda n: (torch.full((2,), n), ("cat", "dog", "bird")[n % 3]),
    "metadata": lambda n: (
        torch.full((2,), n),
        n,
        {"id": f"row-{n}", "source": "ab"[n % 2], "time": n / 2, "good": n > 3, "count": n},
    ),
    "number as id": lambda n: ({"a": n}, 1.5, {"id": n, "week": np.int32(n)}),
}


def numbers(n: int):
    return {"a": n, "b": n / 3}, n % 2, {"id": f"row-{n}", "source": "ab"[n % 2]}


UNUSUAL = {
    "another type": lambda n: ({"a": n, "b": np.float32(n)}, n % 2, numbers(n)[2]),
    "another order of keys": lambda n: ({"b": n / 3, "a": n}, n % 2, numbers(n)[2]),
    "a list as item": lambda n: list(numbers(n)),
    "a tensor": lambda n: ({"a": torch.tensor(n), "b": n / 3}, n % 2, numbers(n)[2]),
}


@pytest.mark.parametrize("unusual", UNUSUAL)
@pytest.mark.parametrize("block_rows", [3, 4096])
def test_rows_of_single_values_with_unusual_ones_among_them(
    tmp_path, monkeypatch, unusual, block_rows
):
    monkeypatch.setattr(row_block, "BLOCK_ROWS", block_rows)
    items = [UNUSUAL[unusual](n) if n in (5, 6, 11) else numbers(n) for n in range(17)]
    expected = validated(items, tmp_path / "a", monkeypatch)
    assert files(ingest(Items(items), tmp_path / "b", 1, "train")) == files(expected)


def test_an_unusual_value_among_many_is_named_with_its_row(tmp_path):
    items = [({"a": 2**70 if n == 700 else n}, n) for n in range(900)]
    with pytest.raises(errors.UnstorableValueError, match=r"item 700: inputs.a .*64 bits"):
        ingest(Items(items), tmp_path / "a", 1, "train")
    items = [({"a": "text" if n == 700 else n}, n) for n in range(900)]
    with pytest.raises(errors.UnstorableValueError, match="item 700"):
        ingest(Items(items), tmp_path / "b", 1, "train")


def test_a_dict_that_a_dataset_changes_and_returns_again_is_read_in_time(tmp_path):
    class Reused(Items):
        row: ClassVar[dict] = {}

        def __getitem__(self, row):
            self.row["a"] = row
            return self.row, row

    store = ingest(Reused(range(50)), tmp_path / "a", 1, "train")
    assert store.column("inputs.a").tolist() == list(range(50))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_rows", [4, 4096])
def test_copied_items_equal_validated_ones(tmp_path, monkeypatch, form, block_rows):
    monkeypatch.setattr(row_block, "BLOCK_ROWS", block_rows)
    items = [FORMS[form](n) for n in range(ROWS)]
    expected = validated(items, tmp_path / "a", monkeypatch, numbers=LabelNames().numbers)
    copied = []
    copy, move = row_block.Copier.copied, value_rows.ValueRows.moved

    def moved(rows, block):
        copied.extend([True] * len(rows))
        return move(rows, block) or copied.append(False)

    monkeypatch.setattr(
        row_block.Copier, "copied", lambda *arguments: copied.append(copy(*arguments)) or copied[-1]
    )
    monkeypatch.setattr(value_rows.ValueRows, "moved", moved)
    found = ingest(Items(items), tmp_path / "b", 1, "train", numbers=LabelNames().numbers)
    assert copied == [True] * (ROWS - 1)  # the first one is validated
    assert files(found) == files(expected)


LIKE = ({"a": 1.0, "b": torch.zeros(2)}, 3, {"source": "x", "time": 1})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (({"a": 1, "b": torch.zeros(2)}, 3, LIKE[2]), "inputs.a is int64"),
        (({"a": 1.0, "b": torch.zeros(3)}, 3, LIKE[2]), r"inputs.b is float32 \(3,\)"),
        (({"a": 1.0, "b": torch.zeros(2).double()}, 3, LIKE[2]), "inputs.b is float64"),
        (({"a": 1.0}, 3, LIKE[2]), "structure"),
        (({"a": 1.0, "c": torch.zeros(2)}, 3, LIKE[2]), "structure"),
        ((LIKE[0], 3.0, LIKE[2]), "targets is float32"),
        ((LIKE[0], 3), "metadata source, time is missing"),
        ((LIKE[0], 3, {"source": "x"}), "metadata time is missing"),
        ((LIKE[0], 3, {**LIKE[2], "more": 1}), "metadata more is present"),
        ((LIKE[0], 3, {"source": "x", "time": 1.5}), r"meta.time is float64"),
        ((LIKE[0], 3, {"source": "x" * 99, "time": 1}), "item 2: metadata 'source' is"),
        ((LIKE[0], 3, {"source": "x", "time": 2**63}), "item 2: metadata 'time' is"),
        ((LIKE[0], "cat", LIKE[2]), "its label is a name"),
        ((LIKE[0], None, LIKE[2]), "targets is a NoneType"),
        (LIKE[0], "a dict"),
    ],
)
def test_item_that_differs_from_the_first_is_named(tmp_path, other, message):
    with pytest.raises(errors.RenateStagesError, match=f"item 2.*{message}|{message}") as caught:
        ingest(Items([LIKE, LIKE, other]), tmp_path / "s", 1, "train", numbers=LabelNames().numbers)
    assert "item 2" in str(caught.value)


def test_items_of_another_type_with_equal_content_are_validated_and_stored(tmp_path, monkeypatch):
    items = [
        (torch.zeros(2), 1),
        (np.ones(2, np.float32), torch.tensor(2)),
        (torch.nn.Parameter(torch.full((2,), 2.0)), np.int64(3)),
        (torch.full((2,), 3.0), 4),
    ]
    found = ingest(Items(items), tmp_path / "a", 1, "train")
    assert found.column("inputs").tolist() == [[n, n] for n in range(4)]
    assert found.column("targets").tolist() == [1, 2, 3, 4]
    assert files(found) == files(validated(items, tmp_path / "b", monkeypatch))


def test_names_may_follow_ignored_rows_but_not_numbers(tmp_path):
    items = [(torch.zeros(2), -100), (torch.zeros(2), "cat"), (torch.zeros(2), -100)]
    store = ingest(Items(items), tmp_path / "a", 1, "train", numbers=LabelNames().numbers)
    assert store.column("targets").tolist() == [-100, 0, -100]
    with pytest.raises(errors.ItemMismatchError, match="item 3: its label is a number"):
        ingest(
            Items([*items, (torch.zeros(2), 5)]),
            tmp_path / "b",
            1,
            "train",
            numbers=LabelNames().numbers,
        )


# -- columns --------------------------------------------------------------------------------------


def columns(rows: int = ROWS) -> ColumnDataset:
    numbers = np.arange(rows)
    return ColumnDataset(
        {"age": numbers, "image": torch.arange(rows * 6, dtype=torch.uint8).view(rows, 2, 3)},
        [("cat", "dog")[n % 2] for n in numbers],
        {"id": [f"row-{n}" for n in numbers], "time": numbers / 2, "week": numbers.astype(np.int8)},
    )


@pytest.mark.parametrize("rows", [None, [7, 2, 2, 0]])
def test_columns_equal_their_items(tmp_path, monkeypatch, rows):
    data = columns()
    part = data if rows is None else Subset(Subset(data, list(range(ROWS))), rows)
    found = ingest(part, tmp_path / "a", 1, "train", numbers=LabelNames().numbers)
    items = [part[n] for n in range(len(part))]
    assert items[0][2]["id"] == ("row-0" if rows is None else "row-7")
    expected = validated(items, tmp_path / "b", monkeypatch, numbers=LabelNames().numbers)
    assert files(found) == files(expected)


def test_times_in_a_list_of_metadata_keep_64_bits(tmp_path):
    times = [1795996800.0, 1796036400.25]
    found = ingest(ColumnDataset([0.1, 0.2], [0, 1], {"time": times}), tmp_path / "a", 1, "train")
    assert found.column("meta.time").tolist() == times
    assert found.column("inputs").dtype == np.float32


def test_columns_are_not_read_item_by_item(tmp_path, monkeypatch):
    monkeypatch.setattr(ColumnDataset, "__getitem__", None)
    assert len(ingest(columns(), tmp_path / "a", 1, "train", numbers=LabelNames().numbers)) == ROWS


def test_columns_of_a_data_frame_are_stored(tmp_path):
    frame = pd.DataFrame({"age": [1.5, 2.5], "kind": ["a", "b"], "label": ["x", "y"]})
    data = ColumnDataset({"age": frame["age"]}, frame["label"], {"kind": frame["kind"]})
    names = LabelNames()
    store = ingest(data, tmp_path / "a", 1, "train", numbers=names.numbers)
    assert store.column("inputs.age").tolist() == [1.5, 2.5] and names.names == ("x", "y")
    assert store.column("meta.kind").tolist() == [b"a", b"b"]


@pytest.mark.parametrize("rows", [None, [4, 1, 1, 0]])
@pytest.mark.parametrize("block_rows", [2, 4096])
def test_ragged_columns_equal_their_items(tmp_path, monkeypatch, rows, block_rows):
    monkeypatch.setattr(columns_file, "BLOCK_ROWS", block_rows)
    texts = [np.frombuffer(each, np.uint8) for each in (b"one", b"", b"three", b"4", b"")]
    pictures = [b"\xff\xd8\xff" + bytes(n) for n in range(5)]
    encoded = Ragged.of([np.frombuffer(each, np.uint8) for each in pictures], "image")
    data = ColumnDataset({"text": Ragged.of(texts), "image": encoded}, list(range(5)))
    assert data.ragged_fields == ("inputs.image", "inputs.text")
    part = data if rows is None else Subset(data, rows)
    found = ingest(part, tmp_path / "a", 1, "train", ragged=("inputs.text",))
    items = [part[n] for n in range(len(part))]
    assert data[-1][0]["image"] == pictures[-1] and data[-2][0]["text"].tobytes() == b"4"
    expected = ingest(Items(items), tmp_path / "b", 1, "train", ragged=("inputs.text",))
    assert files(found) == files(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColumnDataset(np.zeros((3, 2)), [1, 2]), "column 'targets' has 2 rows"),
        (lambda: ColumnDataset(np.zeros(3), np.zeros(3), {"id": [1]}), "'meta.id' has 1 rows"),
        (lambda: ColumnDataset({}, [1]), "inputs"),
        (lambda: ColumnDataset({"a": ["x", "y"]}, [0, 1]), "item 0: inputs.a is a str"),
        (lambda: ColumnDataset(np.zeros(2), ["x", None]), "item 1: targets is a NoneType"),
        (lambda: ColumnDataset(np.zeros(2), [0, 1], {"weight": [1.0, -2.0]}), "item 1"),
        (lambda: ColumnDataset(np.zeros(2), [0, 1], {"source": ["a", "b" * 99]}), "item 1"),
        (lambda: ColumnDataset(np.zeros(2), [0, 1], {"a": ["a", 5]}), "item 1: meta.a is int64"),
        (lambda: ColumnDataset(np.zeros(0), np.zeros(0)), "found 0 items"),
        (lambda: ColumnDataset(np.zeros(2), np.array([0, 1]), {"a": np.zeros((2, 2))}), "item 0"),
    ],
)
def test_unusable_columns_are_refused_by_row_and_name(tmp_path, make, message):
    with pytest.raises(errors.RenateStagesError, match=re.escape(message)):
        ingest(make(), tmp_path / "s", 1, "train", numbers=LabelNames().numbers)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_random_columns_equal_their_items(tmp_path_factory, data):
    rows = data.draw(st.integers(1, 7))
    kinds = data.draw(
        st.lists(st.sampled_from(["f4", "i8", "u1", "?", "f8"]), min_size=1, max_size=4)
    )
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    made = {
        f"c{n}": (draw.normal(size=(rows, n + 1)) * 9).astype(kind) for n, kind in enumerate(kinds)
    }
    texts = data.draw(st.lists(st.text(max_size=5), min_size=rows, max_size=rows))
    usable = [each.replace("\0", "") for each in texts]
    dataset = ColumnDataset(made, draw.integers(0, 3, rows), {"source": usable})
    folder = tmp_path_factory.mktemp("columns")
    found = ingest(dataset, folder / "a", 1, "train")
    items = [dataset[n] for n in range(rows)]
    assert files(found) == files(ingest(Items(items), folder / "b", 1, "train"))
