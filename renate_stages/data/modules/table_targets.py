"""Targets of a table: names of labels, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from renate_stages.errors import TableError
from renate_stages.preprocessing import table_values

NUMBERS = ("regression", "multilabel", "ranking")  # tasks whose targets are numbers
NUMBERED = "binary"  # its labels may be 0 and 1, of which 1 is positive
MOST_LABELS = 50  # whole numbers with more values are no labels, unless the task says so


class Targets:
    """Reads the target columns of a table.

    Labels are names, also whole numbers: the label 3 is called "3". So they need not begin at 0, and
    the model grows for new ones.

    Args:
        task: Name of the task, as in `params.yaml`; auto: texts and whole numbers are labels.
        columns: The columns.
        several: Whether targets are `(rows, k)`, also for one column.

    Raises:
        TableError: If there are several columns, but the task has one label for each row.
    """

    def __init__(self, task: str, columns: Sequence[str], *, several: bool) -> None:
        self.task, self.columns, self.several = task, tuple(columns), several
        self._seen: set[str] = set()
        self._numbered = False
        if several and task not in NUMBERS:
            cure = "set task: multilabel or regression, or name one target column"
            raise TableError("data.module.target", f"it lists columns, but task is {task}", cure)

    def read(self, table: pa.Table) -> tuple[np.ndarray, table_values.Bad]:
        """Return the targets of rows, and the reason for each row that has none.

        Returns:
            Names of labels, an array of texts `(rows,)`; or float32 `(rows,)` or `(rows, k)`; or
            int64 `(rows,)` of 0 and 1 for binary tasks with numbers.

        Raises:
            TableError: If the column has fractions, but the task has labels.
        """
        if self.task in NUMBERS:
            return self._numbers(table)
        name = self.columns[0]
        texts, places = table_values.dictionary_of(table[name])
        missing = np.flatnonzero(places < 0).tolist()
        bad = dict.fromkeys(missing, f"the target {name} is missing")
        if self.task == "auto" and any(_is_fraction(text) for text in texts):
            what = f"column '{name}' has fractions, such as {next(filter(_is_fraction, texts))}"
            raise TableError("data.module.target", what, "set task: regression in params.yaml")
        self._seen.update(texts)
        if self.task == NUMBERED and self._seen <= {"0", "1", "true", "false"}:
            self._numbered = True
            values = np.array([int(text in ("1", "true")) for text in texts] + [0])
            return values[places], bad
        if self._numbered:
            what = f"column '{name}' has 0 and 1, and also {max(self._seen)!r}"
            raise TableError("data.module.target", what, "use 0 and 1, or names for both labels")
        return np.array([*texts, ""], dtype=object)[places], bad

    def _numbers(self, table: pa.Table) -> tuple[np.ndarray, table_values.Bad]:
        columns, bad = [], {}
        for name in self.columns:
            values, wrong = table_values.numbers(table[name], f"the target {name}")
            missing = np.flatnonzero(np.isnan(values)).tolist()
            bad |= dict.fromkeys(missing, f"the target {name} is missing") | wrong
            if self.task == "multilabel":
                neither = np.flatnonzero(~np.isin(values, (0, 1)) & ~np.isnan(values)).tolist()
                bad |= dict.fromkeys(neither, f"the target {name} is neither 0 nor 1")
            columns.append(values.astype(np.float32))
        return (np.stack(columns, axis=1) if self.several else columns[0]), bad

    def column(self, values: np.ndarray) -> Any:
        """Return all targets as a column of a `ColumnDataset`.

        Raises:
            TableError: If whole numbers have so many values that they may be no labels.
        """
        whole = values.dtype == object and all(map(_is_whole, self._seen))
        if self.task == "auto" and whole and len(self._seen) > MOST_LABELS:
            what = f"column '{self.columns[0]}' has {len(self._seen)} different whole numbers"
            cure = "set task: classification or regression in params.yaml"
            raise TableError("data.module.target", what, cure)
        return values

    @property
    def label_order(self) -> tuple[str, ...]:
        """Names of the labels, sorted: whole numbers by value, before texts."""
        if self.task in NUMBERS or self._numbered:
            return ()
        return tuple(sorted(self._seen, key=_sort_key))


def _sort_key(name: str) -> tuple[bool, int, str]:
    return (not _is_whole(name), int(name) if _is_whole(name) else 0, name)


def _is_whole(text: str) -> bool:
    return text.lstrip("-").isdecimal() and text.isascii()


def _is_fraction(text: str) -> bool:
    try:
        return not _is_whole(text) and bool(float(text) or True)
    except ValueError:
        return False
