"""Read the index of a store and check the files that it lists."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.errors import DamagedStoreError
from renate_stages.memory.spec import ExampleSpec, Field

FORMAT = 2  # format 1, without metadata and ragged fields, can be read too
INDEX = "index.json"
LIVE = "live.npy"

_OFFSETS = Field(np.dtype("<i8"), ())
_SHARD_NAME = re.compile(r"\d{5,}-\d{2,}")


@dataclass(frozen=True)
class Shard:
    """Rows of a store that were written together.

    Args:
        name: Prefix of the names of their files.
        rows: Number of rows written.
        live: Number of rows that still belong to the store; the others are dead.
        lacks: Metadata fields of the store that these rows do not have.
    """

    name: str
    rows: int
    live: int
    lacks: tuple[str, ...] = ()

    @property
    def update(self) -> int:
        """Number of the update that wrote or rewrote the rows."""
        return int(self.name.partition("-")[0])

    def file(self, path: str) -> str:
        """Return the file name of one field."""
        return f"{self.name}.{path}.npy"

    def offsets_file(self, path: str) -> str:
        """Return the name of the file with the row offsets of a ragged field."""
        return f"{self.name}.{path}.offsets.npy"

    def fields(self, spec: ExampleSpec) -> dict[str, Field]:
        """Return the fields that these rows have."""
        return {path: each for path, each in spec.all_fields.items() if path not in self.lacks}

    def files(self, spec: ExampleSpec) -> list[str]:
        """Return the names of all files of these rows."""
        names = []
        for path, each in self.fields(spec).items():
            names += [self.file(path), *([self.offsets_file(path)] if each.ragged else [])]
        return names


def format_of(spec: ExampleSpec | None) -> int:
    """Return the oldest format that can represent a spec, so that old releases can read it."""
    fields = spec.all_fields.values() if spec else ()
    return 2 if spec and (spec.metadata or any(each.ragged for each in fields)) else 1


def read_index(folder: Path) -> tuple[ExampleSpec | None, list[Shard], np.ndarray | None]:
    """Return a store's spec, shards and live rows (bool; None: all), after checking its files.

    Raises:
        DamagedStoreError: If a file is missing or truncated, has another dtype or shape, or was
            written by a newer release.
    """
    spec, shards = read_shards(folder / INDEX)
    for shard in shards:
        for name, each in shard.fields(spec).items() if spec else ():
            _check_array(folder / shard.file(name), each, None if each.ragged else shard.rows)
            if each.ragged:
                _check_array(folder / shard.offsets_file(name), _OFFSETS, shard.rows + 1)
    return spec, shards, _read_live(folder / LIVE, shards)


def read_shards(file: Path) -> tuple[ExampleSpec | None, list[Shard]]:
    """Return the spec and the shards of an index, without checking their files.

    Raises:
        DamagedStoreError: If it is not an index, or was written by a newer release.
    """
    try:
        index = json.loads(file.read_text())
        version = index["format"]
        if not isinstance(version, int):
            raise TypeError(f"its format is {version!r}")
        if version > FORMAT:
            raise DamagedStoreError(
                file,
                f"found format {version}, expected at most {FORMAT}: a newer release wrote it",
                "run `pip install --upgrade renate-stages`",
            )
        shards = [_shard(record) for record in index["shards"]]
        spec = ExampleSpec.from_json(index) if shards else None
        for shard in shards:
            if not _SHARD_NAME.fullmatch(shard.name):
                raise ValueError(f"shard {shard.name!r} is not a plain file name")
            if spec and not set(shard.lacks) <= spec.metadata.keys():
                raise ValueError(f"shard {shard.name} lacks {', '.join(shard.lacks)}")
            if not 0 < shard.live <= shard.rows:
                raise ValueError(f"shard {shard.name} has {shard.live} of {shard.rows} rows live")
        if len({shard.name for shard in shards}) < len(shards):
            raise ValueError("a shard is listed twice")
        return spec, shards
    except OSError as error:
        raise DamagedStoreError(file, f"cannot be read ({error.strerror})") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedStoreError(file, f"is not an index of examples ({error})") from error


def _shard(record: dict[str, Any]) -> Shard:
    shard = Shard(**{**record, "lacks": tuple(record.get("lacks", ()))})
    if not (isinstance(shard.name, str) and type(shard.rows) is type(shard.live) is int):
        raise TypeError(f"a shard is {record!r}")
    return shard


def _read_live(file: Path, shards: list[Shard]) -> np.ndarray | None:
    rows = sum(shard.rows for shard in shards)
    if rows == sum(shard.live for shard in shards):
        return None
    _check_array(file, Field(np.dtype(bool), ()), rows)
    live = np.load(file, allow_pickle=False)
    if live.view(np.uint8).max(initial=0) > 1:  # NumPy assumes that a bool is 0 or 1
        raise DamagedStoreError(file, "contains values other than true and false")
    starts = np.cumsum([0] + [shard.rows for shard in shards[:-1]])
    counts = np.add.reduceat(live, starts, dtype=np.int64).tolist()
    if counts != [shard.live for shard in shards]:
        raise DamagedStoreError(file, "its number of live rows differs from the index")
    return live


def _check_array(file: Path, field: Field, rows: int | None) -> None:
    """Check an .npy file's header and length without reading or mapping its values.

    Args:
        file: The file.
        field: The expected dtype and shape of one row.
        rows: The expected number of rows; None: any number.
    """
    try:
        with file.open("rb") as stream:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("unsupported version of the .npy format")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            rows = (shape[0] if shape else 0) if rows is None else rows
            size = stream.tell() + rows * field.nbytes
        actual = file.stat().st_size
    except OSError as error:
        raise DamagedStoreError(file, f"cannot be read ({error.strerror})") from error
    except Exception as error:  # NumPy parses the header as Python, which can fail in many ways
        raise DamagedStoreError(file, f"is not a plain NumPy array ({error})") from error
    expected = f"{field.dtype.name} {(rows, *field.shape)}"
    if (shape, dtype, fortran) != ((rows, *field.shape), field.dtype, False):
        raise DamagedStoreError(file, f"found {dtype} {shape}, expected {expected}")
    if actual != size:
        raise DamagedStoreError(file, f"found {actual} bytes, expected {size} for {expected}")
