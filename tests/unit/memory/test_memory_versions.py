"""The next version of a memory shares unchanged shards and keeps the order of arrival."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from renate_stages.errors import DamagedStoreError, ExampleMismatchError
from renate_stages.memory import ExampleStore, SlidingWindow, StoreWriter, evolve, link_store

ROW_BYTES = 2 * 3 + 8
NONE = np.array([], dtype=np.int64)


def write(path: Path, start: int, rows: int, update: int, rows_per_shard: int = 4) -> ExampleStore:
    numbers = np.arange(start, start + rows)
    with StoreWriter(path, update, shard_bytes=rows_per_shard * ROW_BYTES) as writer:
        writer.append(
            (np.broadcast_to(numbers[:, None, None], (rows, 2, 3)).astype(np.uint8), numbers)
        )
    return ExampleStore.open(path)


def names(store: ExampleStore) -> list[str]:
    return [shard.name for shard in store.shards]


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def assert_holds(store: ExampleStore, numbers) -> None:
    np.testing.assert_array_equal(store.column("targets"), numbers)
    if len(store):
        order = np.random.default_rng(0).permutation(len(store))
        inputs, targets = store.gather(order)
        np.testing.assert_array_equal(targets, np.asarray(numbers)[order])
        np.testing.assert_array_equal(inputs[:, 1, 2], np.asarray(numbers)[order])


def test_shards_with_at_least_half_live_rows_are_linked_and_others_rewritten(tmp_path):
    parent = write(tmp_path / "parent", 0, 16, update=1)  # shards of 4: 0-3, 4-7, 8-11, 12-15
    before = contents(tmp_path / "parent")
    new = write(tmp_path / "new", 20, 5, update=2)
    kept = np.array([0, 1, 6, 12, 13, 14, 15])  # half, a quarter, none and all of a shard
    store = evolve(
        tmp_path / "next", parent, kept, new, np.array([0, 4]), 2, shard_bytes=4 * ROW_BYTES
    )
    assert_holds(store, [0, 1, 6, 12, 13, 14, 15, 20, 24])
    assert names(store) == ["00001-00", "00002-00", "00001-03", "00002-01"]
    assert [(shard.rows, shard.live) for shard in store.shards] == [(4, 2), (1, 1), (4, 4), (2, 2)]
    for name in ("00001-00.inputs.npy", "00001-03.targets.npy"):
        assert (tmp_path / "parent" / name).samefile(tmp_path / "next" / name)
    assert contents(tmp_path / "parent") == before
    assert np.load(tmp_path / "next" / "live.npy").tolist() == [True] * 2 + [False] * 2 + [True] * 7
    assert [file.name for file in store.files()] == list(contents(tmp_path / "next"))


def test_kept_rows_are_numbered_among_the_live_rows(tmp_path):
    parent = write(tmp_path / "0", 0, 12, update=1)
    step = evolve(tmp_path / "1", parent, np.array([0, 2, 3, 5, 6, 8, 9, 11]), None, NONE, 2)
    assert_holds(step, [0, 2, 3, 5, 6, 8, 9, 11])
    step = evolve(tmp_path / "2", step, np.array([0, 1, 3, 5, 6, 7]), None, NONE, 3)
    assert_holds(step, [0, 2, 5, 8, 9, 11])


def test_random_memory_versions_match_a_plain_list(tmp_path):
    random = np.random.default_rng(3)
    store, expected = None, []
    for update in range(1, 60):
        new = write(tmp_path / f"new-{update}", 10 * update, 10, update)
        kept = np.flatnonzero(random.random(len(expected)) < 0.9)
        added = random.permutation(10)[: random.integers(1, 5)]
        store = evolve(
            tmp_path / f"{update}", store, kept, new, added, update, shard_bytes=40 * ROW_BYTES
        )
        expected = [expected[row] for row in kept] + [10 * update + row for row in added]
        np.testing.assert_array_equal(store.column("targets"), expected)
        assert len(store.shards) <= 34
    inputs, targets = store.gather(np.arange(len(store))[::-1])
    np.testing.assert_array_equal(targets, expected[::-1])
    np.testing.assert_array_equal(inputs[:, 0, 0], np.array(expected[::-1]) % 256)


def test_many_small_shards_are_merged_and_large_shards_are_kept(tmp_path):
    store = write(tmp_path / "0", 0, 100, update=0, rows_per_shard=100)
    for update in range(1, 35):
        assert len(store.shards) == update
        new = write(tmp_path / f"new-{update}", 100 + update, 1, update)
        store = evolve(
            tmp_path / f"{update}", store, np.arange(len(store)), new, np.array([0]), update,
            shard_bytes=100 * ROW_BYTES,
        )  # fmt: skip
    assert names(store) == ["00000-00", "00034-00"]
    np.testing.assert_array_equal(store.column("targets"), [*range(100), *range(101, 135)])


def test_sliding_window_keeps_arrival_order_over_compacted_shards(tmp_path):
    policy = SlidingWindow(10, np.random.default_rng(0))
    store = None
    for update in range(1, 12):
        new = write(tmp_path / f"new-{update}", 3 * update, 3, update)
        selection = policy.select(None, None, len(store or ()), 3)
        store = evolve(tmp_path / f"{update}", store, selection.kept, new, selection.added, update)
    assert_holds(store, range(36 - 10, 36))


def test_repeated_evolve_writes_identical_bytes(tmp_path):
    parent = write(tmp_path / "parent", 0, 20, update=1)
    new = write(tmp_path / "new", 20, 9, update=2)
    for target in ("a", "b"):
        evolve(tmp_path / target, parent, np.arange(3, 20), new, np.arange(0, 9, 2), 2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_shard_names_do_not_clash_when_an_update_evolves_its_own_shards(tmp_path):
    parent = write(tmp_path / "parent", 0, 8, update=2)
    new = write(tmp_path / "new", 8, 4, update=2)
    store = evolve(tmp_path / "next", parent, np.arange(8), new, np.arange(4), 2)
    assert names(store) == ["00002-00", "00002-01", "00002-02"]
    assert_holds(store, range(12))


def test_evolve_without_kept_and_added_rows_writes_an_empty_store(tmp_path):
    parent = write(tmp_path / "parent", 0, 4, update=1)
    assert len(evolve(tmp_path / "a", parent, NONE, None, NONE, 2)) == 0
    empty = evolve(tmp_path / "b", None, NONE, None, NONE, 2)
    assert (len(empty), empty.spec) == (0, None)
    assert_holds(evolve(tmp_path / "c", empty, NONE, parent, np.array([2]), 2), [2])


def test_first_memory_is_written_without_a_parent(tmp_path):
    new = write(tmp_path / "new", 0, 9, update=1)
    store = evolve(tmp_path / "next", None, NONE, new, np.array([8, 1]), 1)
    assert_holds(store, [8, 1])


def test_shards_are_copied_where_hard_links_fail(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    parent = write(tmp_path / "parent", 0, 4, update=1)
    monkeypatch.setattr(os, "link", refuse)
    store = evolve(tmp_path / "next", parent, np.arange(4), None, NONE, 2)
    assert_holds(store, range(4))
    name = "00001-00.inputs.npy"
    assert not (tmp_path / "parent" / name).samefile(tmp_path / "next" / name)


def test_symbolic_link_to_a_cached_shard_is_followed(tmp_path):
    parent = write(tmp_path / "parent", 0, 4, update=1)
    cached = tmp_path / "cached"
    file = tmp_path / "parent" / "00001-00.inputs.npy"
    file.rename(cached)
    file.symlink_to(cached)
    evolve(tmp_path / "next", parent, np.arange(4), None, NONE, 2)
    linked = tmp_path / "next" / file.name
    assert not linked.is_symlink() and linked.samefile(cached)


def test_new_examples_of_another_shape_are_refused(tmp_path):
    parent = write(tmp_path / "parent", 0, 4, update=1)
    with StoreWriter(tmp_path / "new", 2) as writer:
        writer.append((np.zeros((2, 2, 5), np.uint8), np.zeros(2, np.int64)))
    new = ExampleStore.open(tmp_path / "new")
    with pytest.raises(ExampleMismatchError, match=r"update 2, inputs: found uint8 \(2, 5\)"):
        evolve(tmp_path / "next", parent, np.arange(4), new, np.arange(2), 2)


@pytest.mark.parametrize("kept", [[1, 0], [1, 1]])
def test_kept_rows_must_be_increasing(tmp_path, kept):
    parent = write(tmp_path / "parent", 0, 4, update=1)
    with pytest.raises(ValueError, match="increasing"):
        evolve(tmp_path / "next", parent, np.array(kept), None, NONE, 2)


def test_link_store_links_all_files(tmp_path):
    parent = write(tmp_path / "0", 0, 8, update=1)
    store = evolve(tmp_path / "1", parent, np.arange(1, 8), None, NONE, 2)
    linked = link_store(tmp_path / "1", tmp_path / "holdouts" / "1")
    assert_holds(linked, range(1, 8))
    assert contents(tmp_path / "1") == contents(tmp_path / "holdouts" / "1")
    for one, other in zip(store.files(), linked.files(), strict=True):
        assert one.samefile(other)


def test_live_rows_that_differ_from_the_index_are_reported_as_damage(tmp_path):
    parent = write(tmp_path / "parent", 0, 8, update=1)
    evolve(tmp_path / "next", parent, np.arange(1, 8), None, NONE, 2)
    live = np.load(tmp_path / "next" / "live.npy")
    np.save(tmp_path / "next" / "live.npy", live[::-1])
    with pytest.raises(DamagedStoreError, match="number of live rows differs"):
        ExampleStore.open(tmp_path / "next")
