"""Preprocessing of tables: categories become codes, numbers are scaled, texts become words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from renate_stages.errors import TableError
from renate_stages.memory import ExampleStore, Tree
from renate_stages.preprocessing import table_texts, table_values
from renate_stages.preprocessing.base import Preprocessing, RawColumn
from renate_stages.preprocessing.other_names import OtherNames
from renate_stages.preprocessing.table_columns import MISSING, UNKNOWN, Categories, Value
from renate_stages.preprocessing.table_fitting import fit_columns
from renate_stages.preprocessing.table_rows import as_table
from renate_stages.preprocessing.table_text_columns import PART, TextColumns
from renate_stages.preprocessing.table_values import Bad
from renate_stages.preprocessing.text_settings import TextSettings

Kind = Literal["numeric", "boolean", "date", "categorical", "text"]
KINDS: tuple[Kind, ...] = ("numeric", "boolean", "date", "categorical", "text")
RAW_KINDS: dict[Kind, Literal["number", "boolean", "date", "category", "text"]] = {
    "numeric": "number",
    "boolean": "boolean",
    "date": "date",
    "categorical": "category",
    "text": "text",
}
CLIP = 10.0  # largest scaled number, in standard deviations


class TablePreprocessing(Preprocessing):
    """What is fitted on a table.

    A number x becomes (x - mean) / scale, with mean and standard deviation of the training rows of the
    first update, limited to [-10, 10]. A missing number becomes 0, and a second input is 1. A date
    becomes five numbers; see `table_values.DATE_PARTS`. A category gets a code; one that no training
    row had is read as unknown, until an update trains on it. A text becomes the ids of its words, by a
    vocabulary for each column.

    Args:
        columns: The kind of each input column, by name, in order.
        settings: How the texts of text columns become ids; None: the defaults.

    Attributes:
        other_names: Other names of its columns in raw rows. They are not fitted.
    """

    kind = "table"
    equal_is_same = False

    def __init__(self, columns: Mapping[str, Kind], settings: TextSettings | None = None) -> None:
        self.columns = dict(columns)
        self.values = [
            Value(f"{name} ({part})" if part else name)
            for name, kind in self.columns.items()
            for part in _parts(kind)
        ]
        self.categories = [
            Categories(name) for name, kind in self.columns.items() if kind == "categorical"
        ]
        texts = [name for name, kind in self.columns.items() if kind == "text"]
        self.texts = TextColumns(texts, settings)
        self.other_names = OtherNames(self.columns)
        self._constants: dict[torch.device, dict[str, Tensor]] = {}

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all stored numbers and codes: numbers, then categories."""
        return tuple(each.name for each in (*self.values, *self.categories))

    @property
    def date_features(self) -> tuple[str, ...]:
        """Names of the stored values that come from dates, which grow in each update."""
        kinds = self.columns.values()
        parts = [kind for kind in kinds for _ in _parts(kind)]
        values = zip(self.values, parts, strict=True)
        return tuple(value.name for value, kind in values if kind == "date")

    def summary(self) -> str:
        """Return the input columns by their kinds, so that a wrong guess is seen at once."""
        kinds = dict.fromkeys(self.columns.values())
        parts = [
            f"{kind} {', '.join(name for name, its in self.columns.items() if its == kind)}"
            for kind in kinds
        ]
        return f"input columns: {'; '.join(parts)}"

    # -- raw rows ---------------------------------------------------------------------------------

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """The input columns, whose values may all be missing."""
        others = self.other_names.of
        pairs = self.columns.items()
        return tuple(RawColumn(name, RAW_KINDS[kind], True, others(name)) for name, kind in pairs)

    def encode(self, rows: Any) -> Tree:
        """Return raw rows as stored inputs; unknown categories get the code 0.

        Args:
            rows: A DataFrame, an Arrow table, a list of dicts or a dict of lists, with a value for
                each input column, under one of its names; other columns are ignored.

        Raises:
            TableError: If a column is missing or there twice, or a value cannot be read.
        """
        table = self.other_names.resolved(as_table(rows))
        self.check_types(table, "rows")
        inputs, bad = self.numbers(table)
        texts, wrong = self.texts.stored(table)
        if bad := {**wrong, **bad}:
            row, reason = min(bad.items())
            raise TableError(f"row {row}", reason, "correct the value, or pass null")
        return {**inputs, **self.codes(table), **texts}

    def check_types(self, table: Any, where: str) -> None:
        """Check that the columns of an Arrow table have types that fit their kinds.

        Args:
            table: The table, which has all columns.
            where: What it is, for messages.

        Raises:
            TableError: If a column is of another type, such as a list, or a number for a date.
        """
        for name, kind in self.columns.items():
            found = table[name].type
            if not table_texts.fits(found, kind):
                cure = "store texts of ISO 8601, dates or timestamps"
                if kind != "date":
                    cure = "store numbers, texts or booleans, as in earlier files"
                problem = f"column '{name}' is of kind {kind}, but has values of type {found}"
                raise TableError(where, problem, cure)

    def numbers(self, table: Any) -> tuple[dict[str, np.ndarray], Bad]:
        """Return the numbers of an Arrow table, and the reason for each row that cannot be read.

        Returns:
            "numeric" float32 `(rows, n)`, NaN where missing; an empty dict without such columns.
        """
        if not self.values:
            return {}, {}
        stored = np.empty((len(table), len(self.values)), np.float32)
        bad, place = {}, 0
        for name, kind in self.columns.items():
            if kind in ("categorical", "text"):
                continue
            values, wrong = table_values.CONVERSIONS[kind](table[name], name)
            bad = {**wrong, **bad}
            if kind == "date":
                values = table_values.date_parts(values)
            width = len(_parts(kind))
            stored[:, place : place + width] = values.reshape(-1, width)
            place += width
        return {"numeric": stored}, bad

    def codes(self, table: Any, grow: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return the categories of an Arrow table.

        Args:
            table: The table.
            grow: Rows whose new categories get a code, int64 `(n,)`; those of others are unknown.

        Returns:
            "categorical" int32 `(rows, c)`; an empty dict without such columns.
        """
        if not self.categories:
            return {}
        stored = np.empty((len(table), len(self.categories)), np.int32)
        for place, column in enumerate(self.categories):
            texts, places = table_texts.dictionary_of(table[column.name])
            if grow is not None:
                used = np.zeros(len(texts) + 1, bool)
                used[places[grow]] = True
                for text in (texts[each] for each in np.flatnonzero(used[:-1])):
                    column.add(text)
            codes = np.array([column.codes.get(text, UNKNOWN) for text in texts] + [MISSING])
            stored[:, place] = codes[places]
        return {"categorical": stored}

    # -- fitting ----------------------------------------------------------------------------------

    def fit(self, train: ExampleStore) -> dict[str, Any]:
        """Fit means and scales that are not fitted yet, and mark the categories as trained.

        Returns:
            By column: new categories, and those that differ from others only in case or spaces;
            values outside the range of the first update; the share of missing values; the smallest
            difference that float32 keeps, where that is coarse; and for texts, the number of new words
            and the share of words that were unknown before.
        """
        self._constants.clear()
        found = fit_columns(self.values, self.categories, train)
        for what, columns in self.texts.fit(train).items() if self.texts else ():
            found.setdefault(what, {}).update(columns)
        return {what: columns for what, columns in found.items() if columns}

    def sizes(self) -> dict[str, Any]:
        """Return `num_numeric`; `cardinalities`: the number of codes of each category column; and, if
        there are text columns, `vocab_sizes`: the number of ids of each."""
        cardinalities = [len(each.names) + 2 for each in self.categories]
        sizes = {"num_numeric": len(self.values), "cardinalities": cardinalities}
        return sizes | self.texts.sizes()

    # -- inputs of the model ----------------------------------------------------------------------

    def transform(self, stored: Tree) -> dict[str, Any]:
        """Return "numeric" and "missing" float32 `(B, n)`, "categorical" int64 `(B, c)`, and "text".

        "text" is a tuple with `{"input_ids", "attention_mask"}`, int64 `(B, T)`, for each text column.
        """
        inputs: dict[str, Any] = self._of_columns(stored) if self.feature_names else {}
        return inputs | ({PART: self.texts.transform(stored[PART])} if self.texts else {})

    def _of_columns(self, stored: Tree) -> dict[str, Tensor]:
        device = stored["numeric" if self.values else "categorical"].device
        if device not in self._constants:
            self._constants[device] = {
                name: each.to(device) for name, each in self._fitted_tensors().items()
            }
        fitted, inputs = self._constants[device], {}
        if self.values:
            numbers = stored["numeric"].float()
            missing = numbers.isnan()
            scaled = ((numbers - fitted["mean"]) / fitted["scale"]).clamp(-CLIP, CLIP)
            inputs["numeric"] = torch.where(missing, 0.0, scaled)
            inputs["missing"] = missing.float()
        if self.categories:
            codes = stored["categorical"].long()
            inside = codes < fitted["lengths"]
            places = fitted["offsets"] + torch.where(inside, codes, UNKNOWN)
            inputs["categorical"] = torch.where(fitted["trained"][places], codes, UNKNOWN)
        return inputs

    def _fitted_tensors(self) -> dict[str, Tensor]:
        lengths = [len(each.names) + 2 for each in self.categories]
        trained = [known for each in self.categories for known in (False, *each.trained)]
        return {
            "mean": torch.tensor([each.mean or 0.0 for each in self.values], dtype=torch.float32),
            "scale": torch.tensor([each.scale for each in self.values], dtype=torch.float32),
            "lengths": torch.tensor(lengths, dtype=torch.int64),
            "offsets": torch.tensor([0, *np.cumsum(lengths)[:-1]], dtype=torch.int64)
            if lengths
            else torch.zeros(0, dtype=torch.int64),
            "trained": torch.tensor(trained, dtype=torch.bool),
        }

    # -- files ------------------------------------------------------------------------------------

    def content(self) -> dict[str, Any]:
        """Return columns, values, categories and words as JSON values."""
        return {
            "columns": [{"name": name, "kind": kind} for name, kind in self.columns.items()],
            "values": [asdict(each) for each in self.values],
            "categories": [asdict(each) for each in self.categories],
            **({"texts": self.texts.content()} if self.texts else {}),
            **({"other_names": self.other_names.known} if self.other_names.known else {}),
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> TablePreprocessing:
        columns = {str(each["name"]): each["kind"] for each in content["columns"]}
        if wrong := sorted(set(columns.values()) - set(KINDS)):
            raise ValueError(f"unknown kind of column: {wrong[0]!r:.80}")
        made = cls(columns)
        values = [Value(**each) for each in content["values"]]
        categories = [Categories(**each) for each in content["categories"]]
        names = [[each.name for each in some] for some in (values, categories)]
        texts = TextColumns.from_content(content.get("texts", ()), folder)
        if names != [[each.name for each in some] for some in (made.values, made.categories)]:
            raise ValueError("values and categories do not belong to its columns")
        if texts.names != made.texts.names:
            raise ValueError("texts do not belong to its columns")
        for each in (*values, *categories):
            each.check()
        made.values, made.categories, made.texts = values, categories, texts
        made.other_names = OtherNames(columns, content.get("other_names"))
        return made

    def problem_reading(self, writer: Preprocessing) -> str | None:
        """Return why codes and numbers of `writer` have another meaning here; None if they do not."""
        if not isinstance(writer, TablePreprocessing):
            return super().problem_reading(writer)
        if list(self.columns.items()) != list(writer.columns.items()):
            return "it has other columns"
        for own, other in zip(self.categories, writer.categories, strict=True):
            for one, two in zip(own.names, other.names, strict=False):
                if one != two:
                    return f"a code of column '{own.name}' means {one!r:.80} and {two!r:.80}"
        return None


def _parts(kind: Kind) -> tuple[str, ...]:
    """Return the parts of a column that are numbers; an empty name for the column itself."""
    if kind in ("categorical", "text"):
        return ()
    return table_values.DATE_PARTS if kind == "date" else ("",)
