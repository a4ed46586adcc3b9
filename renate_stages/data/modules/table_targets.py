"""Targets of a table: names of labels, or numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from renate_stages.errors import TableError
from renate_stages.preprocessing import table_texts, table_values
from renate_stages.preprocessing.table_values import Bad

NUMBERS = ("regression", "multilabel", "ranking")  # tasks whose targets are numbers
NUMBERED = "binary"  # its labels may be 0 and 1, of which 1 is positive
FLAGS = {"0", "1", "true", "false"}
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

    def read(self, table: pa.Table, known: Mapping[int, str]) -> tuple[np.ndarray, Bad]:
        """Return the targets of rows, and the reason for each row that has none.

        Args:
            table: The rows.
            known: Rows that cannot be used for another reason; their labels do not count.

        Returns:
            Names of labels `(rows,)` of dtype `table_texts.TEXTS`; or float32 `(rows,)` or
            `(rows, k)`; or int64 `(rows,)` of 0 and 1 for binary tasks with numbers.

        Raises:
            TableError: If the column has fractions, but the task has labels.
        """
        if self.task in NUMBERS:
            return self._numbers(table)
        name = self.columns[0]
        texts, places = table_texts.dictionary_of(table[name])
        bad = dict.fromkeys(np.flatnonzero(places < 0).tolist(), f"the target {name} is missing")
        used = np.delete(places, [*known, *bad])
        labels = [texts[each] for each in np.unique(used)]
        fractions = [text for text in labels if _is_fraction(text)]
        if self.task in ("auto", NUMBERED) and fractions:
            what = f"column '{name}' has fractions, such as {fractions[0]}"
            cure = "set task: regression in params.yaml"
            if self.task == "auto":
                cure += ", or classification if these are names of labels"
            raise TableError("data.module.target", what, cure)
        self._seen.update(labels)
        if self.task == NUMBERED and self._seen and self._seen <= FLAGS:
            self._numbered = True
            values = np.array([int(text in ("1", "true")) for text in texts] + [0])
            return values[places], bad
        if self._numbered:
            other = max(self._seen - FLAGS)
            what = f"column '{name}' has 0 and 1, and also {other!r:.80}"
            raise TableError("data.module.target", what, "use 0 and 1, or names for both labels")
        return np.array([*texts, ""], dtype=table_texts.TEXTS)[places], bad

    def _numbers(self, table: pa.Table) -> tuple[np.ndarray, Bad]:
        columns, bad = [], {}
        for name in self.columns:
            kind = table[name].type
            if not table_texts.fits(kind, "numeric"):
                what = f"column '{name}' has values of type {kind}, but task is {self.task}"
                raise TableError("data.module.target", what, "name a column of numbers")
            values, wrong = table_values.numbers(table[name], f"the target {name}")
            missing = np.flatnonzero(np.isnan(values)).tolist()
            bad |= dict.fromkeys(missing, f"the target {name} is missing") | wrong
            if self.task == "multilabel":
                neither = np.flatnonzero(~np.isin(values, (0, 1)) & ~np.isnan(values)).tolist()
                bad |= dict.fromkeys(neither, f"the target {name} is neither 0 nor 1")
            columns.append(values.astype(np.float32))  # NaN where the row is bad
        return (np.stack(columns, axis=1) if self.several else columns[0]), bad

    def check(self) -> None:
        """Check the labels of all rows.

        Raises:
            TableError: If whole numbers have so many values that they may be no labels, or a binary
                task has more than two.
        """
        if self.task == NUMBERED and len(self._seen) > 2:
            known = ", ".join(f"{name:.40}" for name in self.label_order[:5])
            what = f"column '{self.columns[0]}' has {len(self._seen)} labels ({known}), not two"
            raise TableError("data.module.target", what, "set task: classification in params.yaml")
        if (
            self.task == "auto"
            and len(self._seen) > MOST_LABELS
            and all(map(_is_whole, self._seen))
        ):
            what = f"column '{self.columns[0]}' has {len(self._seen)} different whole numbers"
            cure = "set task: classification or regression in params.yaml"
            raise TableError("data.module.target", what, cure)

    @property
    def label_order(self) -> tuple[str, ...]:
        """Names of the labels, sorted: whole numbers by value, before texts."""
        if self.task in NUMBERS or self._numbered:
            return ()
        return tuple(sorted(self._seen, key=_sort_key))


def _sort_key(name: str) -> tuple[bool, int, str]:
    return (not _is_whole(name), int(name) if _is_whole(name) else 0, name)


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,100}", text) is not None


def _is_fraction(text: str) -> bool:
    return re.match(table_values.NUMBER, text) is not None and re.search("[.eE]", text) is not None
