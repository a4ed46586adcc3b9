"""`ExampleStore`: examples on disk as immutable shards of NumPy files and a small index.

    store/
      index.json                format version, spec of an example, shards in order
      live.npy                  bool, one entry a stored row, shard after shard; only if some are dead
      00007-03.inputs.npy       update that wrote the shard, running number, field
      00007-03.targets.npy
      00007-03.meta.id.npy      what is known of each example beside it
      00007-03.inputs.offsets.npy    int64; only of a ragged field, whose values follow each other

A store is written once, by `StoreWriter`, and then only read, by `ExampleStore`; a changed memory is
a new store that links the unchanged shards (`evolve`). Needs NumPy only.
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
from renate_stages.memory.windows import Windows


class ExampleStore:
    """Read-only view of a folder of examples; rows are numbered 0 … len − 1 over the live ones.

    Opening reads the index and the files' headers; arrays are memory-mapped when first used.

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
        self._windows: dict[str, Windows] = {}

    @classmethod
    def open(cls, path: Path) -> ExampleStore:
        """Open the store in folder `path` and check that its files are what the index says.

        Raises:
            DamagedStoreError: A file is missing, cut short, of another dtype or shape, or newer
                than this program.
        """
        return cls(Path(path), *read_index(Path(path)))

    def __len__(self) -> int:
        return sum(shard.live for shard in self.shards)

    def __reduce__(self) -> tuple[Any, ...]:  # a loader's worker maps the files itself
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
        """Return the bytes of a shard's example files, dead rows and headers included."""
        fields = self.spec.fields if self.spec else ()
        return sum((self.path / shard.file(path)).stat().st_size for path in fields)

    def files(self) -> list[Path]:
        """Return every file of the store, sorted by name."""
        names = [INDEX] if self._live_rows is None else [INDEX, LIVE]
        if self.spec:
            names += [name for shard in self.shards for name in shard.files(self.spec)]
        return [self.path / name for name in sorted(names)]

    def stored(self, rows: np.ndarray) -> np.ndarray:
        """Return where live rows lie among all stored rows, dead ones included.

        Args:
            rows: Live row numbers, int64 `(n,)`.

        Raises:
            IndexError: A row is outside 0 … len − 1.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} … {rows.max()} of a store of {len(self)} examples")
        return rows if self._live_rows is None else self._live_rows[rows]

    def stored_live(self) -> np.ndarray:
        """Return where all live rows lie among the stored ones, int64 `(len,)`."""
        return np.arange(len(self)) if self._live_rows is None else self._live_rows

    def gather(self, rows: np.ndarray) -> Tree:
        """Return copies of the examples in `rows`, in that order, as one batch.

        Args:
            rows: Live row numbers, int64 `(n,)`; repeats are allowed.

        Returns:
            `(inputs, targets)`, each an array `(n, ...)` or a dict or tuple of them.

        Raises:
            IndexError: A row is outside 0 … len − 1, or the store is empty.
        """
        if self.spec is None:
            raise IndexError("the store is empty")
        return self.spec.unflatten(self.columns(rows, self.spec.fields))

    def columns(self, rows: np.ndarray, paths: Iterable[str]) -> dict[str, Column]:
        """Return copies of some fields of the examples in `rows`, in that order, by path.

        Args:
            rows: Live row numbers, int64 `(n,)`; repeats are allowed.
            paths: Fields of examples or of metadata. Where metadata is unknown, its place is filled
                with `Field.missing`.

        Raises:
            IndexError: A row is outside 0 … len − 1.
            KeyError: There is no such field.
        """
        return self._read(self.stored(rows), paths)

    def stored_columns(self, stored: np.ndarray, paths: Iterable[str]) -> dict[str, Column]:
        """Return what `columns` does, of rows counted with the dead ones."""
        return self._read(np.asarray(stored, dtype=np.int64), paths)

    def _read(self, stored: np.ndarray, paths: Iterable[str]) -> dict[str, Column]:
        return {path: self._column(path, self._field(path), stored) for path in paths}

    def _column(self, path: str, each: Field, stored: np.ndarray) -> Column:
        """Return copies of some stored rows of one field."""
        if len(self.shards) == 1:
            return self._of_shard(0, path, stored)
        if not each.ragged and each.nbytes and not any(path in s.lacks for s in self.shards):
            return self._windows_of(path).take(stored)
        order = np.argsort(stored, kind="stable")  # by shard, and along the disk within one
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

    def _windows_of(self, path: str) -> Windows:
        if path not in self._windows:
            arrays = [self._map(shard.file(path)) for shard in self.shards]
            self._windows[path] = Windows(arrays, self.offsets)
        return self._windows[path]

    def metadata(self, name: str) -> np.ndarray | None:
        """Return one metadata field of all live rows in order, `(len, ...)`; None without it.

        Which of the values are known, `known` says.
        """
        if self.spec is None or METADATA + name not in self.spec.metadata:
            return None
        column = self.column(METADATA + name)
        return column if isinstance(column, np.ndarray) else None

    def known(self, name: str) -> np.ndarray:
        """Return of which live rows a metadata field is known, bool `(len,)`.

        It is unknown where the update that rows came with had no such metadata, and where it is
        NaN.
        """
        return self.stored_known(METADATA + name)[self.stored_live()]

    def stored_known(self, path: str) -> np.ndarray:
        """Return of which stored rows, dead ones included, a metadata field is known, bool."""
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
            KeyError: No example has this field, or the store is empty.
        """
        self._field(path)
        return self._read(self.stored_live(), [path])[path]

    def stored_column(self, path: str) -> Any:
        """Return one field of all stored rows, dead ones included, as `column` does."""
        self._field(path)
        return self._read(np.arange(self.offsets[-1]), [path])[path]

    def _field(self, path: str) -> Field:
        fields = self.spec.all_fields if self.spec else {}
        if path not in fields:
            raise KeyError(f"no field '{path}'; there are: {', '.join(fields) or 'none'}")
        return fields[path]

    def _lengths(self, path: str) -> np.ndarray:
        """Return the number of values of each live row of a ragged field."""
        found = [self._map_ragged(shard, path).lengths for shard in self.shards]
        lengths = np.concatenate(found)
        return lengths if self._live_rows is None else lengths[self._live_rows]

    def _of_shard(self, number: int, path: str, rows: np.ndarray) -> Any:
        """Return copies of some rows, counted within a shard, of one field."""
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
        """Return a shard's ragged field, its offsets checked: a wrong one would show other rows."""
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
