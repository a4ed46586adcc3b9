"""`Table`: a data module for CSV and Parquet files and for DataFrames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from renate_stages.data.columns import ColumnDataset
from renate_stages.data.module import RenateDataModule
from renate_stages.data.modules.table_files import ROWS, Block, blocks, table_files
from renate_stages.data.modules.table_reading import Reader
from renate_stages.data.modules.table_schema import Roles, check_schema, infer_columns
from renate_stages.data.modules.table_targets import Targets
from renate_stages.data.rejected import Rejected
from renate_stages.errors import AllRowsRejectedError, ChangedPreprocessingError, TableError
from renate_stages.memory.row_weights import WEIGHT
from renate_stages.preprocessing.table import Kind, TablePreprocessing
from renate_stages.preprocessing.table_rows import as_table
from renate_stages.preprocessing.text_settings import WORDS, TextSettings


class Table(RenateDataModule):
    """Reads tables: numbers, categories, booleans, dates and texts, and one or several target columns.

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
        weight: Column of the rows' weights in the training loss: 0, or numbers from 1e-20 to 1e20. It
            is no input, and `predict` does not need it.
        metadata: Further columns to keep with each row, for slices. They may be inputs too.
        numeric: Input columns that are numbers, whatever their values look like.
        categorical: Input columns that are categories, such as numbers that are codes.
        boolean: Input columns that are true or false.
        date: Input columns that are dates or times, ISO 8601.
        text: Input columns that are free texts, such as comments, which are read word by word.
        exclude: Columns to ignore.
        delimiter: What separates the cells of `.csv` files, one character.
        rename: The known name of a column, by its name in the files. A deployed model takes both.
        files: Pattern of the files' names, such as `week-*.csv`; None: all.
        test_files: Pattern of the files with test data; None: `data.test_fraction` of the rows.
        max_categories: Most categories of a column.
        max_length: Most words of a text that are read; later ones are cut off.
        vocab_size: Most ids of a text column's vocabulary.
        min_count: How often a word must occur in the training rows of an update to get an id.
        lower: Whether texts are read in lower case.
        task: Name of the task, which decides whether targets are labels or numbers.
        frame: A DataFrame or Arrow table to read in place of files.
        val_size: Share of the training data to use for validation, in [0, 1).
        seed: Seed of that split.

    Raises:
        TableError: If arguments contradict each other.
        TextSettingError: If a setting for texts is out of range.
    """

    fits_data = True

    def __init__(
        self,
        data_path: str | Path,
        target: str | list[str],
        id: str | None = None,
        source: str | None = None,
        group: str | None = None,
        time: str | None = None,
        weight: str | None = None,
        metadata: Sequence[str] = (),
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        boolean: Sequence[str] = (),
        date: Sequence[str] = (),
        text: Sequence[str] = (),
        exclude: Sequence[str] = (),
        delimiter: str = ",",
        rename: Mapping[str, str] | None = None,
        files: str | None = None,
        test_files: str | None = None,
        max_categories: int = 10_000,
        max_length: int = 512,
        vocab_size: int = 20_000,
        min_count: int = 2,
        lower: bool = True,
        task: str = "auto",
        frame: Any = None,
        val_size: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(data_path, val_size, seed)
        lists: dict[Kind, Sequence[str]] = {
            "numeric": numeric,
            "categorical": categorical,
            "boolean": boolean,
            "date": date,
            "text": text,
        }
        for setting, names in {**lists, "metadata": metadata, "exclude": exclude}.items():
            if isinstance(names, str):
                cure = f"write {setting}: [{names}]"
                raise TableError("data.module", f"{setting} is not a list of columns", cure)
        if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
            what = f"delimiter is {delimiter!r}, expected one character, no quote or line end"
            raise TableError("data.module", what, "set it to ';', or remove it for ','")
        roles = {"id": id, "source": source, "group": group, "time": time, "weight": weight}
        if WEIGHT in metadata:
            cure = "set data.module.weight to weight rows, or call the column otherwise with rename"
            raise TableError("data.module", "the name 'weight' is listed in metadata", cure)
        self._roles = Roles(
            targets=(target,) if isinstance(target, str) else tuple(target),
            fields={role: name for role, name in roles.items() if name is not None}
            | {name: name for name in metadata},
            kinds={name: kind for kind, names in lists.items() for name in names},
            exclude=tuple(exclude),
        )
        self._roles.check([name for names in lists.values() for name in names])
        self._delimiter = delimiter
        self._rename, self._files, self._test_files = dict(rename or {}), files, test_files
        self._max_categories, self._task, self._frame = max_categories, task, frame
        self._of_texts = TextSettings(("text",), WORDS, max_length, vocab_size, min_count, lower)
        self._several = not isinstance(target, str)
        self.rejected: list[Rejected] = []
        self.rows_seen = 0

    def setup(self) -> None:
        """Read the files.

        Raises:
            TableError: If a file or a column cannot be read, or a column is missing.
            AllRowsRejectedError: If no row can be used.
            ChangedPreprocessingError: If the settings name other input columns than the parent's.
            TextEncodingError: If texts would get other ids than in earlier updates.
        """
        self.rejected, self.rows_seen = [], 0
        tests = [] if self._test_files is None else table_files(self._data_path, self._test_files)
        paths = [] if self._frame is not None else table_files(self._data_path, self._files)
        paths = [path for path in paths if path not in tests]
        fitted = self.preprocessing
        if fitted is None:
            columns = infer_columns(self._roles, self._blocks(paths, []))
            fitted = TablePreprocessing(columns, self._of_texts)
        if not isinstance(fitted, TablePreprocessing):
            problem = f"examples of earlier updates are of kind {fitted.kind}, not table"
            cure = "name the data module of earlier updates, or start a new project"
            raise ChangedPreprocessingError("data.module", problem, cure)
        check_schema(self._roles, fitted)
        fitted.texts.change(self._of_texts)
        fitted.other_names.add(self._rename)
        self.preprocessing = fitted
        self.feature_names = fitted.feature_names
        self.categorical_features = tuple(each.name for each in fitted.categories)
        self.excluded_features = fitted.date_features
        targets = Targets(self._task, self._roles.targets, several=self._several)
        self.target_names = tuple(self._roles.targets) if self._several else ()
        reader = Reader(fitted, targets, self._roles.fields, self._max_categories)
        self._train_data = self._read(reader, paths)
        if tests:
            self._test_data = self._read(reader, tests)
        targets.check()
        self.label_order = targets.label_order
        if self._val_size:
            self._train_data, self._val_data = self._split_train_val_data(self._train_data)

    def _read(self, reader: Reader, paths: Sequence[Path]) -> ColumnDataset:
        before = len(self.rejected)
        data = reader.read(self._blocks(paths, self.rejected), self.rejected)
        rejected = self.rejected[before:]
        self.rows_seen += len(rejected) + (0 if data is None else len(data))
        if data is None and rejected:
            raise AllRowsRejectedError("table", rejected, self.rows_seen)
        if data is None:
            raise TableError(self._data_path, "the files have no rows", "put rows into them")
        return data

    def _blocks(self, paths: Sequence[Path], rejected: list[Rejected]) -> Iterator[Block]:
        """Yield the rows of the files, or of the frame, with known names of columns.

        Once the preprocessing is known, only the columns that are needed are read and checked.
        """
        if self._frame is not None and not paths:
            table = self._renamed(as_table(self._frame), "the frame")
            for start in range(0, len(table), ROWS):
                part = table.slice(start, ROWS)
                yield self._checked(Block(part, "frame", np.arange(start, start + len(part))))
        for path in paths:
            for block in blocks(path, self._data_path, rejected, self._chosen, self._delimiter):
                table = self._renamed(block.table, block.file)
                yield self._checked(Block(table, block.file, block.rows))

    def _chosen(self, names: Sequence[str]) -> Sequence[str]:
        """Return which columns of a file to read: all, unless all that are needed are known."""
        if not isinstance(self.preprocessing, TablePreprocessing):
            return names
        needed = {*self._needed(self.preprocessing)}
        wanted = [name for name in names if self._rename.get(name, name) in needed]
        return wanted if len(wanted) >= len(needed) else names  # all, for the message

    def _needed(self, fitted: TablePreprocessing) -> list[str]:
        return [*fitted.columns, *self._roles.targets, *self._roles.fields.values()]

    def _renamed(self, table: pa.Table, file: str) -> pa.Table:
        names = [self._rename.get(name, name) for name in table.column_names]
        if twice := [name for name in names if names.count(name) > 1]:
            cure = "correct data.module.rename, or exclude one of the columns from the file"
            raise TableError(file, f"two columns are called '{twice[0]}' after renaming", cure)
        return table.rename_columns(names)

    def _checked(self, block: Block) -> Block:
        """Return a block; raise if it lacks a column that is needed."""
        fitted = self.preprocessing
        if not isinstance(fitted, TablePreprocessing):
            return block
        names = block.table.column_names
        needed = self._needed(fitted)
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
        return block
