"""`Table`: a data module for CSV and Parquet files and for DataFrames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from renate_stages.data.columns import ColumnDataset
from renate_stages.data.module import RenateDataModule
from renate_stages.data.modules.table_files import Block, blocks, table_files
from renate_stages.data.modules.table_schema import Roles, check_schema, infer_columns
from renate_stages.data.modules.table_targets import Targets
from renate_stages.data.rejected import Rejected
from renate_stages.errors import TableError
from renate_stages.preprocessing import table_values
from renate_stages.preprocessing.table import TablePreprocessing, as_table

TEXT_COLUMNS = ("id", "source")  # metadata that is always text


class Table(RenateDataModule):
    """Reads tables: numbers, categories, booleans and dates, and one or several target columns.

        data:
          module: {name: table, target: income, id: customer, categorical: [zip]}

    All `.csv`, `.tsv` (also `.gz`) and `.parquet` files of the folder are read, in the order of their
    names. Columns that are not named here are inputs; the first update decides their kind by their
    values, and later updates must have the same columns. Rows that cannot be read are rejected.

    Args:
        data_path: Folder of the files.
        target: Column of the targets, or a list of them: a number for each (regression), or 0 and 1
            for each (multilabel).
        id: Column that identifies a row, to forget it later.
        source: Column with the source of a row, for `retention.never_keep` and slices.
        group: Column for `data.split: grouped` with `split_by: group`.
        time: Column of dates or numbers, for `data.split: newest` with `split_by: time`.
        metadata: Further columns to keep with each row, for slices. They may be inputs too.
        numeric: Input columns that are numbers, whatever their values look like.
        categorical: Input columns that are categories, such as numbers that are codes.
        boolean: Input columns that are true or false.
        date: Input columns that are dates or times, ISO 8601.
        exclude: Columns to ignore.
        rename: The known name of a column, by its name in the files.
        files: Pattern of the files' names, such as `week-*.csv`; None: all.
        test_files: Pattern of the files with test data; None: `data.test_fraction` of the rows.
        max_categories: Most categories of a column.
        task: Name of the task, which decides whether targets are labels or numbers.
        frame: A DataFrame or Arrow table to read in place of files.
        val_size: Share of the training data to use for validation, in [0, 1).
        seed: Seed of that split.

    Raises:
        TableError: If arguments contradict each other.
    """

    def __init__(
        self,
        data_path: str | Path,
        target: str | list[str],
        id: str | None = None,
        source: str | None = None,
        group: str | None = None,
        time: str | None = None,
        metadata: Sequence[str] = (),
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        boolean: Sequence[str] = (),
        date: Sequence[str] = (),
        exclude: Sequence[str] = (),
        rename: Mapping[str, str] | None = None,
        files: str | None = None,
        test_files: str | None = None,
        max_categories: int = 10_000,
        task: str = "auto",
        frame: Any = None,
        val_size: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data_path, val_size, seed)
        roles = {"id": id, "source": source, "group": group, "time": time}
        self._roles = Roles(
            targets=(target,) if isinstance(target, str) else tuple(target),
            fields={role: name for role, name in roles.items() if name is not None}
            | {name: name for name in metadata},
            kinds={
                **dict.fromkeys(numeric, "numeric"),
                **dict.fromkeys(categorical, "categorical"),
                **dict.fromkeys(boolean, "boolean"),
                **dict.fromkeys(date, "date"),
            },
            exclude=tuple(exclude),
        )
        self._roles.check([*numeric, *categorical, *boolean, *date])
        self._rename, self._files, self._test_files = dict(rename or {}), files, test_files
        self._max_categories, self._task, self._frame = max_categories, task, frame
        self._several = not isinstance(target, str)
        self.rejected: list[Rejected] = []
        self.rows_seen = 0

    def setup(self) -> None:
        """Read the files.

        Raises:
            TableError: If a file or a column cannot be read, or a column is missing.
            ChangedPreprocessingError: If the settings name other input columns than the parent's.
        """
        tests = [] if self._test_files is None else table_files(self._data_path, self._test_files)
        paths = [] if self._frame is not None else table_files(self._data_path, self._files)
        fitted = self.preprocessing
        if fitted is None:
            first = [] if self._frame is not None else [path for path in paths if path not in tests]
            columns = infer_columns(self._roles, self._blocks(first, []), self._columns_read())
            fitted = TablePreprocessing(columns)
        assert isinstance(fitted, TablePreprocessing)
        check_schema(self._roles, fitted)
        self.preprocessing = fitted
        self.feature_names = fitted.feature_names
        self.categorical_features = tuple(each.name for each in fitted.categories)
        self.excluded_features = tuple(
            value.name
            for value in fitted.values
            if " (" in value.name and _of_date(value.name, fitted)
        )
        self._targets = Targets(self._task, self._roles.targets, several=self._several)
        self._train_data = self._read([path for path in paths if path not in tests], fitted)
        if tests:
            self._test_data = self._read(tests, fitted)
        self.label_order = self._targets.label_order
        for column in fitted.categories:
            if len(column.names) > self._max_categories:
                raise TableError(
                    f"column '{column.name}'",
                    f"it has {len(column.names)} categories, more than max_categories "
                    f"({self._max_categories})",
                    "add it to data.module.exclude, or raise data.module.max_categories",
                )
        if self._val_size:
            self._train_data, self._val_data = self._split_train_val_data(self._train_data)

    def _read(self, paths: Sequence[Path], fitted: TablePreprocessing) -> ColumnDataset:
        inputs: dict[str, list[np.ndarray]] = {}
        targets: list[Any] = []
        fields: dict[str, list[Any]] = {role: [] for role in self._roles.fields}
        for block in self._blocks(paths, self.rejected):
            self._check_columns(block, fitted)
            found, bad = fitted.stored(block.table, grow=True)
            values, wrong = self._targets.read(block.table)
            notes = {
                role: _field(role, block.table[name]) for role, name in self._roles.fields.items()
            }
            for each in (wrong, *(reasons for _, reasons in notes.values())):
                bad = {**each, **bad}
            self.rejected += [
                Rejected(block.file, block.first + row, reason)
                for row, reason in sorted(bad.items())
            ]
            keep = np.setdiff1d(np.arange(len(block.table)), list(bad))
            for name, part in found.items():
                inputs.setdefault(name, []).append(part[keep] if bad else part)
            targets.append(values[keep])
            for role, (entries, _) in notes.items():
                fields[role].append(entries[keep])
        self.rows_seen += sum(map(len, targets))
        if not self.rows_seen:
            raise TableError(self._data_path, "no row can be used", self._first_reason())
        return ColumnDataset(
            {name: _joined(parts) for name, parts in inputs.items()},
            self._targets.column(_joined(targets)),
            {role: _joined(parts) for role, parts in fields.items()},
        )

    def _blocks(self, paths: Sequence[Path], rejected: list[Rejected]) -> Iterator[Block]:
        """Yield the rows of the files, or of the frame, with known names of columns."""
        before = len(rejected)
        if self._frame is not None:
            yield Block(self._renamed(as_table(self._frame), "the frame"), "frame", 0)
        for path in paths:
            for block in blocks(path, self._data_path, rejected, self._columns_read()):
                yield Block(self._renamed(block.table, block.file), block.file, block.first)
        if rejected is self.rejected:
            self.rows_seen += len(rejected) - before

    def _columns_read(self) -> list[str] | None:
        """Return the names in the files of the columns to read; None: all are needed."""
        if not isinstance(self.preprocessing, TablePreprocessing):
            return None
        known = {*self.preprocessing.columns, *self._roles.targets, *self._roles.fields.values()}
        old = {new: name for name, new in self._rename.items()}
        return [*known, *(old[name] for name in known if name in old)]

    def _renamed(self, table: pa.Table, file: str) -> pa.Table:
        names = [self._rename.get(name, name) for name in table.column_names]
        if twice := [name for name in names if names.count(name) > 1]:
            cure = "correct data.module.rename, or exclude one of the columns from the file"
            raise TableError(file, f"two columns are called '{twice[0]}' after renaming", cure)
        return table.rename_columns(names)

    def _check_columns(self, block: Block, fitted: TablePreprocessing) -> None:
        names = block.table.column_names
        needed = [*fitted.columns, *self._roles.targets, *self._roles.fields.values()]
        lacking = [name for name in needed if name not in names]
        if lacking:
            known = {*needed, *self._roles.exclude}
            new = [name for name in names if name not in known]
            renamed = f", and there are new ones: {', '.join(new)}" if new else ""
            cure = "add the columns to the files"
            if new:
                example = f"{{{new[0]}: {lacking[0]}}}"
                cure += f"; if they were renamed, set data.module.rename, such as {example}"
            raise TableError(
                block.file, f"columns are missing: {', '.join(lacking)}{renamed}", cure
            )
        for name in needed:
            kind = block.table[name].type
            if not table_values.is_scalar(kind):
                cure = "store numbers, texts, booleans or dates, or add it to data.module.exclude"
                raise TableError(block.file, f"column '{name}' has values of type {kind}", cure)

    def _first_reason(self) -> str:
        if not self.rejected:
            return "put rows into the files"
        first = self.rejected[0]
        return f"correct the rows; the first one, {first.place}: {first.reason}"


def _field(role: str, column: pa.ChunkedArray) -> tuple[np.ndarray, table_values.Bad]:
    """Return the entries of a metadata column, and the reason for each row that cannot be read."""
    if role == "time":
        values, bad = table_values.dates(column, role)
        missing = dict.fromkeys(np.flatnonzero(np.isnan(values)).tolist(), "time is missing")
        return values, {**missing, **bad}
    if role in TEXT_COLUMNS or not _is_numeric(column.type):
        texts, places = table_values.dictionary_of(column)
        entries = np.array([*texts, ""], dtype=object)[places]
        missing = np.flatnonzero(places < 0).tolist() if role == "id" else []
        return entries, dict.fromkeys(missing, "id is missing")
    return table_values.numbers(column, role)


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _of_date(name: str, fitted: TablePreprocessing) -> bool:
    return any(
        name == f"{column} ({part})"
        for column, kind in fitted.columns.items()
        if kind == "date"
        for part in table_values.DATE_PARTS
    )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(parts) if len(parts) > 1 else parts[0]
    parts.clear()  # frees the blocks
    return joined
