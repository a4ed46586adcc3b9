"""Read a CSV file as blocks of texts; rows that cannot be read are rejected."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported, so pyright does not know them.

from __future__ import annotations

import bz2
import csv as strict_csv
import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from renate_stages.data.rejected import Rejected
from renate_stages.errors import TableError

BYTES = 8 * 2**20  # of a block
OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def csv_blocks(
    path: Path, file: str, separator: str, rejected: list[Rejected]
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield rows as columns of texts, with their numbers; the header is row 1.

    Args:
        path: The file, which may be compressed.
        file: Its name in messages.
        separator: What separates the cells.
        rejected: Gets the rows that have another number of columns, or are not UTF-8.

    Raises:
        TableError: If the names of columns cannot be used, or a quote is not closed.
    """
    skipped: list[int] = []
    long_rows: list[int] = []

    def left_out(row: Any) -> str:
        reason = f"the row has {row.actual_columns} columns, expected {row.expected_columns}"
        rejected.append(Rejected(file, row.number, reason))
        skipped.append(row.number)
        if "\n" in row.text:
            long_rows.append(row.number)
        return "skip"

    names = _header(path, file, separator)
    options: dict[str, Any] = {
        "read_options": csv.ReadOptions(use_threads=False, block_size=BYTES),
        "parse_options": csv.ParseOptions(
            delimiter=separator, newlines_in_values=True, invalid_row_handler=left_out
        ),
        # bytes, because one text that is not UTF-8 would make the whole file unreadable
        "convert_options": csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary())),
    }
    row, checked = 2, False
    with csv.open_csv(path, **options) as source:
        for batch in source:
            if not checked and (long_rows or _has_line_ends(batch)):
                _check_quotes(path, file, separator)
                checked = True
            table, bad = _texts(pa.Table.from_batches([batch]))
            numbers = _row_numbers(row, len(batch), skipped)
            row = int(numbers[-1]) + 1 if len(numbers) else row
            for place, column in sorted(bad.items()):
                rejected.append(Rejected(file, int(numbers[place]), f"{column} is not UTF-8"))
            keep = np.setdiff1d(np.arange(len(batch)), list(bad))
            yield table.take(keep) if bad else table, numbers[keep]
    if long_rows and not checked:
        _check_quotes(path, file, separator)


def check_names(names: Sequence[str], file: str) -> None:
    """Check that each column of a file has a name of its own.

    Raises:
        TableError: If not.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        what = f"two columns are called '{twice[0]}'" if twice else "a column has no name"
        cure = "give each column a name of its own"
        if names and not names[0]:
            cure += "; pandas writes its index without one, unless you set index=False"
        raise TableError(file, what, cure)


def _header(path: Path, file: str, separator: str) -> list[str]:
    """Return the names of the columns, from the first row."""
    with OPEN.get(path.suffix.lower(), open)(path, "rb") as stream:
        if stream.read(2) in UTF_16:
            raise TableError(file, "it is UTF-16", "save it as UTF-8")
    with _text(path) as text:
        rows = strict_csv.reader(text, delimiter=separator)
        try:
            names = next((row for row in rows if row), [])
        except strict_csv.Error as error:
            raise TableError(file, f"line 1: {error}", "correct the names of columns") from error
    if any("\udc80" <= each <= "\udcff" for each in "".join(names)):
        raise TableError(file, "the names of columns are not UTF-8", "save it as UTF-8")
    if not names:
        raise TableError(file, "it is empty", "write the names of the columns as its first row")
    check_names(names, file)
    return names


def _check_quotes(path: Path, file: str, separator: str) -> None:
    """Check that quotes are closed; otherwise many rows were read as one value without notice."""
    strict_csv.field_size_limit(2**31 - 1)
    start = 1
    with _text(path) as text:
        rows = strict_csv.reader(text, delimiter=separator, strict=True)
        try:
            for _ in rows:
                start = rows.line_num + 1
        except strict_csv.Error as error:
            what = f"a quote is not closed in the row that begins on line {start} ({error})"
            raise TableError(file, what, "close it, and double quotes inside quotes") from error


def _text(path: Path) -> TextIO:
    opened = OPEN.get(path.suffix.lower(), open)
    return opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _has_line_ends(batch: pa.RecordBatch) -> bool:
    """Return whether a value of bytes contains the end of a line."""
    values = (column.buffers()[2] for column in batch.columns)
    return any(b"\n" in each.to_pybytes() for each in values if each is not None)


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
