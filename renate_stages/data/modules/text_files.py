"""Read the rows of files with texts: CSV, lines of JSON, and Parquet.

A file that cannot be read to its end is an error. A row that cannot be read is handed to `reject`, and
reading goes on.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from renate_stages.errors import MalformedFileError, TextColumnError, TextFilesError

CSV, JSON, PARQUET = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json"), (".parquet",)
NO_DATA = (".md", ".rst", ".license")  # suffixes of notes, which may be next to data
BLOCK_ROWS = 4096
_NOT_UTF8 = re.compile("[\0\udc80-\udcff]")  # in text that was read with surrogateescape

Reject = Callable[[int, str], None]
"""Called with the number of a row, from 1 on, and the reason why it cannot be read."""

Row = tuple[int, list[Any]]
"""The line of a text file or the row of another, from 1 on, and the cells of the wanted columns."""


def data_files(folder: Path, others: Sequence[Path] = ()) -> list[Path]:
    """Return the files with texts in a folder and its folders, sorted by name.

    Hidden files and notes (`README`, `LICENSE`, `.md`, `.rst`) are left out.

    Args:
        folder: The folder.
        others: Files that are no data, such as a tokenizer.

    Raises:
        TextFilesError: If the folder has no such file, or also files of another kind.
    """
    skipped = {path.resolve() for path in others}
    found = sorted(
        (path for path in folder.rglob("*") if path.is_file() and path.resolve() not in skipped),
        key=lambda path: path.relative_to(folder).as_posix(),
    )
    found = [path for path in found if not _is_note(path.relative_to(folder))]
    for path in found:
        if path.suffix.lower() not in (*CSV, *JSON, *PARQUET):
            problem = f"found {path.relative_to(folder).as_posix()}, which cannot be read"
            raise TextFilesError(folder, problem, "convert the file, or move it out of the folder")
    if not found:
        raise TextFilesError(folder, "found no file with texts", "put the new data there")
    return found


def rows_of(
    path: Path, columns: Mapping[str, str], reject: Reject, delimiter: str = ","
) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        path: The file.
        columns: Names of the columns to read, and for each the setting that names it.
        reject: Called for each row that cannot be read.
        delimiter: What separates the cells of a `.csv` file.

    Yields:
        The number of the row, and its cells in the order of `columns`: None if missing; from CSV,
        texts with lone surrogates for bytes that are not UTF-8; from Parquet, bytes for texts.

    Raises:
        TextColumnError: If a column is missing.
        MalformedFileError: If the file cannot be read to its end.
    """
    suffix = path.suffix.lower()
    if suffix in CSV:
        return _csv_rows(path, columns, reject, "\t" if suffix == ".tsv" else delimiter)
    return (_json_rows if suffix in JSON else _parquet_rows)(path, columns, reject)


def _csv_rows(
    path: Path, columns: Mapping[str, str], reject: Reject, delimiter: str
) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than a long text
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file, delimiter=delimiter, strict=True)
        start = 1  # line on which the row begins; cells may have line ends
        try:
            header = next(lines, [])
            if any(map(_NOT_UTF8.search, header)):
                problem, cure = "line 1: the names of columns are not UTF-8", "save it as UTF-8"
                raise MalformedFileError(path, "CSV", problem, cure)
            _check_columns(path, columns, header)
            places = [header.index(name) for name in columns]
            start = lines.line_num + 1
            for cells in lines:
                if len(cells) == len(header):
                    yield start, [cells[place] for place in places]
                elif cells:  # an empty line is no row
                    reject(start, f"the row does not have {len(header)} cells, as line 1 has")
                start = lines.line_num + 1
        except csv.Error as error:
            cure = "close the quotes of the row that begins there, and double quotes inside them"
            raise MalformedFileError(path, "CSV", f"line {start}: {error}", cure) from error


def _check_columns(path: Path, columns: Mapping[str, str], known: Sequence[str]) -> None:
    for name, setting in columns.items():
        if name not in known:
            raise TextColumnError(path, name, setting, known)
        if known.count(name) > 1:
            problem, cure = f"{known.count(name)} columns are called {name!r}", "rename all but one"
            raise MalformedFileError(path, path.suffix[1:].upper(), problem, cure)


def _json_rows(path: Path, columns: Mapping[str, str], reject: Reject) -> Iterator[Row]:
    seen: dict[str, None] = {}  # a set in order of appearance
    rows = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            if not rows and line.lstrip().startswith(b"["):
                problem = "it begins with '[', expected one object {...} on each line"
                cure = "write it as lines, for example with pandas.DataFrame.to_json(lines=True)"
                raise MalformedFileError(path, "lines of JSON", problem, cure)
            if not rows and line.strip() == b"{":
                problem = "line 1 is '{' alone, expected one object {...} on each line"
                cure = "write each object on one line; or name the file in tokenizer if it is one"
                raise MalformedFileError(path, "lines of JSON", problem, cure)
            rows += 1
            try:
                row = json.loads(line.decode())
            except UnicodeDecodeError:
                reject(number, "the line is not UTF-8")
                continue
            except (ValueError, RecursionError):
                reject(number, "the line is not valid JSON")
                continue
            if not isinstance(row, dict):
                reject(number, "the line is not a JSON object")
                continue
            seen.update(dict.fromkeys(row))
            yield number, [row.get(name) for name in columns]
    for name, setting in columns.items():
        if seen and name not in seen:
            raise TextColumnError(path, name, setting, seen)


def _parquet_rows(path: Path, columns: Mapping[str, str], reject: Reject) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            known = file.schema_arrow.names
            _check_columns(path, columns, known)
            number = 0
            for batch in file.iter_batches(BLOCK_ROWS, columns=list(columns), use_threads=False):
                cells = [_values(batch.column(name)) for name in columns]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield number, list(row)
    except (pa.ArrowException, OSError) as error:
        problem = str(error).split("\n")[0][:200]
        raise MalformedFileError(path, "Parquet", problem, "write the file again") from error


def _values(column: Any) -> list[Any]:
    """Return a column's values; texts as bytes, because not all writers check that they are UTF-8."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    return column.to_pylist()


def _is_note(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or path.suffix.lower() in NO_DATA or path.stem in ("README", "LICENSE", "NOTICE")
