"""Write the next version of a memory, which shares unchanged shards with its parent."""

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
    """The rows that stay of one shard of the parent; at least one."""

    store: ExampleStore
    shard: Shard
    rows: np.ndarray  # row numbers in the parent, int64 (n,)
    live: np.ndarray  # the same rows within the shard, bool (shard.rows,)
    erases: bool  # whether the shard has rows that must be erased


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

    The order does not depend on the shards: row `i` is `parent[kept[i]]`, and row `len(kept) + i` is
    `new[added[i]]`. So the rows of a store made by this function are in order of arrival.

    A shard of the parent with at least half of its rows live keeps its name and bytes and is
    hard-linked, or copied if links are not possible. A shard with fewer live rows is rewritten
    without its dead rows, and a shard without live rows is dropped. If more than `MAX_SMALL_SHARDS`
    shards would be smaller than a quarter of `shard_bytes`, neighbouring small shards are merged.
    The bytes written depend only on the arguments.

    Args:
        target: Folder to write; must not exist or be empty.
        parent: The previous memory, or None if it was empty.
        kept: The parent's rows that stay, int64, strictly increasing.
        new: The store of new examples, or None if none are added.
        added: Rows of `new` that enter, int64, in any order.
        update: Number of the update, the first part of new shards' names.
        shard_bytes: Size of a new shard in bytes.
        erased: The parent's stored rows of which no byte may remain, bool
            `(parent.offsets[-1],)`, dead rows included; shards with such rows are rewritten.
        metadata: New metadata of all rows of the result in order, by name, `(rows, ...)`; replaces
            existing values. Unchanged fields of the parent's shards are still linked.
        added_metadata: New metadata of the added rows alone, by name, `(len(added), ...)`.

    Raises:
        ExampleMismatchError: If the examples of `parent` and `new` differ in structure, dtype or
            shape.
        IndexError: If a row is not in its store.
        ValueError: If `kept` is not strictly increasing or includes erased rows, or new metadata has
            another number of rows.
    """
    kept, added = np.asarray(kept, dtype=np.int64), np.asarray(added, dtype=np.int64)
    metadata = {name: np.asarray(values) for name, values in (metadata or {}).items()}
    if np.any(np.diff(kept) <= 0):
        raise ValueError("kept rows are not strictly increasing")
    added_values = {name: np.asarray(values) for name, values in (added_metadata or {}).items()}
    if any(len(values) != len(kept) + len(added) for values in metadata.values()) or any(
        len(values) != len(added) for values in added_values.values()
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
        _copy(new, added, writer, {**own, **added_values})
    return ExampleStore.open(target)


def link_store(source: Path, target: Path) -> ExampleStore:
    """Hard-link (or copy) the unchanged store in folder `source` to the new folder `target`.

    Raises:
        DamagedStoreError: If the source is not a complete store.
        FileExistsError: If the target exists and is not empty.
    """
    create_folder(Path(target))
    for file in sorted(ExampleStore.open(source).files(), key=lambda file: file.name == INDEX):
        link_file(file, Path(target) / file.name)
    return ExampleStore.open(target)


def _parts(parent: ExampleStore | None, kept: np.ndarray, erased: np.ndarray | None) -> list[_Part]:
    if parent is None:
        if kept.size:
            raise IndexError(f"cannot keep {kept.size} rows without a parent")
        return []
    stored = parent.stored(kept)
    alive = np.zeros(parent.offsets[-1], dtype=bool)
    alive[stored] = True
    erased = np.zeros_like(alive) if erased is None else erased
    if np.any(erased & alive):
        raise ValueError("kept rows include rows to erase")
    first = np.searchsorted(stored, parent.offsets)  # index in kept of each shard's first row
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
    """Return the names of the shards to rewrite.

    These are sparse shards, shards with erased rows, and small neighbours if there are many.
    """
    sparse = [part.erases or 2 * len(part.rows) < part.shard.rows for part in parts]
    small = [4 * part.store.shard_bytes(part.shard) < shard_bytes for part in parts]
    rewrite = list(sparse)
    if sum(small) > MAX_SMALL_SHARDS:  # a single small shard would stay small
        loose = [one or other for one, other in zip(sparse, small, strict=True)]
        for number, (one, other) in enumerate(pairwise(parts)):
            if one.shard.lacks == other.shard.lacks:  # otherwise they cannot be one shard
                rewrite[number] |= small[number] and loose[number + 1]
                rewrite[number + 1] |= small[number + 1] and loose[number]
    return {part.shard.name for part, again in zip(parts, rewrite, strict=True) if again}


def _copy(
    store: ExampleStore | None,
    rows: np.ndarray,
    writer: StoreWriter,
    metadata: Mapping[str, np.ndarray],
) -> None:
    """Append rows of a store, with some of their metadata replaced."""
    if store is None or store.spec is None:
        if rows.size:
            raise IndexError(f"cannot copy {rows.size} rows from an empty store")
        return
    spec = store.spec
    if metadata:
        metadata_fields = {
            METADATA + name: Field.of(name, each, "biufcS") for name, each in metadata.items()
        }
        spec = ExampleSpec(spec.structure, spec.fields, {**spec.metadata, **metadata_fields})
    step = max(1, _BLOCK_BYTES * max(1, len(store)) // max(1, store.nbytes))
    for start, stop, lacks in _alike(store, rows):
        # Unknown metadata is left out, because its fill value would be read as data later.
        lacking = set(lacks) - {METADATA + name for name in metadata}
        fields = {path: each for path, each in spec.metadata.items() if path not in lacking}
        own = ExampleSpec(spec.structure, spec.fields, fields)
        for first in range(start, stop, step):
            block = slice(first, min(first + step, stop))
            new = {METADATA + name: values[block] for name, values in metadata.items()}
            columns = store.columns(rows[block], sorted(own.all_fields.keys() - new.keys()))
            writer.append_columns({**columns, **new}, own)


def _alike(store: ExampleStore, rows: np.ndarray) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield start, stop and missing metadata of each run of rows that lack the same metadata."""
    shards = np.searchsorted(store.offsets, store.stored(rows), side="right") - 1
    kinds = list({shard.lacks: None for shard in store.shards})
    of_shard = np.array([kinds.index(shard.lacks) for shard in store.shards], dtype=np.int64)
    row_kinds = of_shard[shards]
    cuts = [0, *(np.flatnonzero(np.diff(row_kinds)) + 1).tolist(), len(rows)]
    for start, stop in pairwise(cuts):
        if start < stop:
            yield start, stop, kinds[row_kinds[start]]


def _spread(values: np.ndarray, live: np.ndarray) -> np.ndarray:
    """Return an array for all rows of a shard with the live rows' values at their positions."""
    spread = np.zeros((len(live), *values.shape[1:]), values.dtype)
    spread[live] = values
    return spread
