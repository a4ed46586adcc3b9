"""Ragged rows and per-example metadata in example stores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from renate_stages.errors import DamagedStoreError, ExampleMismatchError, ExampleStructureError
from renate_stages.memory import ExampleStore, Ragged, StoreWriter, evolve

LENGTHS = (3, 0, 5, 1, 700, 2, 4)


def texts(numbers, width: int | None = None) -> list[np.ndarray]:
    """Return the tokens of text `n`: `n` repeated, as long as `LENGTHS` says."""
    shape = () if width is None else (width,)
    return [np.full((LENGTHS[n % len(LENGTHS)], *shape), n, np.int32) for n in numbers]


def write(path: Path, numbers, shard_bytes: int = 64, block: int = 3, **metadata) -> ExampleStore:
    numbers = np.asarray(numbers)
    with StoreWriter(path, 1, shard_bytes) as writer:
        for start in range(0, len(numbers), block):
            part = numbers[start : start + block]
            beside = {name: np.asarray(values)[part] for name, values in metadata.items()}
            writer.append(({"tokens": Ragged.of(texts(part)), "n": part}, part % 2), beside)
    return ExampleStore.open(path)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def check(store: ExampleStore, numbers) -> None:
    inputs, targets = store.gather(np.arange(len(store)))
    assert inputs["n"].tolist() == list(numbers) and targets.tolist() == [n % 2 for n in numbers]
    for found, expected in zip(inputs["tokens"], texts(numbers), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shard_bytes", [1, 64, 3000, 10**6])
def test_ragged_rows_round_trip_with_any_shard_size(tmp_path, shard_bytes):
    store = write(tmp_path / "s", range(20), shard_bytes)
    check(store, range(20))
    assert len(store.shards) > 1 or shard_bytes == 10**6
    rows = np.array([11, 4, 4, 0, 19, 1])
    tokens = store.gather(rows)[0]["tokens"]
    for found, expected in zip(tokens, texts(rows), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert store.nbytes == sum(4 * len(t) + 16 for t in texts(range(20)))
    assert set(store.files()) == set((tmp_path / "s").iterdir())
    assert len(store.gather(np.array([], np.int64))[0]["tokens"]) == 0


def test_bytes_of_a_ragged_store_do_not_depend_on_block_sizes(tmp_path):
    write(tmp_path / "a", range(20), block=1)
    write(tmp_path / "b", range(20), block=20)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("width", [None, 2])
def test_ragged_take_returns_short_and_long_rows_unchanged(width):
    column = Ragged.of(texts(range(14), width))
    for rows in ([1, 3, 3, 0], [4, 11, 2], []):
        taken = column.take(np.array(rows, np.int64))
        assert len(taken) == len(rows)
        for found, expected in zip(taken, texts(rows, width), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_ragged_rows_are_preserved_over_memory_versions(tmp_path):
    """Compaction, linking and merging must keep rows and lengths together."""
    numbers = list(range(30))
    store = write(tmp_path / "0", numbers)
    generator = np.random.default_rng(0)
    for step in range(1, 6):
        new = write(tmp_path / f"new{step}", range(100 * step, 100 * step + 10))
        kept = np.sort(generator.choice(len(store), len(store) // 2, replace=False))
        store = evolve(tmp_path / str(step), store, kept, new, np.array([8, 2]), step + 1, 64)
        numbers = [numbers[row] for row in kept] + [100 * step + 8, 100 * step + 2]
        check(store, numbers)


@pytest.mark.parametrize(
    "offsets",
    [[0, 2, 1, 3], [1, 2, 3, 3], [0, 1, 2, 4]],
    ids=["decreasing", "nonzero start", "end too large"],
)
def test_invalid_offsets_are_reported_as_damage(tmp_path, offsets):
    with StoreWriter(tmp_path / "s", 1) as writer:
        writer.append((Ragged.of([np.ones(1), np.ones(1), np.ones(1)]), np.zeros(3)))
    np.save(tmp_path / "s" / "00001-00.inputs.offsets.npy", np.array(offsets))
    with pytest.raises(DamagedStoreError, match="offsets do not fit"):
        ExampleStore.open(tmp_path / "s").gather(np.array([1]))


def test_metadata_is_stored_alongside_the_examples(tmp_path):
    source = np.array([b"eu", b"us", b"eu", b"asia"], "S32")
    store = write(tmp_path / "s", range(4), source=source, weight=np.arange(4.0))
    check(store, range(4))
    assert store.metadata("source").tolist() == source.tolist()
    assert store.metadata("weight").tolist() == [0, 1, 2, 3]
    assert store.metadata("age") is None
    assert store.columns(np.array([3, 0]), ["meta.source"])["meta.source"].tolist() == [
        b"asia",
        b"eu",
    ]


def test_rows_without_a_metadata_field_read_as_its_missing_value(tmp_path):
    old = write(tmp_path / "old", range(4))
    new = write(tmp_path / "new", range(4), weight=np.arange(4.0), age=np.arange(4), eu=[True] * 4)
    both = evolve(tmp_path / "both", old, np.arange(4), new, np.arange(4), 2)
    assert both.shards[0].lacks == ("meta.age", "meta.eu", "meta.weight")
    np.testing.assert_array_equal(both.metadata("weight"), [np.nan] * 4 + [0, 1, 2, 3])
    assert both.metadata("age").tolist() == [-1] * 4 + [0, 1, 2, 3]
    assert both.metadata("eu").tolist() == [False] * 4 + [True] * 4
    check(both, [*range(4), *range(4)])
    again = evolve(tmp_path / "again", both, np.arange(3, 8), None, np.arange(0), 3)
    np.testing.assert_array_equal(again.metadata("weight"), [np.nan, 0, 1, 2, 3])


def test_metadata_with_another_dtype_or_an_unsafe_name_is_refused(tmp_path):
    old = write(tmp_path / "old", range(4), weight=np.arange(4.0))
    new = write(tmp_path / "new", range(4), weight=np.arange(4))
    with pytest.raises(ExampleMismatchError, match=r"meta\.weight"):
        evolve(tmp_path / "both", old, np.arange(4), new, np.arange(4), 2)
    with pytest.raises(ExampleStructureError, match="file names contain them"):
        write(tmp_path / "odd", range(4), **{"../up": np.arange(4)})


def test_evolve_writes_new_metadata_and_still_links_the_examples(tmp_path):
    old = write(tmp_path / "old", range(6), 10**6, weight=np.zeros(6))
    new = write(tmp_path / "new", range(6, 9), weight=np.zeros(9))
    kept, logits = np.array([0, 2, 3, 5]), np.arange(10.0).reshape(5, 2)
    weights = {"logits": logits, "weight": np.arange(5.0)}
    store = evolve(tmp_path / "next", old, kept, new, np.array([1]), 2, metadata=weights)
    np.testing.assert_array_equal(store.metadata("logits"), logits)
    np.testing.assert_array_equal(store.metadata("weight"), np.arange(5))
    check(store, [0, 2, 3, 5, 7])
    name = "00001-00.inputs.tokens.npy"
    assert (tmp_path / "next" / name).stat().st_ino == (tmp_path / "old" / name).stat().st_ino
    assert old.metadata("weight").tolist() == [0] * 6


def test_erased_rows_are_removed_from_shards_even_if_already_dead(tmp_path):
    first = write(tmp_path / "0", range(8), 10**6)
    second = evolve(tmp_path / "1", first, np.array([0, 1, 2, 3, 4, 6]), None, np.arange(0), 2)
    assert len(second.shards) == 1 and second.shards[0].rows == 8  # dead rows 5 and 7 remain
    numbers = second.stored_column("inputs.n")
    assert numbers.tolist() == list(range(8))
    erased = np.isin(numbers, [5])
    third = evolve(tmp_path / "2", second, np.arange(6), None, np.arange(0), 3, erased=erased)
    assert third.stored_column("inputs.n").tolist() == [0, 1, 2, 3, 4, 6]
    check(third, [0, 1, 2, 3, 4, 6])
    with pytest.raises(ValueError, match="rows to erase"):
        evolve(tmp_path / "3", second, np.arange(6), None, np.arange(0), 3, erased=numbers == 0)


def test_store_is_written_in_the_oldest_sufficient_format(tmp_path):
    """The empty state's bytes, which every project points to, must not change with a release."""
    for name, inputs, beside, expected in (
        ("plain", np.zeros((2, 3)), {}, 1),
        ("ragged", Ragged.of([np.zeros(1), np.zeros(2)]), {}, 2),
        ("metadata", np.zeros((2, 3)), {"age": np.zeros(2)}, 2),
    ):
        with StoreWriter(tmp_path / name, 1) as writer:
            writer.append((inputs, np.zeros(2)), beside)
        assert json.loads((tmp_path / name / "index.json").read_text())["format"] == expected
        assert len(ExampleStore.open(tmp_path / name)) == 2


def test_appending_a_million_rows_needs_ram_for_one_block_only(tmp_path):
    import tracemalloc

    block = (np.zeros((10_000, 64), np.uint8), np.zeros(10_000, np.int64))
    tracemalloc.start()
    with StoreWriter(tmp_path / "s", 1) as writer:
        for _ in range(100):
            writer.append(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(ExampleStore.open(tmp_path / "s")) == 1_000_000
    assert peak < 2 * block[0].nbytes
