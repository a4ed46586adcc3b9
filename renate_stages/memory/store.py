"""`ExampleStore`: examples on disk as immutable shards of NumPy files and a small index.

    store/
      index.json                format version, spec of an example, shards in order
      live.npy                  bool, one value per stored row in order of shards; only if some are dead
      00007-03.inputs.npy       update that wrote the shard, running number, field
      00007-03.targets.npy
      00007-03.meta.id.npy      metadata of each example
      00007-03.inputs.offsets.npy    int64; only for a ragged field, whose values are concatenated

`StoreWriter` writes a store once, and `ExampleStore` reads it. A changed memory is a new store that
links the unchanged shards (`evolve`). Needs only NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.errors import DamagedStoreError
from renate_stages.memory.index import INDEX, LIVE, Shard, read_index
from renate_stages.memory.maps import map_array
from renate_stages.memory.ragged import Column, Ragged
from renate_stages.memory.spec import METADATA, ExampleSpec, Field, Tree, known_values


class ExampleStore:
    """Read-only view of a folder of examples, whose live rows are numbered 0 … len − 1.

    Opening reads the index and the files' headers; arrays are memory-mapped on first use.

        store = ExampleStore.open(Path("state/memory"))
        inputs, targets = store.gather(np.array([3, 1, 4]))
    """

    def __init__(
        self, path: Path, spec: ExampleSpec | None, shards: list[Shard], live: np.ndarray | None
    ) -> None:
        self.path = path
        self.spec = spec
        self.shards = tuple(shards)
        self.offsets = np.cumsum([0] + [shard.rows for shard in shards], dtype=np.int64)
        self._live_rows = None if live is None else np.flatnonzero(live)
        self._maps: dict[str, np.ndarray] = {}
        self._ragged: dict[str, Ragged] = {}

    @classmethod
    def open(cls, path: Path) -> ExampleStore:
        """Open the store in folder `path` and check its files against the index.

        Raises:
            DamagedStoreError: If a file is missing or truncated, has another dtype or shape, or was
                written by a newer release.
        """
        return cls(Path(path), *read_index(Path(path)))

    def __len__(self) -> int:
        return sum(shard.live for shard in self.shards)

    def __reduce__(self) -> tuple[Any, ...]:  # loader workers map the files themselves
        return ExampleStore.open, (self.path,)

    @property
    def nbytes(self) -> int:
        """Bytes of the live examples' arrays, without metadata and offsets."""
        if self.spec is None:
            return 0
        ragged = 0
        for path, each in self.spec.fields.items():
            if each.ragged:
                ragged += int(self._lengths(path).sum()) * each.nbytes
        return len(self) * self.spec.row_bytes + ragged

    def shard_bytes(self, shard: Shard) -> int:
        """Return the size of a shard's example files in bytes, with dead rows and headers."""
        fields = self.spec.fields if self.spec else ()
        return sum((self.path / shard.file(path)).stat().st_size for path in fields)

    def files(self) -> list[Path]:
        """Return every file of the store, sorted by name."""
        names = [INDEX] if self._live_rows is None else [INDEX, LIVE]
        if self.spec:
            names += [name for shard in self.shards for name in shard.files(self.spec)]
        return [self.path / name for name in sorted(names)]

    def stored(self, rows: np.ndarray) -> np.ndarray:
        """Convert numbers of live rows to numbers of stored rows, which include dead rows.

        Args:
            rows: Live row numbers, int64 `(n,)`.

        Raises:
            IndexError: If a row is outside 0 … len − 1.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} … {rows.max()} of a store of {len(self)} examples")
        return rows if self._live_rows is None else self._live_rows[rows]

    def stored_live(self) -> np.ndarray:
        """Return the stored row numbers of all live rows, int64 `(len,)`."""
        return np.arange(len(self)) if self._live_rows is None else self._live_rows

    def gather(self, rows: np.ndarray) -> Tree:
        """Return copies of the examples in `rows`, in that order, as one batch.

        Args:
            rows: Live row numbers, int64 `(n,)`; repeats are allowed.

        Returns:
            `(inputs, targets)`, each an array `(n, ...)` or a dict or tuple of them.

        Raises:
            IndexError: If a row is outside 0 … len − 1, or the store is empty.
        """
        if self.spec is None:
            raise IndexError("the store is empty")
        return self.spec.unflatten(self.columns(rows, self.spec.fields))

    def gather_targets(self, rows: np.ndarray) -> Tree:
        """Return what `gather` returns as targets, without reading the inputs.

        Args:
            rows: Live row numbers, int64 `(n,)`; repeats are allowed.

        Raises:
            IndexError: If a row is outside 0 … len − 1, or the store is empty.
        """
        if self.spec is None:
            raise IndexError("the store is empty")
        return self.spec.unflatten_part("targets", self.columns(rows, self.spec.paths("targets")))

    def columns(self, rows: np.ndarray, paths: Iterable[str]) -> dict[str, Column]:
        """Return copies of fields of the examples in `rows`, in that order, by path.

        Args:
            rows: Live row numbers, int64 `(n,)`; repeats are allowed.
            paths: Paths of example fields or metadata. Unknown metadata is filled with
                `Field.missing`.

        Raises:
            IndexError: If a row is outside 0 … len − 1.
            KeyError: If there is no such field.
        """
        return self._read(self.stored(rows), paths)

    def stored_columns(self, stored: np.ndarray, paths: Iterable[str]) -> dict[str, Column]:
        """Return what `columns` does, for stored row numbers, which include dead rows."""
        return self._read(np.asarray(stored, dtype=np.int64), paths)

    def _read(self, stored: np.ndarray, paths: Iterable[str]) -> dict[str, Column]:
        return {path: self._column(path, self._field(path), stored) for path in paths}

    def _column(self, path: str, each: Field, stored: np.ndarray) -> Column:
        """Return copies of stored rows of one field."""
        if len(self.shards) == 1:
            return self._of_shard(0, path, stored)
        order = np.argsort(stored, kind="stable")  # by shard, and in disk order within a shard
        cuts = np.searchsorted(stored[order], self.offsets)
        parts = [
            self._of_shard(number, path, stored[order[start:stop]] - self.offsets[number])
            for number, (start, stop) in enumerate(pairwise(cuts.tolist()))
            if start < stop
        ]
        if not parts:
            return self._no_rows(each)
        back = np.argsort(order)
        if each.ragged:
            return Ragged.concatenate(parts).take(back)
        return np.concatenate(parts)[back]

    def metadata(self, name: str) -> np.ndarray | None:
        """Return one metadata field of all live rows in order, `(len, ...)`; None if it is missing.

        `known` returns which of the values are known.
        """
        if self.spec is None or METADATA + name not in self.spec.metadata:
            return None
        column = self.column(METADATA + name)
        return column if isinstance(column, np.ndarray) else None

    def known(self, name: str) -> np.ndarray:
        """Return for which live rows a metadata field is known, bool `(len,)`.

        It is unknown if the rows' update did not provide it, or if it is NaN.
        """
        return self.stored_known(METADATA + name)[self.stored_live()]

    def stored_known(self, path: str) -> np.ndarray:
        """Return for which stored rows a metadata field is known, dead rows included, bool."""
        known = np.zeros(self.offsets[-1], dtype=bool)
        if self.spec is None or path not in self.spec.metadata:
            return known
        for number, shard in enumerate(self.shards):
            if path not in shard.lacks:
                rows = slice(self.offsets[number], self.offsets[number + 1])
                known[rows] = known_values(self._map(shard.file(path)))
        return known

    def column(self, path: str) -> Any:
        """Return one field of all live rows in order, an array `(len, ...)` or a `Ragged`.

        Raises:
            KeyError: If there is no such field, or the store is empty.
        """
        self._field(path)
        return self._read(self.stored_live(), [path])[path]

    def stored_column(self, path: str) -> Any:
        """Return what `column` does, for all stored rows, dead rows included."""
        self._field(path)
        return self._read(np.arange(self.offsets[-1]), [path])[path]

    def _field(self, path: str) -> Field:
        fields = self.spec.all_fields if self.spec else {}
        if path not in fields:
            raise KeyError(f"unknown field '{path}' (known: {', '.join(fields) or 'none'})")
        return fields[path]

    def _lengths(self, path: str) -> np.ndarray:
        """Return the number of values of each live row of a ragged field."""
        parts = [self._map_ragged(shard, path).lengths for shard in self.shards]
        lengths = np.concatenate(parts)
        return lengths if self._live_rows is None else lengths[self._live_rows]

    def _of_shard(self, number: int, path: str, rows: np.ndarray) -> Any:
        """Return copies of rows of one field, numbered within a shard."""
        shard, each = self.shards[number], self._field(path)
        if path in shard.lacks:
            return each.missing(len(rows))
        if each.ragged:
            return self._map_ragged(shard, path).take(rows)
        return self._map(shard.file(path))[rows]

    def _no_rows(self, each: Field) -> Column:
        nothing = np.empty((0, *each.shape), each.dtype)
        return Ragged(nothing, np.zeros(1, np.int64), each.decoder) if each.ragged else nothing

    def _map_ragged(self, shard: Shard, path: str) -> Ragged:
        """Return a shard's ragged field after checking its offsets, which could mix up rows."""
        name = shard.file(path)
        if name not in self._ragged:
            values = self._map(name)
            offsets = np.array(self._map(shard.offsets_file(path)))
            if offsets[0] != 0 or offsets[-1] != len(values) or np.any(np.diff(offsets) < 0):
                file = self.path / shard.offsets_file(path)
                raise DamagedStoreError(
                    file, f"its offsets do not fit the {len(values)} values of {name}"
                )
            self._ragged[name] = Ragged(values, offsets, self._field(path).decoder)
        return self._ragged[name]

    def _map(self, name: str) -> np.ndarray:
        if name not in self._maps:
            self._maps[name] = map_array(self.path / name)
        return self._maps[name]
