"""Collect the rows of tables as columns, and reject the rows that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from renate_stages.data.columns import ColumnDataset
from renate_stages.data.modules.table_files import Block
from renate_stages.data.modules.table_targets import Targets
from renate_stages.data.rejected import Rejected
from renate_stages.errors import TableError
from renate_stages.memory import Ragged
from renate_stages.memory.ragged import offsets_of
from renate_stages.memory.row_weights import EXPECTED, WEIGHT, is_weight
from renate_stages.memory.spec import TEXT_BYTES
from renate_stages.preprocessing import table_texts, table_values
from renate_stages.preprocessing.table import TablePreprocessing
from renate_stages.preprocessing.table_text_columns import PART
from renate_stages.preprocessing.table_values import Bad

NEEDED = ("id", "group", "time")  # metadata that no row may lack
AS_TEXT = ("id", "source", "group")  # metadata that is text, also if it is a number


class Reader:
    """Reads rows into the columns of a `ColumnDataset`.

    Args:
        fitted: The preprocessing; it gets codes for new categories.
        targets: Reads the targets.
        fields: Columns to keep as metadata, by the name of the field.
        max_categories: Most categories of a column.
    """

    def __init__(
        self,
        fitted: TablePreprocessing,
        targets: Targets,
        fields: Mapping[str, str],
        max_categories: int,
    ) -> None:
        self._fitted, self._targets, self._fields = fitted, targets, fields
        self._max_categories = max_categories
        self._forms: dict[str, tuple[bool, str]] = {}  # whether a field is numbers, and since when

    def read(self, blocks: Iterable[Block], rejected: list[Rejected]) -> ColumnDataset | None:
        """Return all rows that can be read; None if no row can be read.

        Args:
            blocks: The rows, with all columns that are needed.
            rejected: Gets those that cannot be read.

        Raises:
            TableError: If a column cannot be used.
        """
        inputs: dict[str, _Growing] = {}
        words = [_GrowingTexts() for _ in self._fitted.texts.names]
        targets = _Growing()
        fields = {role: _Growing() for role in self._fields}
        for block in blocks:
            self._fitted.check_types(block.table, block.file)
            found, bad = self._fitted.numbers(block.table)
            texts, wrong = self._fitted.texts.stored(block.table)
            bad = {**wrong, **bad}
            entries: dict[str, np.ndarray] = {}
            for role, name in self._fields.items():
                entries[role], wrong = self._field(role, block.table[name], name, block.file)
                bad = {**wrong, **bad}
            values, wrong = self._targets.read(block.table, bad)
            bad = {**wrong, **bad}
            rejected += [
                Rejected(block.file, int(block.rows[row]), bad[row]) for row in sorted(bad)
            ]
            keep = np.delete(np.arange(len(block.table)), [*bad])
            found |= self._fitted.codes(block.table, grow=keep)
            self._check_categories()
            if not len(keep):
                continue
            part = keep if bad else slice(None)
            for name, column in found.items():
                inputs.setdefault(name, _Growing()).add(column[part])
            for growing, column in zip(words, texts.get(PART, ()), strict=True):
                growing.add(column.take(keep) if bad else column)
            targets.add(values[part])
            for role, column in entries.items():
                fields[role].add(column[part])
        if not targets.rows:
            return None
        every: dict[str, Any] = {name: column.values() for name, column in inputs.items()}
        return ColumnDataset(
            every | ({PART: tuple(column.values() for column in words)} if words else {}),
            targets.values(),
            {role: column.values() for role, column in fields.items()},
        )

    def _field(
        self, role: str, column: pa.ChunkedArray, name: str, file: str
    ) -> tuple[np.ndarray, Bad]:
        """Return the entries of a metadata column, and the reason for each row that has none."""
        if not table_texts.fits(column.type, "categorical"):
            cure = "name a column of numbers, texts, booleans or dates"
            raise TableError(file, f"column '{name}' has values of type {column.type}", cure)
        bad: Bad = {}
        if role == WEIGHT:
            return _weights(column, name, file)
        if role == "time":
            values, bad, numbers = table_values.times(column, name)
            lacking = np.flatnonzero(np.isnan(values))
            if len(lacking) < len(values):  # a block without a value has no form
                self._check_form(role, name, numbers, file)
        elif role not in AS_TEXT and self._is_numeric(role, column.type, name, file):
            values, bad = table_values.numbers(column, name)
            return values.astype(np.float64, copy=False), bad
        else:
            values, lacking = table_texts.texts_of(column)
            if role == "id" and pa.types.is_floating(column.type):
                _check_exact(column, name, file)
            elif role != "id":
                _check_length(values, role, name, file)
        missing = dict.fromkeys(lacking.tolist() if role in NEEDED else (), f"{name} is missing")
        return values, {**missing, **bad}

    def _is_numeric(self, role: str, kind: pa.DataType, name: str, file: str) -> bool:
        """Return whether a field is numbers, as in the first block."""
        if pa.types.is_null(kind):
            return self._forms.get(role, (False, ""))[0]
        first, _ = self._forms.setdefault(role, (table_texts.is_number(kind), file))
        if first and not table_texts.is_number(kind):
            self._check_form(role, name, False, file)
        return first

    def _check_form(self, role: str, name: str, numbers: bool, file: str) -> None:
        first, where = self._forms.setdefault(role, (numbers, file))
        if first != numbers:
            forms = {True: "numbers", False: "dates" if role == "time" else "texts"}
            what = f"column '{name}' has {forms[numbers]}, but {forms[first]} in {where}"
            raise TableError(file, what, "write the column in one form in all files")

    def _check_categories(self) -> None:
        for column in self._fitted.categories:
            if len(column.names) > self._max_categories:
                raise TableError(
                    f"column '{column.name}'",
                    f"it has more categories than max_categories ({self._max_categories})",
                    "add it to data.module.exclude, or raise data.module.max_categories",
                )


class _Growing:
    """An array to which blocks are added, without a second copy of it in memory."""

    def __init__(self) -> None:
        self.rows = 0
        self._array: np.ndarray | None = None
        self._texts: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Add a block `(rows, ...)`."""
        start, self.rows = self.rows, self.rows + len(block)
        if block.dtype.kind == "T":  # arrays of texts cannot be resized
            self._texts.append(block)
            return
        if self._array is None:
            self._array = np.empty((0, *block.shape[1:]), block.dtype)
        if self.rows > len(self._array):  # the system moves large arrays without copying them
            room = self.rows + self.rows // 8
            self._array.resize((room, *block.shape[1:]), refcheck=False)
        self._array[start : self.rows] = block

    def values(self) -> Any:
        """Return the array, once."""
        if self._array is None:
            texts, self._texts = self._texts, []
            return np.concatenate(texts)
        self._array.resize((self.rows, *self._array.shape[1:]), refcheck=False)
        array, self._array = self._array, None
        return array


class _GrowingTexts:
    """Texts to which blocks are added."""

    def __init__(self) -> None:
        self._values, self._lengths = _Growing(), _Growing()

    def add(self, block: Ragged) -> None:
        """Add a block of rows."""
        self._values.add(block.values)
        self._lengths.add(block.lengths)

    def values(self) -> Ragged:
        """Return all rows, once."""
        return Ragged(self._values.values(), offsets_of(self._lengths.values()))


def _weights(column: pa.ChunkedArray, name: str, file: str) -> tuple[np.ndarray, Bad]:
    """Return the weights of rows, float64, and the reason for each row whose weight is unusable."""
    kind = column.type
    usable = table_texts.is_number(kind) or table_texts.is_text(kind) or pa.types.is_null(kind)
    if not usable:
        what = f"column '{name}' (weight) has values of type {kind}"
        raise TableError(file, what, "name a column of numbers in data.module.weight")
    values, bad = table_values.numbers(column, name)
    for row in np.flatnonzero(~is_weight(values)).tolist():
        value = values[row]
        reason = f"{name} is missing"
        if not np.isnan(value):
            found = "negative" if value < 0 else "too small or too large"
            reason = f"{name} is {found}, expected {EXPECTED}"
        bad.setdefault(row, reason)
    return values.astype(np.float64, copy=False), bad


def _check_exact(column: pa.ChunkedArray, name: str, file: str) -> None:
    """Check that ids that are floating-point numbers are exact."""
    values = table_texts.combined(column).to_numpy(zero_copy_only=False)
    if (np.abs(values) >= table_texts.EXACT).any():
        what = f"column '{name}' has ids in floating-point numbers above 2**53, which are rounded"
        raise TableError(file, what, "write ids as texts or as 64-bit integers")


def _check_length(values: np.ndarray, role: str, name: str, file: str) -> None:
    for text in np.unique(values).tolist():
        if len(text.encode()) > TEXT_BYTES:
            what = (
                f"column '{name}' ({role}) has a text longer than {TEXT_BYTES} bytes: {text!r:.50}"
            )
            raise TableError(file, what, "shorten its texts, or do not use it as metadata")
