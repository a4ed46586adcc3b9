"""Read CSV and Parquet files as blocks of rows, with the rows of CSV files that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from renate_stages.data.rejected import Rejected
from renate_stages.errors import TableError

ROWS = 65536  # of a block of Parquet
BYTES = 8 * 2**20  # of a block of CSV
SEPARATORS = {".csv": ",", ".tsv": "\t"}
COMPRESSED = (".gz", ".bz2")
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Block:
    """Rows of one file.

    Args:
        table: The rows.
        file: Path of the file, relative to the folder.
        first: Number of the first row, as messages give it: in a CSV file the header is row 1.
    """

    table: pa.Table
    file: str
    first: int


def table_files(folder: Path, pattern: str | None = None) -> list[Path]:
    """Return the CSV and Parquet files of a folder in the order of their paths.

    Args:
        folder: The folder, with those inside.
        pattern: A glob pattern, such as `train-*.csv`; None: all files of a known type.

    Raises:
        TableError: If there is none.
    """
    found = [
        path
        for path in sorted(folder.rglob(pattern or "*"))
        if path.is_file() and (_separator(path) or path.suffix.lower() in PARQUET)
    ]
    if not found:
        what = f"no file matches {pattern}" if pattern else "there is no table"
        raise TableError(folder, what, "put .csv, .tsv or .parquet files into the folder")
    return found


def blocks(
    path: Path, folder: Path, rejected: list[Rejected], columns: Sequence[str] | None = None
) -> Iterator[Block]:
    """Yield the rows of a file.

    Args:
        path: The file. All columns of CSV are texts.
        folder: The folder of the data, for messages.
        rejected: Gets the rows of a CSV file that have another number of columns, or are not UTF-8.
        columns: Columns to read, if the file has them; None: all.

    Raises:
        TableError: If the file is damaged or has no header, or two columns have one name.
    """
    file = path.relative_to(folder).as_posix()
    try:
        if path.suffix.lower() in PARQUET:
            yield from _parquet_blocks(path, file, columns)
        else:
            yield from _csv_blocks(path, file, rejected)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise TableError(file, reason, "write the file again, as UTF-8 with a header") from error


def _parquet_blocks(path: Path, file: str, columns: Sequence[str] | None) -> Iterator[Block]:
    with parquet.ParquetFile(path) as source:
        names = source.schema_arrow.names
        _check_names(names, file)
        wanted = names if columns is None else [name for name in names if name in columns]
        row = 1
        for batch in source.iter_batches(ROWS, columns=wanted, use_threads=False):
            yield Block(pa.Table.from_batches([batch]), file, row)
            row += len(batch)


def _csv_blocks(path: Path, file: str, rejected: list[Rejected]) -> Iterator[Block]:
    skipped: list[int] = []

    def left_out(row: Any) -> str:
        reason = f"the row has {row.actual_columns} columns, expected {row.expected_columns}"
        rejected.append(Rejected(file, row.number, reason))
        skipped.append(row.number)
        return "skip"

    separator = _separator(path)
    names = _header(path, file, str(separator))
    options: dict[str, Any] = {
        "read_options": csv.ReadOptions(use_threads=False, block_size=BYTES),
        "parse_options": csv.ParseOptions(
            delimiter=separator, newlines_in_values=True, invalid_row_handler=left_out
        ),
        # bytes, because one text that is not UTF-8 would make the whole file unreadable
        "convert_options": csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary())),
    }
    row = 2
    with csv.open_csv(path, **options) as source:
        for batch in source:
            table, bad = _texts(pa.Table.from_batches([batch]))
            numbers = _row_numbers(row, len(batch), skipped)
            row = int(numbers[-1]) + 1 if len(numbers) else row
            for place, column in sorted(bad.items()):
                reason = f"{column} is not UTF-8"
                rejected.append(Rejected(file, int(numbers[place]), reason))
            keep = np.setdiff1d(np.arange(len(batch)), list(bad))
            yield from _runs(table.take(keep) if bad else table, numbers[keep], file)


def _runs(table: pa.Table, numbers: np.ndarray, file: str) -> Iterator[Block]:
    """Yield rows in blocks of consecutive numbers, so that messages name the right row."""
    cuts = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
    for start, end in pairwise(cuts):
        if end > start:
            yield Block(table.slice(start, end - start), file, int(numbers[start]))


def _row_numbers(first: int, count: int, skipped: Sequence[int]) -> np.ndarray:
    """Return the numbers of rows that were read, without those that were skipped."""
    more = len([number for number in skipped if number >= first])
    numbers = np.arange(first, first + count + more)
    return np.setdiff1d(numbers, skipped)[:count]


def _texts(table: pa.Table) -> tuple[pa.Table, dict[int, str]]:
    """Return a table of bytes as texts, and the column of each row that is not UTF-8."""
    columns, bad = [], {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        try:
            columns.append(pc.cast(column, pa.string()))
        except pa.ArrowInvalid:
            texts = []
            for row, value in enumerate(column.to_pylist()):
                try:
                    texts.append(value.decode())
                except UnicodeDecodeError:
                    bad.setdefault(row, name)
                    texts.append(None)
            columns.append(pa.array(texts, pa.string()))
    return pa.table(columns, names=table.column_names), bad


def _header(path: Path, file: str, separator: str) -> list[str]:
    """Return the names of the columns of a CSV file, from its first row."""
    options = csv.ReadOptions(use_threads=False, block_size=BYTES)
    parse = csv.ParseOptions(delimiter=separator, invalid_row_handler=lambda _: "skip")
    with csv.open_csv(path, read_options=options, parse_options=parse) as source:
        names = source.schema.names
    _check_names(names, file)
    return names


def _check_names(names: Sequence[str], file: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        what = f"two columns are called '{twice[0]}'" if twice else "a column has no name"
        raise TableError(file, what, "give each column a name of its own")


def _separator(path: Path) -> str | None:
    """Return what separates the columns of a CSV file, by its ending; None if it is no CSV file."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return SEPARATORS.get(name.suffix.lower())
