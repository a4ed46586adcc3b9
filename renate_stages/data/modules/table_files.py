"""Read CSV and Parquet files as blocks of rows, with the rows of CSV files that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from renate_stages.data.modules.table_csv import check_names, csv_blocks
from renate_stages.data.rejected import Rejected
from renate_stages.errors import TableError

ROWS = 32768  # of a block of Parquet; its columns fit into the cache of a processor
BUFFER = 2**20  # bytes to read ahead of each column of Parquet
SEPARATORS = {".csv": ",", ".tsv": "\t"}
COMPRESSED = (".gz", ".bz2")
PARQUET = (".parquet", ".pq")
NO_DATA = (".md", ".rst", ".license")  # suffixes of notes, which may be next to data
NOTES = ("readme", "license", "licence")


@dataclass(frozen=True)
class Block:
    """Rows of one file.

    Args:
        table: The rows.
        file: Path of the file, relative to the folder.
        rows: Number of each row, as messages give it, int64 `(rows,)`: in a CSV file the header is
            row 1.
    """

    table: pa.Table
    file: str
    rows: np.ndarray


def table_files(folder: Path, pattern: str | None = None) -> list[Path]:
    """Return the CSV and Parquet files of a folder in the order of their paths.

    Args:
        folder: The folder, with those inside. Hidden files and notes, such as README.md, are left out.
        pattern: A glob pattern, such as `train-*.csv`; None: all files.

    Raises:
        TableError: If no file matches, or without a pattern also a file of another kind, whose rows
            would be missed without notice.
    """
    found = sorted(path for path in folder.rglob(pattern or "*") if path.is_file())
    found = [path for path in found if not _is_note(path.relative_to(folder))]
    others = [path for path in found if not _separator(path) and not _is_parquet(path)]
    if others and pattern is None:
        name = others[0].relative_to(folder).as_posix()
        cure = "convert it to .csv or .parquet, or set data.module.files, such as '*.csv'"
        raise TableError(folder, f"{name} cannot be read as a table", cure)
    found = [path for path in found if path not in others]
    if not found:
        what = f"no file matches {pattern}" if pattern else "there is no table"
        raise TableError(folder, what, "put .csv, .tsv or .parquet files into the folder")
    return found


def blocks(
    path: Path,
    folder: Path,
    rejected: list[Rejected],
    columns: Callable[[Sequence[str]], Sequence[str]],
    delimiter: str = ",",
) -> Iterator[Block]:
    """Yield the rows of a file.

    Args:
        path: The file. All columns of CSV are texts.
        folder: The folder of the data, for messages.
        rejected: Gets the rows of a CSV file that have another number of columns, or are not UTF-8.
        columns: Returns which columns of a Parquet file to read.
        delimiter: What separates the cells of a file that ends with `.csv`.

    Raises:
        TableError: If the file is damaged or has no header, or two columns have one name.
    """
    file = path.relative_to(folder).as_posix()
    separator = _separator(path)
    separator = delimiter if separator == SEPARATORS[".csv"] else separator
    try:
        if separator is None:
            yield from _parquet_blocks(path, file, columns)
        else:
            for table, rows in csv_blocks(path, file, separator, rejected):
                yield Block(table, file, rows)
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError, OSError) as error:
        reason = str(error).split("\n")[0]
        cure = "write the file again" + (", as UTF-8 with a header" if separator else "")
        raise TableError(file, reason, cure) from error


def _parquet_blocks(
    path: Path, file: str, columns: Callable[[Sequence[str]], Sequence[str]]
) -> Iterator[Block]:
    # otherwise the whole file is read ahead into memory
    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as source:
        names = source.schema_arrow.names
        check_names([name or "unnamed" for name in names], file)
        wanted = list(columns(names))
        row = 1
        for batch in source.iter_batches(ROWS, columns=wanted, use_threads=False):
            if len(batch):
                rows = np.arange(row, row + len(batch))
                yield Block(pa.Table.from_batches([batch]), file, rows)
            row += len(batch)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET


def _is_note(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or path.suffix.lower() in NO_DATA or path.stem.lower() in NOTES


def _separator(path: Path) -> str | None:
    """Return what separates the columns of a CSV file, by its ending; None if it is no CSV file."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return SEPARATORS.get(name.suffix.lower())
