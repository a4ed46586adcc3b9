"""Read a table, CSV or Parquet, that lists files with their targets and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from renate_stages.data.modules.table_targets import FLAGS, NUMBERED, NUMBERS
from renate_stages.data.modules.text_values import (
    UnusableCellError,
    has_fraction,
    label_in,
    number_in,
    weights_in,
)
from renate_stages.data.rejected import Rejected
from renate_stages.errors import MissingColumnError, MissingDataFileError
from renate_stages.memory.row_weights import WEIGHT


@dataclass(frozen=True)
class LabelTable:
    """The rows of a table that have a path and targets.

    Args:
        paths: Path of each row, as the table has it.
        targets: `(rows,)`: names of labels as objects, 0 and 1 of a binary task as int64, or numbers
            as float32; or `(rows, n)` of several columns, int64 or float32.
        metadata: Values of each row by the name of the field.
        lines: Line in a CSV file, or row from 1 on in a Parquet file, int64 `(rows,)`.
    """

    paths: list[str]
    targets: np.ndarray
    metadata: dict[str, list[Any]]
    lines: np.ndarray


def read_label_table(
    module: str,
    file: Path,
    path: str,
    target: str | Sequence[str],
    metadata: Mapping[str, str],
    rejected: list[Rejected],
    task: str = "auto",
) -> LabelTable:
    """Read a table.

    Labels are names, also whole numbers: the label 3 is called "3".

    Args:
        module: Name of the data module, for messages.
        file: The table, `.csv` or `.parquet`.
        path: Name of the column with paths.
        target: Name of the column with targets, or names of several columns of numbers.
        metadata: Names of columns by the name of the metadata field.
        rejected: Gets the rows without a path or a target, or with an unusable label or weight.
        task: Name of the task; with auto, one column of numbers with fractions is a regression.

    Raises:
        MissingDataFileError: If the file does not exist or cannot be read.
        MissingColumnError: If it lacks a column.
    """
    labels = target if isinstance(target, str) and task not in NUMBERS else None
    frame = _read(module, file, labels)
    targets = [target] if isinstance(target, str) else [*target]
    settings = {"path": [path], "target": targets, **{n: [c] for n, c in metadata.items()}}
    for name, columns in settings.items():
        for column in columns:
            if column not in frame.columns:
                raise MissingColumnError(module, name, column, file.name, map(str, frame.columns))
    first = 2 if file.suffix.lower() == ".csv" else 1  # after the line with names
    lines = np.arange(len(frame)) + first
    if file.suffix.lower() == ".csv":
        is_blank = frame.isna().all(axis=1).to_numpy()
        frame, lines = frame[~is_blank], lines[~is_blank]
    lacking = np.zeros(len(frame), dtype=bool)
    for column in (path, *targets):
        missing = frame[column].isna().to_numpy() & ~lacking
        rejected += [Rejected(file.name, int(n), f"{column} is missing") for n in lines[missing]]
        lacking |= missing
    reasons: dict[int, str] = {int(row): "" for row in np.flatnonzero(lacking)}
    single = _single(frame[target], task, target, reasons) if isinstance(target, str) else None
    if WEIGHT in metadata:
        cells = frame[metadata[WEIGHT]].astype(object)
        weights = weights_in(cells.where(cells.notna(), None), metadata[WEIGHT], reasons)
        frame = frame.assign(**{metadata[WEIGHT]: weights})
    rejected += [Rejected(file.name, int(lines[n]), why) for n, why in reasons.items() if why]
    lacking[[*reasons]] = True
    frame, lines = frame[~lacking], lines[~lacking]
    if single is None:
        values = [_numbers(frame[column]) for column in targets]
        if any(each.dtype == object for each in values):
            problem = (
                f"target {', '.join(targets)}: a column has texts; several columns need numbers"
            )
            cure = "name one column, or use numbers"
            raise MissingDataFileError(module, file.name, problem, cure)
    return LabelTable(
        frame[path].astype(str).tolist(),
        single[~lacking] if single is not None else _joined(values),
        {name: _metadata(frame[column]) for name, column in metadata.items()},
        lines,
    )


def _read(module: str, file: Path, labels: str | None) -> pd.DataFrame:
    """Return the table; the column `labels` of a CSV file as texts, so that 007 stays 007."""
    if not file.is_file():
        problem, cure = "the file does not exist", "add it to data/incoming, or change labels"
        raise MissingDataFileError(module, file.name, problem, cure)
    try:
        if file.suffix.lower() == ".csv":
            return pd.read_csv(
                file,
                keep_default_na=False,
                na_values=[""],
                dtype_backend="numpy_nullable",
                dtype={labels: "string"} if labels is not None else None,
                skip_blank_lines=False,  # else numbers of later lines would be wrong
            )
        if file.suffix.lower() == ".parquet":
            return pd.read_parquet(file, dtype_backend="numpy_nullable")
    except (OSError, ValueError) as error:  # parser errors, wrong encodings, damaged files
        problem = f"it cannot be read: {str(error).splitlines()[0]}"
        raise MissingDataFileError(module, file.name, problem, "repair the file") from error
    raise MissingDataFileError(module, file.name, "unknown kind of table", "use .csv or .parquet")


def _single(column: pd.Series, task: str, name: str, reasons: dict[int, str]) -> np.ndarray:
    """Return the targets of one column: names of labels as objects, or numbers.

    Args:
        column: The column.
        task: Name of the task.
        name: Name of the column.
        reasons: Rows that cannot be used, with the reason; gets those without a usable value.
    """
    read = number_in if task in NUMBERS else label_in
    found = np.full(len(column), 0.0 if task in NUMBERS else "", dtype=object)
    for row, cell in enumerate(column.astype(object)):
        if row not in reasons:
            try:
                found[row] = read(cell, name)
            except UnusableCellError as error:
                reasons[row] = str(error)
    if task in NUMBERS:
        return found.astype(np.float32)
    names, used = found, {*np.delete(found, [*reasons])}
    if task == NUMBERED and {each.lower() for each in used} <= FLAGS:
        return np.array([each.lower() in ("1", "true") for each in names], dtype=np.int64)
    if task == "auto" and any(map(has_fraction, used)):
        numbers = pd.to_numeric(pd.Series(names), errors="coerce").to_numpy(np.float32)
        if not np.isnan(np.delete(numbers, [*reasons])).any():
            return numbers
    return names


def _numbers(column: pd.Series) -> np.ndarray:
    """Return targets as int64, float32, or texts as objects."""
    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_integer_dtype(column):
        return column.to_numpy(dtype=np.int64)
    if pd.api.types.is_float_dtype(column):
        return column.to_numpy(dtype=np.float32)
    return column.astype(str).to_numpy(dtype=object)


def _joined(columns: list[np.ndarray]) -> np.ndarray:
    dtype = np.int64 if all(each.dtype == np.int64 for each in columns) else np.float32
    return np.stack([each.astype(dtype) for each in columns], axis=1)


def _metadata(column: pd.Series) -> list[Any]:
    """Return values as Python numbers or texts; missing ones are NaN or the empty text."""
    if pd.api.types.is_bool_dtype(column) and not column.isna().any():
        return column.to_numpy(dtype=bool).tolist()
    if pd.api.types.is_integer_dtype(column) and not column.isna().any():
        return column.to_numpy(dtype=np.int64).tolist()
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan).tolist()
    return ["" if each is pd.NA or each is pd.NaT else str(each) for each in column]
