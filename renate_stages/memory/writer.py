"""Write a store of examples shard by shard, and its index last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from renate_stages.memory.index import INDEX, LIVE, Shard, format_of
from renate_stages.memory.ragged import Column, Ragged, offsets_of
from renate_stages.memory.spec import METADATA, ExampleSpec, Field, Tree
from renate_stages.memory.store import ExampleStore

SHARD_BYTES = 64 * 2**20


class StoreWriter:
    """Writes a store block by block, directly to its files, without keeping rows in memory.

        with StoreWriter(Path("work/prepared/train"), update=7) as writer:
            writer.append((images, labels))  # (rows, 28, 28) uint8, (rows,) int64

    The index is written when the `with` block ends without an error; a folder without an index is
    not a store. If nothing was appended, the store is empty: an index without shards.

    Args:
        path: Folder to write; must not exist or be empty.
        update: Number of the update, the first part of the shards' names.
        shard_bytes: Size of a shard in bytes, without metadata; a shard has at least one row.
        reserved: Shard names not to use, because `carry` will add shards with these names.
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
        self._spec: ExampleSpec | None = None  # the spec of all rows so far
        self._open: _OpenShard | None = None
        self._shards: list[tuple[Shard, frozenset[str]]] = []  # with their metadata paths
        self._live: list[np.ndarray] = []

    def __enter__(self) -> Self:
        create_folder(self._path)
        return self

    def append(self, block: Tree, metadata: Mapping[str, np.ndarray] | None = None) -> None:
        """Append a batch of examples.

        Args:
            block: `(inputs, targets)`, each an array `(rows, ...)`, a `Ragged`, or a dict or tuple
                of them.
            metadata: Metadata of each example by name: numbers `(rows, ...)` or bytes `(rows,)` of
                up to `TEXT_BYTES`. Blocks may have different metadata.

        Raises:
            ExampleMismatchError: If it differs from the first block in structure, dtype or shape.
            ExampleStructureError: If a part is empty or not numeric, or has an invalid key.
        """
        spec = ExampleSpec.of(block, metadata)
        metadata_columns = {
            METADATA + name: np.asarray(value) for name, value in (metadata or {}).items()
        }
        self.append_columns({**spec.flatten(block), **metadata_columns}, spec)

    def append_columns(self, columns: Mapping[str, Column], spec: ExampleSpec) -> None:
        """Append a batch of examples as columns by path, metadata included.

        Args:
            columns: A column for each of the spec's fields, all of equal length.
            spec: The columns' spec.

        Raises:
            ExampleMismatchError: If it differs from the first block in structure, dtype or shape.
        """
        if self._spec is not None:
            self._spec.require(spec, "block of examples")
        rows = len(next(iter(columns.values())))
        if not rows:
            return
        self._spec = self._spec.joined(spec) if self._spec else spec
        if self._open is not None and self._open.spec.metadata.keys() != spec.metadata.keys():
            self._flush()
        sizes = _row_sizes(columns, spec)
        start = 0
        while start < rows:
            if self._open is None:
                self._open = _OpenShard(self._path, self._next_name(), spec)
            count = _fitting(sizes, start, rows, self._shard_bytes - self._open.nbytes)
            if not count and self._open.rows:
                self._flush()
                continue
            stop = start + max(1, count)
            part = {path: _part(column, start, stop) for path, column in columns.items()}
            self._open.append(part, stop - start, _total(sizes, start, stop))
            start = stop

    def carry(
        self,
        store: ExampleStore,
        shard: Shard,
        live: np.ndarray,
        replaced: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Add an unchanged shard of another store by linking its files.

        Args:
            store: The store of the shard, with a compatible spec.
            shard: The shard; its name must be in `reserved`.
            live: The rows that are live from now on, bool `(shard.rows,)`.
            replaced: New metadata of all rows of the shard, by path, `(shard.rows, ...)`.
        """
        assert store.spec is not None and shard.name in self._reserved
        self._flush()
        replaced = replaced or {}
        had = shard.fields(store.spec)
        metadata = {path: had[path] for path in store.spec.metadata if path in had}
        for path, column in replaced.items():
            metadata[path] = Field.of(path, column, "biufcS")
        spec = ExampleSpec(store.spec.structure, store.spec.fields, metadata)
        self._spec = self._spec.joined(spec) if self._spec else spec
        kept = [name for name in shard.files(store.spec) if name not in map(shard.file, replaced)]
        for name in kept:
            link_file(store.path / name, self._path / name)
        for path, column in replaced.items():
            _write_array(self._path / shard.file(path), column)
        self._shards.append((Shard(shard.name, shard.rows, int(live.sum())), frozenset(metadata)))
        self._live.append(live)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            if self._open is not None:
                self._open.abandon()
            return
        self._flush()
        if not all(live.all() for live in self._live):
            _write_array(self._path / LIVE, np.concatenate(self._live))
        spec = self._spec.to_json() if self._spec else {"fields": {}, "structure": None}
        records = [self._record(shard, has) for shard, has in self._shards]
        index = {"format": format_of(self._spec), "shards": records, **spec}
        part = self._path / f"{INDEX}.part"
        part.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
        part.replace(self._path / INDEX)

    def _record(self, shard: Shard, has: frozenset[str]) -> dict[str, Any]:
        record: dict[str, Any] = {"live": shard.live, "name": shard.name, "rows": shard.rows}
        lacks = sorted((self._spec.metadata.keys() if self._spec else set()) - has)
        return {**record, "lacks": lacks} if lacks else record

    def _next_name(self) -> str:
        while (name := f"{self._update:05d}-{self._number:02d}") in self._reserved:
            self._number += 1
        self._number += 1
        return name

    def _flush(self) -> None:
        """Finish the open shard, if any."""
        if self._open is None:
            return
        rows = self._open.close()
        shard = Shard(self._open.name, rows, rows)
        self._shards.append((shard, frozenset(self._open.spec.metadata)))
        self._live.append(np.ones(rows, dtype=bool))
        self._open = None


class _OpenShard:
    """The files of a shard to which rows are added; `close` rewrites their headers."""

    def __init__(self, folder: Path, name: str, spec: ExampleSpec) -> None:
        self.name = name
        self.spec = spec
        self.rows = 0
        self.nbytes = 0  # bytes of examples, without metadata
        self._folder = folder
        self._files = {path: self._create(path, each) for path, each in spec.all_fields.items()}
        self._values = dict.fromkeys(self._files, 0)
        self._lengths: dict[str, list[np.ndarray]] = {
            path: [] for path, each in spec.fields.items() if each.ragged
        }

    def append(self, columns: Mapping[str, Column], rows: int, nbytes: int) -> None:
        for path, column in columns.items():
            if isinstance(column, Ragged):
                self._lengths[path].append(column.lengths)
                column = column.values
            dtype = self.spec.all_fields[path].dtype
            values = np.ascontiguousarray(column, dtype).reshape(-1).view(np.uint8)
            self._files[path].write(values.data)  # unlike this, tofile hides the cause of a failure
            self._values[path] += len(column)
        self.rows += rows
        self.nbytes += nbytes

    def close(self) -> int:
        """Write the headers and return the number of rows."""
        fields = self.spec.all_fields
        for path, stream in self._files.items():
            stream.seek(0)
            _write_header(stream, fields[path], self._values[path])
            stream.close()
        for path, lengths in self._lengths.items():
            offsets = offsets_of(np.concatenate(lengths))
            _write_array(self._folder / Shard(self.name, 0, 0).offsets_file(path), offsets)
        return self.rows

    def abandon(self) -> None:
        """Close the unfinished files, which are not a store without an index."""
        for stream in self._files.values():
            with suppress(OSError):  # closing fails too if the disk is full
                stream.close()

    def _create(self, path: str, field: Field) -> BinaryIO:
        file = self._folder / Shard(self.name, 0, 0).file(path)
        stream = file.open("xb")
        _write_header(stream, field, 0)
        return stream


def _write_header(stream: BinaryIO, field: Field, rows: int) -> None:
    """Write an .npy header; NumPy reserves enough space in it for any number of rows."""
    description = np.lib.format.dtype_to_descr(field.dtype)
    shape = (rows, *field.shape)
    header = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def _row_sizes(columns: Mapping[str, Column], spec: ExampleSpec) -> np.ndarray | int:
    """Return the bytes of each row, or one number if no field is ragged."""
    sizes: np.ndarray | int = spec.row_bytes
    for path, each in spec.fields.items():
        column = columns[path]
        if isinstance(column, Ragged):
            sizes = sizes + column.lengths * each.nbytes
    return sizes


def _fitting(sizes: np.ndarray | int, start: int, rows: int, room: int) -> int:
    """Return how many rows from `start` on fit into `room` bytes."""
    if isinstance(sizes, int):
        return min(rows - start, max(0, room) // max(1, sizes))
    return int(np.searchsorted(np.cumsum(sizes[start:]), room, side="right"))


def _total(sizes: np.ndarray | int, start: int, stop: int) -> int:
    return sizes * (stop - start) if isinstance(sizes, int) else int(sizes[start:stop].sum())


def _part(column: Column, start: int, stop: int) -> Column:
    return column.part(start, stop) if isinstance(column, Ragged) else column[start:stop]


def create_folder(path: Path) -> None:
    """Create a folder; raise `FileExistsError` if it exists and is not empty."""
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f"{path} is not empty, and an existing store is never changed")


def link_file(source: Path, target: Path) -> None:
    """Hard-link `target`, which must not exist, to `source`; copy if links are not possible."""
    if target.exists():
        raise FileExistsError(f"{target} exists, and an existing store is never changed")
    try:
        target.hardlink_to(source.resolve())  # follows a symbolic link into DVC's cache
    except OSError:
        shutil.copyfile(source, target)


def _write_array(file: Path, array: np.ndarray) -> None:
    with file.open("xb") as stream:
        np.save(stream, array, allow_pickle=False)
