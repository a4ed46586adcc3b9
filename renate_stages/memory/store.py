"""How examples lie on disk: immutable shards of plain NumPy files, and one small index.

    store/
      index.json                format version, spec of an example, shards in order
      live.npy                  bool, one entry a stored row, shard after shard; only if some are dead
      00007-03.inputs.npy       update that wrote the shard, running number, field
      00007-03.targets.npy

A store is written once, by `StoreWriter`, and then only read, by `ExampleStore`; a changed memory is
a new store that links the unchanged shards (`evolve`). Needs NumPy only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.errors import DamagedStoreError
from renate_stages.memory.spec import ExampleSpec, Field, Tree

FORMAT = 1
INDEX = "index.json"
LIVE = "live.npy"

_SHARD_NAME = re.compile(r"\d{5,}-\d{2,}")


@dataclass(frozen=True)
class Shard:
    """Rows written together: the name their files begin with, how many, and how many still count."""

    name: str
    rows: int
    live: int

    def file(self, path: str) -> str:
        """Return the file name of one field."""
        return f"{self.name}.{path}.npy"


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

    @classmethod
    def open(cls, path: Path) -> ExampleStore:
        """Open the store in folder `path` and check that its files are what the index says.

        Raises:
            DamagedStoreError: A file is missing, cut short, of another dtype or shape, or newer
                than this program.
        """
        path = Path(path)
        spec, shards = _read_index(path / INDEX)
        for shard in shards:
            for name, field in spec.fields.items() if spec else ():
                _check_array(path / shard.file(name), field, shard.rows)
        return cls(path, spec, shards, _read_live(path / LIVE, shards))

    def __len__(self) -> int:
        return sum(shard.live for shard in self.shards)

    def __reduce__(self) -> tuple[Any, ...]:  # a loader's worker maps the files itself
        return ExampleStore.open, (self.path,)

    @property
    def row_bytes(self) -> int:
        """Bytes of one example's arrays; 0 if the store is empty."""
        return self.spec.row_bytes if self.spec else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the live examples' arrays."""
        return len(self) * self.row_bytes

    def files(self) -> list[Path]:
        """Return every file of the store, sorted by name."""
        names = [INDEX] if self._live_rows is None else [INDEX, LIVE]
        names += [shard.file(name) for shard in self.shards for name in self._fields]
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
        stored = self.stored(rows)
        if len(self.shards) == 1:
            first = self.shards[0]
            return self.spec.unflatten(
                {name: self._map(first, name)[stored] for name in self._fields}
            )
        order = np.argsort(stored, kind="stable")  # by shard, and along the disk within one
        cuts = np.searchsorted(stored[order], self.offsets)
        columns = {
            name: np.empty((len(stored), *field.shape), field.dtype)
            for name, field in self.spec.fields.items()
        }
        for number in np.flatnonzero(np.diff(cuts)):
            mine = order[cuts[number] : cuts[number + 1]]
            local = stored[mine] - self.offsets[number]
            for name, column in columns.items():
                column[mine] = self._map(self.shards[number], name)[local]
        return self.spec.unflatten(columns)

    def column(self, path: str) -> np.ndarray:
        """Return one field of all live rows in order, `(len, ...)`.

        Raises:
            KeyError: No example has this field, or the store is empty.
        """
        if path not in self._fields:
            raise KeyError(f"no field '{path}'; there are: {', '.join(self._fields) or 'none'}")
        stored = np.concatenate([self._map(shard, path) for shard in self.shards])
        return stored if self._live_rows is None else stored[self._live_rows]

    @property
    def _fields(self) -> dict[str, Field]:
        return self.spec.fields if self.spec else {}

    def _map(self, shard: Shard, path: str) -> np.ndarray:
        name = shard.file(path)
        if name not in self._maps:
            mapped = np.load(self.path / name, mmap_mode="r", allow_pickle=False)
            self._maps[name] = np.asarray(mapped)  # np.memmap's own indexing is slower
        return self._maps[name]


def _read_index(file: Path) -> tuple[ExampleSpec | None, list[Shard]]:
    try:
        index = json.loads(file.read_text())
        version = index["format"]
        if version > FORMAT:
            raise DamagedStoreError(
                file,
                f"found format {version}, expected at most {FORMAT}: a newer release wrote it",
                "`pip install --upgrade renate-stages`",
            )
        shards = [Shard(**record) for record in index["shards"]]
        for shard in shards:
            if not _SHARD_NAME.fullmatch(shard.name):
                raise ValueError(f"shard {shard.name!r} is not a plain file name")
            if not 0 < shard.live <= shard.rows:
                raise ValueError(f"shard {shard.name} has {shard.live} of {shard.rows} rows live")
        if len({shard.name for shard in shards}) < len(shards):
            raise ValueError("a shard is named twice")
        return (ExampleSpec.from_json(index) if shards else None), shards
    except OSError as error:
        raise DamagedStoreError(file, f"cannot be read ({error.strerror})") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedStoreError(file, f"is not an index of examples ({error})") from error


def _read_live(file: Path, shards: list[Shard]) -> np.ndarray | None:
    rows = sum(shard.rows for shard in shards)
    if rows == sum(shard.live for shard in shards):
        return None
    _check_array(file, Field(np.dtype(bool), ()), rows)
    live = np.load(file, allow_pickle=False)
    starts = np.cumsum([0] + [shard.rows for shard in shards[:-1]])
    counts = np.add.reduceat(live, starts, dtype=np.int64).tolist()
    if counts != [shard.live for shard in shards]:
        raise DamagedStoreError(file, "counts other live rows than the index")
    return live


def _check_array(file: Path, field: Field, rows: int) -> None:
    """Check an .npy file's header and length without reading or mapping its values."""
    expected = f"{field.dtype.name} {(rows, *field.shape)}"
    try:
        with file.open("rb") as stream:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("of another NumPy format version")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            size = stream.tell() + rows * field.nbytes
        found = file.stat().st_size
    except OSError as error:
        raise DamagedStoreError(file, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DamagedStoreError(file, f"is not a plain NumPy array ({error})") from error
    if (shape, dtype, fortran) != ((rows, *field.shape), field.dtype, False):
        raise DamagedStoreError(file, f"found {dtype} {shape}, expected {expected}")
    if found != size:
        raise DamagedStoreError(file, f"found {found} bytes, expected {size} for {expected}")
