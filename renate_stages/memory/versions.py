"""Make the next version of a memory, which shares unchanged shards with its parent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from renate_stages.memory.index import INDEX, Shard
from renate_stages.memory.spec import METADATA, ExampleSpec, Field
from renate_stages.memory.store import ExampleStore
from renate_stages.memory.writer import SHARD_BYTES, StoreWriter, create_folder, link_file

MAX_SMALL_SHARDS = 32
_BLOCK_BYTES = 8 * 2**20


class _Part(NamedTuple):
    """What stays of one shard of the parent; never nothing."""

    store: ExampleStore
    shard: Shard
    rows: np.ndarray  # row numbers in the parent, int64 (n,)
    live: np.ndarray  # which of the shard's rows these are, bool (shard.rows,)
    erases: bool  # whether the shard has rows of which no byte may stay


def evolve(
    target: Path,
    parent: ExampleStore | None,
    kept: np.ndarray,
    new: ExampleStore | None,
    added: np.ndarray,
    update: int,
    shard_bytes: int = SHARD_BYTES,
    *,
    erased: np.ndarray | None = None,
    metadata: Mapping[str, np.ndarray] | None = None,
    added_metadata: Mapping[str, np.ndarray] | None = None,
) -> ExampleStore:
    """Write the store of the parent's rows `kept` followed by the rows `added` of `new`.

    The order is exactly that, whatever happens to the shards: row `i` is `parent[kept[i]]`, and row
    `len(kept) + i` is `new[added[i]]`. So a store filled by this function is in order of arrival.

    A shard of the parent with at least half of its rows live keeps its name and bytes and is
    hard-linked (copied where that cannot be); one with fewer is rewritten in its place, without
    the dead rows; one with none is left out. When more than `MAX_SMALL_SHARDS` would be smaller
    than a quarter of `shard_bytes`, neighbours among these are rewritten as one. The bytes written
    depend on the arguments only.

    Args:
        target: Folder to write; must be absent or empty.
        parent: The memory before, or None for an empty one.
        kept: Its rows that stay, int64, strictly increasing.
        new: The store of new examples, or None where none are added.
        added: Its rows that enter, int64, in any order.
        update: Number of the update, the first part of new shards' names.
        shard_bytes: Size of a new shard.
        erased: Which of the parent's stored rows must leave no byte behind, bool
            `(parent.offsets[-1],)`, dead rows included: shards that hold one are rewritten.
        metadata: New values, by name, of all rows of the result in order, `(rows, ...)`; they
            replace what is there. Unchanged fields of the parent's shards are still linked.
        added_metadata: New values, by name, of the added rows alone, `(len(added), ...)`.

    Raises:
        ExampleMismatchError: The examples of `parent` and `new` differ in structure, dtype or shape.
        IndexError: A row is not in its store.
        ValueError: `kept` is not strictly increasing, holds erased rows, or new metadata has another
            number of rows.
    """
    kept, added = np.asarray(kept, dtype=np.int64), np.asarray(added, dtype=np.int64)
    metadata = {name: np.asarray(values) for name, values in (metadata or {}).items()}
    if np.any(np.diff(kept) <= 0):
        raise ValueError("kept rows are not strictly increasing")
    beside = {name: np.asarray(values) for name, values in (added_metadata or {}).items()}
    if any(len(values) != len(kept) + len(added) for values in metadata.values()) or any(
        len(values) != len(added) for values in beside.values()
    ):
        raise ValueError("new metadata does not have one value for each row")
    if parent and new and parent.spec and new.spec:
        parent.spec.require(new.spec, f"new examples of update {update}")

    parts = _parts(parent, kept, erased)
    rewritten = _rewritten(parts, shard_bytes)
    carried = [part.shard.name for part in parts if part.shard.name not in rewritten]
    done = 0
    with StoreWriter(target, update, shard_bytes, reserved=carried) as writer:
        for part in parts:
            own = {name: values[done : done + len(part.rows)] for name, values in metadata.items()}
            if part.shard.name in rewritten:
                _copy(part.store, part.rows, writer, own)
            else:
                replaced = {METADATA + name: _spread(own[name], part.live) for name in own}
                writer.carry(part.store, part.shard, part.live, replaced)
            done += len(part.rows)
        own = {name: values[done:] for name, values in metadata.items()}
        _copy(new, added, writer, {**own, **beside})
    return ExampleStore.open(target)


def link_store(source: Path, target: Path) -> ExampleStore:
    """Hard-link (or copy) the store in folder `source`, unchanged, to the new folder `target`.

    Raises:
        DamagedStoreError: The source is not a whole store.
        FileExistsError: The target exists and is not empty.
    """
    create_folder(Path(target))
    for file in sorted(ExampleStore.open(source).files(), key=lambda file: file.name == INDEX):
        link_file(file, Path(target) / file.name)
    return ExampleStore.open(target)


def _parts(parent: ExampleStore | None, kept: np.ndarray, erased: np.ndarray | None) -> list[_Part]:
    if parent is None:
        if kept.size:
            raise IndexError(f"{kept.size} rows are kept, but there is no parent")
        return []
    stored = parent.stored(kept)
    alive = np.zeros(parent.offsets[-1], dtype=bool)
    alive[stored] = True
    erased = np.zeros_like(alive) if erased is None else erased
    if np.any(erased & alive):
        raise ValueError("rows are kept that are to be erased")
    first = np.searchsorted(stored, parent.offsets)  # of each shard, in kept
    return [
        _Part(
            parent,
            shard,
            kept[first[number] : first[number + 1]],
            alive[parent.offsets[number] : parent.offsets[number + 1]],
            bool(erased[parent.offsets[number] : parent.offsets[number + 1]].any()),
        )
        for number, shard in enumerate(parent.shards)
        if first[number] < first[number + 1]
    ]


def _rewritten(parts: list[_Part], shard_bytes: int) -> set[str]:
    """Return the names of the shards to write anew.

    These are the sparse, those that hold erased rows, and small neighbours if there are many.
    """
    sparse = [part.erases or 2 * len(part.rows) < part.shard.rows for part in parts]
    small = [4 * part.store.shard_bytes(part.shard) < shard_bytes for part in parts]
    rewrite = list(sparse)
    if sum(small) > MAX_SMALL_SHARDS:  # one that stands alone would only become another small one
        loose = [one or other for one, other in zip(sparse, small, strict=True)]
        for number, (one, other) in enumerate(pairwise(parts)):
            if one.shard.lacks == other.shard.lacks:  # others do not become one shard
                rewrite[number] |= small[number] and loose[number + 1]
                rewrite[number + 1] |= small[number + 1] and loose[number]
    return {part.shard.name for part, again in zip(parts, rewrite, strict=True) if again}


def _copy(
    store: ExampleStore | None,
    rows: np.ndarray,
    writer: StoreWriter,
    metadata: Mapping[str, np.ndarray],
) -> None:
    """Append rows of a store, with new values in place of some of their metadata."""
    if store is None or store.spec is None:
        if rows.size:
            raise IndexError(f"{rows.size} rows are to be copied from an empty store")
        return
    spec = store.spec
    if metadata:
        beside = {
            METADATA + name: Field.of(name, each, "biufcS") for name, each in metadata.items()
        }
        spec = ExampleSpec(spec.structure, spec.fields, {**spec.metadata, **beside})
    step = max(1, _BLOCK_BYTES * max(1, len(store)) // max(1, store.nbytes))
    for start, stop, lacks in _alike(store, rows):
        # What is unknown stays so: written as a value, it would be data from then on.
        lacking = set(lacks) - {METADATA + name for name in metadata}
        fields = {path: each for path, each in spec.metadata.items() if path not in lacking}
        own = ExampleSpec(spec.structure, spec.fields, fields)
        for first in range(start, stop, step):
            block = slice(first, min(first + step, stop))
            new = {METADATA + name: values[block] for name, values in metadata.items()}
            columns = store.columns(rows[block], sorted(own.all_fields.keys() - new.keys()))
            writer.append_columns({**columns, **new}, own)


def _alike(store: ExampleStore, rows: np.ndarray) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield where runs of rows begin and end that lack the same metadata, and what they lack."""
    shards = np.searchsorted(store.offsets, store.stored(rows), side="right") - 1
    kinds = list({shard.lacks: None for shard in store.shards})
    of_shard = np.array([kinds.index(shard.lacks) for shard in store.shards], dtype=np.int64)
    found = of_shard[shards]
    cuts = [0, *(np.flatnonzero(np.diff(found)) + 1).tolist(), len(rows)]
    for start, stop in pairwise(cuts):
        if start < stop:
            yield start, stop, kinds[found[start]]


def _spread(values: np.ndarray, live: np.ndarray) -> np.ndarray:
    """Return values of the live rows at their places among all rows of a shard."""
    spread = np.zeros((len(live), *values.shape[1:]), values.dtype)
    spread[live] = values
    return spread
