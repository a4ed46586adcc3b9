"""Writing a store of examples: once, shard by shard, the index last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from renate_stages.memory.spec import ExampleSpec, Tree
from renate_stages.memory.store import FORMAT, INDEX, LIVE, ExampleStore, Shard

SHARD_BYTES = 64 * 2**20


class StoreWriter:
    """Writes a store, block after block, holding at most one shard in memory.

        with StoreWriter(Path("work/prepared/train"), update=7) as writer:
            writer.append((images, labels))  # (rows, 28, 28) uint8, (rows,) int64

    The index is written last, when the block ends without an error: a folder without one is no
    store. With nothing appended, the store is empty: an index and no shards.

    Args:
        path: Folder to write; must be absent or empty.
        update: Number of the update, the first part of the shards' names.
        shard_bytes: Size of a shard, at least one row.
        reserved: Shard names not to give, because `carry` will bring them.
    """

    def __init__(
        self,
        path: Path,
        update: int,
        shard_bytes: int = SHARD_BYTES,
        reserved: Collection[str] = (),
    ) -> None:
        self._path = Path(path)
        self._update = update
        self._shard_bytes = shard_bytes
        self._reserved = frozenset(reserved)
        self._number = 0
        self._spec: ExampleSpec | None = None
        self._buffer: dict[str, np.ndarray] = {}  # one shard, filled up to _filled
        self._filled = 0
        self._shards: list[Shard] = []
        self._live: list[np.ndarray] = []

    def __enter__(self) -> Self:
        create_folder(self._path)
        return self

    def append(self, block: Tree) -> None:
        """Append a batch of examples.

        Args:
            block: `(inputs, targets)`, each an array `(rows, ...)` or a dict or tuple of them.

        Raises:
            ExampleMismatchError: It differs from the first block in structure, dtype or shape.
            ExampleStructureError: A part is empty, not numeric, or has an unusable key.
        """
        spec = self._spec or ExampleSpec.of(block)
        columns = spec.flatten(block)
        rows = len(next(iter(columns.values())))
        if not rows:
            return
        self._spec = spec
        capacity = max(1, self._shard_bytes // max(1, spec.row_bytes))
        if not self._buffer:
            self._buffer = {
                name: np.empty((capacity, *field.shape), field.dtype)
                for name, field in spec.fields.items()
            }
        done = 0
        while done < rows:
            count = min(rows - done, capacity - self._filled)
            for name, column in columns.items():
                self._buffer[name][self._filled : self._filled + count] = column[
                    done : done + count
                ]
            done += count
            self._filled += count
            if self._filled == capacity:
                self._flush()

    def carry(self, store: ExampleStore, shard: Shard, live: np.ndarray) -> None:
        """Take over a shard of another store as it is: its files are linked, not read.

        Args:
            store: The store that has the shard, with the same spec.
            shard: The shard, of a name given in `reserved`.
            live: Which of its rows count from now on, bool `(shard.rows,)`.
        """
        assert store.spec is not None and shard.name in self._reserved
        self._flush()
        self._spec = self._spec or store.spec
        for name in store.spec.fields:
            link_file(store.path / shard.file(name), self._path / shard.file(name))
        self._shards.append(Shard(shard.name, shard.rows, int(live.sum())))
        self._live.append(live)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        self._flush()
        if not all(live.all() for live in self._live):
            _write_array(self._path / LIVE, np.concatenate(self._live))
        spec = self._spec.to_json() if self._spec else {"fields": {}, "structure": None}
        index = {"format": FORMAT, "shards": [asdict(shard) for shard in self._shards], **spec}
        part = self._path / f"{INDEX}.part"
        part.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
        part.replace(self._path / INDEX)

    def _flush(self) -> None:
        if not self._filled:
            return
        while (name := f"{self._update:05d}-{self._number:02d}") in self._reserved:
            self._number += 1
        self._number += 1
        shard = Shard(name, self._filled, self._filled)
        for path, column in self._buffer.items():
            _write_array(self._path / shard.file(path), column[: self._filled])
        self._shards.append(shard)
        self._live.append(np.ones(self._filled, dtype=bool))
        self._filled = 0


def create_folder(path: Path) -> None:
    """Create a folder that must be absent or empty, else raise `FileExistsError`."""
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f"{path} is not empty: a store is written once")


def link_file(source: Path, target: Path) -> None:
    """Hard-link `target`, which must not exist, to `source`; copy where links cannot be made."""
    if target.exists():
        raise FileExistsError(f"{target} exists: a store is written once")
    try:
        target.hardlink_to(source.resolve())  # a symbolic link into DVC's cache is followed
    except OSError:
        shutil.copyfile(source, target)


def _write_array(file: Path, array: np.ndarray) -> None:
    with file.open("xb") as stream:
        np.save(stream, array, allow_pickle=False)
