"""Preprocessing of tables: categories become codes, numbers are scaled, missing values are marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from renate_stages.errors import TableError
from renate_stages.files import typed
from renate_stages.memory import ExampleStore, Tree
from renate_stages.preprocessing import table_values
from renate_stages.preprocessing.base import Preprocessing, RawColumn

Kind = Literal["numeric", "boolean", "date", "categorical"]
KINDS: tuple[Kind, ...] = ("numeric", "boolean", "date", "categorical")
RAW_KINDS: dict[Kind, Literal["number", "boolean", "date", "category"]] = {
    "numeric": "number",
    "boolean": "boolean",
    "date": "date",
    "categorical": "category",
}
UNKNOWN, MISSING = 0, 1  # codes; that of a category is its place plus 2
CLIP = 10.0  # largest scaled number, in standard deviations
BLOCK = 65536  # rows


@dataclass
class Value:
    """A number that the model gets, and what was fitted on it.

    Args:
        name: Name of the column; of a date, with the part in brackets.
        mean: Mean of the training rows of the first update with a value; None: none has one yet.
        scale: Their standard deviation, or 1 if they are all equal.
        low: Their smallest value.
        high: Their largest value.
    """

    name: str
    mean: float | None = None
    scale: float = 1.0
    low: float | None = None
    high: float | None = None


@dataclass
class Categories:
    """A categorical column, and its categories in the order of their codes.

    Args:
        name: Name of the column.
        names: The categories.
        trained: For "missing" and each category, whether training rows of an update had it.
    """

    name: str
    names: list[str] = field(default_factory=list)
    trained: list[bool] = field(default_factory=lambda: [False])

    def __post_init__(self) -> None:
        self.codes = {name: code for code, name in enumerate(self.names, start=2)}

    def add(self, name: str) -> None:
        """Add a category with the next code, if it is not there."""
        if name not in self.codes:
            self.codes[name] = len(self.names) + 2
            self.names.append(name)
            self.trained.append(False)


class TablePreprocessing(Preprocessing):
    """What is fitted on a table.

    A number x becomes (x - mean) / scale, with the mean and the standard deviation of the training
    rows of the first update, limited to [-10, 10]. A missing number becomes 0, and a second input is
    1. A date becomes five numbers; see `table_values.DATE_PARTS`. A category gets a code; one that no
    training row had is read as unknown, until an update trains on it.

    Args:
        columns: The kind of each input column, by name, in order.
    """

    kind = "table"

    def __init__(self, columns: Mapping[str, Kind]) -> None:
        self.columns = dict(columns)
        self.values = [
            Value(f"{name} ({part})" if part else name)
            for name, kind in self.columns.items()
            for part in _parts(kind)
        ]
        self.categories = [
            Categories(name) for name, kind in self.columns.items() if kind == "categorical"
        ]
        self._constants: dict[torch.device, dict[str, Tensor]] = {}

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all stored values: numbers, then categories."""
        return tuple(each.name for each in (*self.values, *self.categories))

    # -- raw rows ---------------------------------------------------------------------------------

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """The input columns, whose values may all be missing."""
        return tuple(
            RawColumn(name, RAW_KINDS[kind], optional=True) for name, kind in self.columns.items()
        )

    def encode(self, rows: Any) -> dict[str, np.ndarray]:
        """Return raw rows as stored inputs; unknown categories get the code 0.

        Args:
            rows: A DataFrame, an Arrow table, a list of dicts or a dict of lists, with a value for
                each input column; other columns are ignored.

        Raises:
            TableError: If a column is missing, or a value cannot be read.
        """
        table = as_table(rows)
        if lacking := [name for name in self.columns if name not in table.column_names]:
            cure = "pass a value, or null, for each column that the model was trained with"
            raise TableError("rows", f"columns are missing: {', '.join(lacking)}", cure)
        inputs, bad = self.stored(table, grow=False)
        if bad:
            row, reason = min(bad.items())
            raise TableError(f"row {row}", reason, "correct the value, or pass null")
        return inputs

    def stored(self, table: Any, *, grow: bool) -> tuple[dict[str, np.ndarray], table_values.Bad]:
        """Return the input columns of an Arrow table as stored inputs.

        Args:
            table: The table.
            grow: Whether new categories get a code; otherwise they are unknown.

        Returns:
            "numeric" float32 `(rows, n)`, NaN where missing; "categorical" int32 `(rows, c)`; those
            of the two that have columns. And the reason for each row that cannot be read.
        """
        numbers, codes, bad = [], [], {}
        known = {each.name: each for each in self.categories}
        for name, kind in self.columns.items():
            if kind == "categorical":
                codes.append(_codes(known[name], table[name], grow))
                continue
            values, wrong = table_values.CONVERSIONS[kind](table[name], name)
            bad |= {row: reason for row, reason in wrong.items() if row not in bad}
            numbers.append(table_values.date_parts(values) if kind == "date" else values[:, None])
        inputs = {}
        if numbers:
            inputs["numeric"] = np.concatenate(numbers, axis=1).astype(np.float32)
        if codes:
            inputs["categorical"] = np.stack(codes, axis=1).astype(np.int32)
        return inputs, bad

    # -- fitting ----------------------------------------------------------------------------------

    def fit(self, train: ExampleStore) -> dict[str, Any]:
        """Fit means and scales that are not fitted yet, and mark the categories as trained.

        Returns:
            By column: new categories, values outside the range of the first update, and the share of
            missing values.
        """
        self._constants.clear()
        new = [_Moments() for _ in self.values]
        found: dict[str, dict[str, float]] = {
            "new_categories": {},
            "outside_range": {},
            "missing": {},
        }
        for block in _blocks(train, "inputs.numeric") if self.values else ():
            for place, value in enumerate(self.values):
                new[place].add(block[:, place].astype(np.float64))
                if value.low is not None and value.high is not None:
                    outside = (block[:, place] < value.low) | (block[:, place] > value.high)
                    _count(found["outside_range"], value.name, int(outside.sum()))
        for value, moments in zip(self.values, new, strict=True):
            _count(found["missing"], value.name, moments.missing / max(1, len(train)))
            if value.mean is None and moments.count:
                value.mean, value.scale = moments.mean, moments.deviation
                value.low, value.high = moments.low, moments.high
        had_some = any(any(each.trained) for each in self.categories)
        for block in _blocks(train, "inputs.categorical") if self.categories else ():
            for place, column in enumerate(self.categories):
                codes, counts = np.unique(block[:, place], return_counts=True)
                for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
                    if code == MISSING:
                        _count(found["missing"], column.name, count / len(train))
                    if not column.trained[code - 1]:
                        column.trained[code - 1] = True
                        _count(
                            found["new_categories"], column.name, int(had_some and code > MISSING)
                        )
        return {what: columns for what, columns in found.items() if columns}

    def sizes(self) -> dict[str, Any]:
        """Return `num_numeric`, and `cardinalities`: the number of codes of each category column."""
        cardinalities = [len(each.names) + 2 for each in self.categories]
        return {"num_numeric": len(self.values), "cardinalities": cardinalities}

    # -- inputs of the model ----------------------------------------------------------------------

    def transform(self, stored: Tree) -> dict[str, Tensor]:
        """Return "numeric" and "missing" float32 `(B, n)`, and "categorical" int64 `(B, c)`."""
        device = next(iter(stored.values())).device
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
        """Return columns, values and categories as JSON values."""
        return {
            "columns": [{"name": name, "kind": kind} for name, kind in self.columns.items()],
            "values": [asdict(each) for each in self.values],
            "categories": [asdict(each) for each in self.categories],
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
        if names != [[each.name for each in some] for some in (made.values, made.categories)]:
            raise ValueError("values and categories do not belong to its columns")
        for value in values:
            figures = (value.mean, value.scale, value.low, value.high)
            if not all(each is None or typed.is_number(each) for each in figures):
                raise ValueError(f"the figures of {value.name!r:.80} are not numbers")
            if value.scale <= 0:
                raise ValueError(f"the scale of {value.name!r:.80} is not above 0")
        for each in categories:
            fits = len(each.trained) == len(each.names) + 1 and len(each.codes) == len(each.names)
            if not fits or not all(isinstance(name, str) for name in each.names):
                raise ValueError(f"the categories of {each.name!r:.80} are not valid")
        made.values, made.categories = values, categories
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


class _Moments:
    """Count, mean and deviation of a column, from blocks; NaN is left out.

    Chan et al., "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    def __init__(self) -> None:
        self.count, self.missing, self.mean, self._squares = 0, 0, 0.0, 0.0
        self.low, self.high = np.inf, -np.inf

    def add(self, block: np.ndarray) -> None:
        """Add values, float64 `(rows,)`."""
        known = block[~np.isnan(block)]
        self.missing += len(block) - len(known)
        if not len(known):
            return
        mean, distance = float(known.mean()), float(known.mean()) - self.mean
        total = self.count + len(known)
        self._squares += float(((known - mean) ** 2).sum())
        self._squares += distance**2 * self.count * len(known) / total
        self.mean += distance * len(known) / total
        self.count = total
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 if all values are equal."""
        deviation = (self._squares / max(1, self.count)) ** 0.5
        return deviation if deviation > 1e-12 * max(1.0, abs(self.mean)) else 1.0


def as_table(rows: Any) -> Any:
    """Return rows as an Arrow table.

    Args:
        rows: An Arrow table, a DataFrame, a list of dicts, or a dict of lists.

    Raises:
        TableError: If they have another form, or a column has values of several types.
    """
    import pyarrow as pa

    try:
        if isinstance(rows, pa.Table):
            return rows
        if isinstance(rows, Mapping):
            return pa.table({name: _array(list(each)) for name, each in rows.items()})
        if isinstance(rows, Sequence) and all(isinstance(each, Mapping) for each in rows):
            names = dict.fromkeys(name for each in rows for name in each)
            return pa.table({name: _array([each.get(name) for each in rows]) for name in names})
        if hasattr(rows, "columns") and hasattr(rows, "index"):
            return pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise TableError("rows", f"{error}", "give all values of a column one type") from error
    cure = "pass a DataFrame, an Arrow table, a list of dicts or a dict of lists"
    raise TableError("rows", f"found a {type(rows).__name__}", cure)


def _array(values: list[Any]) -> Any:
    import pyarrow as pa

    return pa.array(values, from_pandas=True)  # NaN among texts is a missing value


def _parts(kind: Kind) -> tuple[str, ...]:
    """Return the parts of a column that are numbers; an empty name for the column itself."""
    if kind == "categorical":
        return ()
    return table_values.DATE_PARTS if kind == "date" else ("",)


def _codes(column: Categories, values: Any, grow: bool) -> np.ndarray:
    """Return the codes of a column's values, int64 `(rows,)`."""
    texts, places = table_values.dictionary_of(values)
    if grow:
        for text in sorted(set(texts).difference(column.codes)):
            column.add(text)
    codes = np.array([column.codes.get(text, UNKNOWN) for text in texts] + [MISSING])
    return codes[places]


def _count(counts: dict[str, float], name: str, more: float) -> None:
    if more:
        counts[name] = counts.get(name, 0) + more


def _blocks(store: ExampleStore, path: str) -> Iterator[np.ndarray]:
    for start in range(0, len(store), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(store)))
        yield store.columns(rows, [path])[path]  # type: ignore[misc]
