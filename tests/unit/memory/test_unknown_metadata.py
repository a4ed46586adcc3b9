"""Metadata that is missing for some rows of a store is unknown, never a value."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_updates import write_examples

from renate_stages.evaluation.slices import slices_of
from renate_stages.memory import ExampleStore, StoreWriter, evolve, versions
from renate_stages.memory.composition import composition, table
from renate_stages.memory.forget_list import ForgetList, stored_truth
from renate_stages.memory.identity import IdSet, content_ids, printed, stored_ids
from renate_stages.memory.predicate import Predicate
from renate_stages.state.data_figures import describe
from renate_stages.tasks import may_have_labels

NOTHING = np.empty(0, np.int64)


def write(path: Path, numbers, number: int = 1, **metadata) -> ExampleStore:
    numbers = np.asarray(numbers)
    with StoreWriter(path, number) as writer:
        beside = {name: np.asarray(values) for name, values in metadata.items()}
        writer.append((numbers.astype(np.float32), numbers % 2), beside)
    return ExampleStore.open(path)


@pytest.fixture
def mixed(tmp_path) -> ExampleStore:
    """Return rows 0 to 3 without metadata, and 4 to 7 with, including NaN, -1 and an empty text."""
    old = write(tmp_path / "old", range(4))
    ages, sources = [5.0, np.nan, 30.0, -1.0], np.array([b"eu", b"us", b"", b"eu"], "S32")
    known = {"age": ages, "source": sources, "flag": [True, False, False, True], "n": [-1, 0, 1, 2]}
    new = write(tmp_path / "new", range(4, 8), 2, update=np.full(4, 2, np.int32), **known)
    return evolve(tmp_path / "mixed", old, np.arange(4), new, np.arange(4), 2)


def forgotten_rows(store: ExampleStore, condition: str) -> list[int]:
    return np.flatnonzero(ForgetList().with_more(where=[condition]).stored_rows(store)).tolist()


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("age < 18", [4, 7]),
        ("not (age >= 18)", [4, 7]),
        ("age != 5", [6, 7]),
        ("flag == False", [5, 6]),
        ("source != 'web'", [4, 5, 6, 7]),
        ("source == ''", [6]),
        ("n == -1", [4]),
        ("n < 1", [4, 5]),
        ("not (source == 'eu')", [5, 6]),
        ("label == 0 or n == -1", [0, 2, 4, 6]),
        ("update < 3", [4, 5, 6, 7]),
    ],
)
def test_rows_without_a_metadata_field_match_no_condition_on_the_field(mixed, condition, rows):

    assert forgotten_rows(mixed, condition) == rows


def test_unknown_metadata_is_counted_as_neither_true_nor_false(mixed):
    true, false = stored_truth(mixed, Predicate.parse("age < 18"))
    assert (true.sum(), false.sum(), len(true)) == (2, 1, 8)
    assert mixed.known("age").tolist() == [False] * 4 + [True, False, True, True]
    assert mixed.known("source").tolist() == [False] * 4 + [True] * 4
    assert not mixed.known("nobody_has_it").any()


def test_unknown_metadata_stays_unknown_when_shards_are_rewritten(mixed, tmp_path):
    """If it were rewritten as -1, NaN, 0 or an empty text, it would become data."""
    few = evolve(tmp_path / "few", mixed, np.array([0, 4]), None, NOTHING, 3)
    assert [shard.name[:5] for shard in few.shards] == ["00003", "00003"]
    assert few.shards[0].lacks == mixed.shards[0].lacks
    assert few.known("n").tolist() == [False, True]
    assert forgotten_rows(few, "n < 1 or flag == False or source != 'web'") == [1]
    again = evolve(tmp_path / "again", None, NOTHING, mixed, np.array([6, 1, 0, 7, 2]), 4)
    assert again.gather(np.arange(5))[0].tolist() == [6, 1, 0, 7, 2]
    assert again.known("n").tolist() == [True, False, False, True, False]
    named = {"weight": np.arange(5.0), "n": np.arange(5)}
    both = evolve(tmp_path / "both", None, NOTHING, mixed, np.arange(2, 7), 4, metadata=named)
    assert both.known("n").all() and both.metadata("n").tolist() == [0, 1, 2, 3, 4]
    assert both.known("source").tolist() == [False, False, True, True, True]


def test_small_shards_are_merged_only_if_their_metadata_fields_are_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "MAX_SMALL_SHARDS", 3)
    store = write(tmp_path / "0", range(2))
    for number in range(1, 6):
        beside = {} if number < 3 else {"age": np.full(2, number)}
        new = write(tmp_path / f"new{number}", range(2 * number, 2 * number + 2), number, **beside)
        kept = np.arange(len(store))
        store = evolve(tmp_path / str(number), store, kept, new, np.arange(2), number)
    assert store.gather(np.arange(12))[0].tolist() == list(range(12))
    assert store.known("age").tolist() == [False] * 6 + [True] * 6
    assert len(store.shards) <= 4
    last = evolve(tmp_path / "last", store, np.arange(12), None, NOTHING, 9)
    again = evolve(tmp_path / "end", last, np.arange(12), None, NOTHING, 10)
    assert [shard.name for shard in again.shards] == [shard.name for shard in last.shards]


def test_memory_composition_lists_unknown_values(mixed):
    oldest, second = composition(mixed)
    assert (oldest.update, oldest.rows, oldest.sources) == (None, 4, {"unknown": 4})
    assert (second.update, second.rows) == (2, 4)
    assert second.sources == {"''": 1, "eu": 2, "us": 1}
    assert "unknown" in table([oldest, second], 3) and " -1 " not in table([oldest, second], 3)


def test_slices_label_missing_values_as_unknown(mixed):
    slices = slices_of(["age", "n", "flag", "source"], {1: mixed})
    assert slices["age"][1].tolist() == ["unknown"] * 4 + ["5.0", "unknown", "30.0", "-1.0"]
    assert slices["n"][1].tolist() == ["unknown"] * 4 + ["-1", "0", "1", "2"]
    assert slices["flag"][1].tolist() == ["unknown"] * 4 + ["True", "False", "False", "True"]
    assert slices["source"][1].tolist() == ["unknown"] * 4 + ["eu", "us", "unknown", "eu"]


def test_rows_stored_without_an_id_have_their_content_id(tmp_path):
    old = write(tmp_path / "old", range(3))
    new = write(tmp_path / "new", range(3, 5), id=np.array([[1, 2], [3, 4]], np.uint64))
    both = evolve(tmp_path / "both", old, np.arange(3), new, np.arange(2), 2)
    fields = both.spec.fields
    contents = content_ids({path: both.stored_column(path) for path in fields}, fields)
    ids = stored_ids(both)
    assert ids[:3].tolist() == contents[:3].tolist() and ids[3:].tolist() == [[1, 2], [3, 4]]
    named = ForgetList().with_more(printed(ids[[1, 4]]))
    assert named.stored_rows(both).tolist() == [False, True, False, False, True]


def test_id_set_finds_exactly_its_members():
    """This includes ids that share their first half, which ids of real examples never do."""
    pairs = [[1, 3], [1, 1], [1, 2], [2, 1], [1, 1], [2**64 - 1, 0]]
    ids = IdSet(np.array(pairs, np.uint64))
    assert len(ids) == 5
    asked = np.array(
        [[0, 1], [1, 0], [1, 1], [1, 3], [1, 4], [2, 1], [2**64 - 1, 0], [3, 3]], np.uint64
    )
    assert ids.among(asked).tolist() == [
        tuple(each) in {tuple(p) for p in pairs} for each in asked.tolist()
    ]
    nothing = IdSet(np.empty((0, 2), np.uint64))
    assert not nothing.among(asked).any() and not ids.among(asked[:0]).any()
    assert nothing | ids == ids and len({ids, ids | ids}) == 1
    generator = np.random.default_rng(0)
    many = generator.integers(0, 50, (400, 2), dtype=np.uint64)
    members = {tuple(each) for each in many[:100].tolist()}
    found = IdSet(many[:100]).among(many).tolist()
    assert found == [tuple(each) in members for each in many.tolist()]


def test_store_with_unknown_metadata_has_the_format_of_older_releases(mixed):
    """Older releases can read this format, in which only `lacks` is used more often."""
    index = json.loads((mixed.path / "index.json").read_text())
    assert index["format"] == 2
    assert index["shards"][0]["lacks"] == [
        f"meta.{n}" for n in ("age", "flag", "n", "source", "update")
    ]


def test_integer_targets_are_counted_as_classes_only_if_they_may_be_labels(tmp_path):
    store = write_examples(tmp_path / "store", 9)
    for task, expected in (("regression", 0), ("auto", 3), (None, 3), ("classification", 3)):
        labelled = may_have_labels(task)
        assert all(len(part.classes) == expected for part in composition(store, labelled))
        assert len(describe(store, labelled).get("classes", {})) == expected
