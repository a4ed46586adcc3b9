"""`ColumnDataset`: examples as columns, which `prepare` reads in blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from renate_stages.data.items import ItemReader
from renate_stages.data.metadata_columns import metadata_column
from renate_stages.errors import ColumnLengthError, UnstorableValueError
from renate_stages.memory import Column, ExampleSpec, Ragged
from renate_stages.memory.identity import content_ids
from renate_stages.memory.spec import METADATA, Field, flatten_example, structure_of_example

BLOCK_BYTES = 8 * 2**20
BLOCK_ROWS = 4096

Block = tuple[dict[str, Column], ExampleSpec]


class LazyColumn(ABC):
    """A column of rows that are read when they are needed, such as files.

    Attributes:
        row_bytes: Bytes of a row, about; decides how many rows are read at once.
    """

    row_bytes: int

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, row: int) -> Any:
        """Return one row, in a form that an item of a dataset may have."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> Column:
        """Return rows in the given order, int64 `(n,)`; an array if all have one shape."""


class ColumnDataset(Dataset):
    """Examples whose parts are columns: arrays, tensors or lists with one entry per row.

    `prepare` stores it, or a `Subset` of it, in blocks, which is many times faster than item by item.

        ColumnDataset({"age": ages, "income": incomes}, labels, {"id": ids, "source": sources})

    Args:
        inputs: A column, or a dict or tuple of columns. A column is a tensor or a numeric array
            `(rows, ...)`, a list of numbers, a `Ragged`: arrays of different lengths, or a
            `LazyColumn`.
        targets: The same; or names of labels, a list or an array of texts. Arrays of the dtype
            `numpy.dtypes.StringDType` need the least memory and time.
        metadata: Columns by name: numbers `(rows,)`, or texts.

    Raises:
        ColumnLengthError: If columns differ in length.
        ExampleStructureError: If a dict or tuple is empty, or a key is not a plain name.
    """

    def __init__(
        self, inputs: Any, targets: Any, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.inputs, self.targets = _column_tree(inputs), _column_tree(targets)
        self.metadata = {
            name: _column(each, listed=np.float64) for name, each in (metadata or {}).items()
        }
        columns = flatten_example((self.inputs, self.targets))
        columns |= {METADATA + name: each for name, each in self.metadata.items()}
        first, self._rows = next((path, len(each)) for path, each in columns.items())
        for path, column in columns.items():
            if len(column) != self._rows:
                raise ColumnLengthError(path, len(column), first, self._rows)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> Any:
        if not -self._rows <= row < self._rows:
            raise IndexError(row)
        row %= self._rows
        pair = _row(self.inputs, row), _row(self.targets, row)
        if not self.metadata:
            return pair
        return (*pair, {name: _row(column, row) for name, column in self.metadata.items()})

    @property
    def ragged_fields(self) -> tuple[str, ...]:
        """Paths of the columns whose rows differ in length."""
        columns = flatten_example((self.inputs, self.targets))
        return tuple(path for path, column in columns.items() if isinstance(column, Ragged))


def columns_of(dataset: Dataset) -> tuple[ColumnDataset | None, Tensor | None]:
    """Return a dataset's columns and its rows of them, if it has columns.

    That is a `ColumnDataset`, a `TensorDataset` of two tensors, and any subset of one. Rows are None
    if the dataset is not a subset.
    """
    rows: Tensor | None = None
    while type(dataset) is Subset:
        indices = torch.from_numpy(np.array(dataset.indices, dtype=np.int64))
        rows = indices if rows is None else indices[rows]
        dataset = dataset.dataset
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        return ColumnDataset(*dataset.tensors), rows
    return (dataset, rows) if type(dataset) is ColumnDataset else (None, None)


def column_blocks(
    dataset: ColumnDataset, rows: Tensor | None, reader: ItemReader
) -> Iterator[Block]:
    """Yield the rows of a dataset as blocks of columns.

    Args:
        dataset: The dataset.
        rows: Its rows to read, int64 `(n,)`; None: all.
        reader: Validates values, and numbers names of labels.
    """
    tree = (dataset.inputs, dataset.targets)
    columns = flatten_example(tree)
    everything = [*columns.values(), *dataset.metadata.values()]
    row_bytes = sum(_bytes_per_row(each) for each in everything)
    step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, row_bytes)))
    total = len(dataset) if rows is None else len(rows)
    structure = structure_of_example(tree)
    for start in range(0, total, step):
        part = slice(start, start + step) if rows is None else rows[start : start + step]
        found = {
            path: _values(chosen(column, part), start, path, reader)
            for path, column in columns.items()
        }
        metadata = {
            name: metadata_column(name, chosen(column, part), start, reader)
            for name, column in dataset.metadata.items()
        }
        spec = ExampleSpec.of(ExampleSpec(structure, {}).unflatten(found), metadata)
        yield {**found, **{METADATA + name: each for name, each in metadata.items()}}, spec


def with_ids(columns: dict[str, Column], spec: ExampleSpec) -> Block:
    """Add the ids of the rows' content as metadata `id`, unless the rows have ids."""
    path = METADATA + "id"
    if path in columns:
        return columns, spec
    ids = content_ids({each: columns[each] for each in spec.fields}, spec.fields)
    metadata = {**spec.metadata, path: Field.of(path, ids)}
    return {**columns, path: ids}, ExampleSpec(spec.structure, spec.fields, metadata)


def texts_to_numbers(texts: list[str], number: Callable[[str], Any]) -> np.ndarray:
    """Return `number` of each text, called once for each different text, in order of appearance."""
    known = {text: number(text) for text in dict.fromkeys(texts)}
    return np.array([known[text] for text in texts])


def _column_tree(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _column_tree(each) for key, each in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map(_column_tree, tree))
    return _column(tree)


def _column(column: Any, listed: type = np.float32) -> Any:
    """Return a column as a tensor, a numeric array, `Ragged`, or an array of objects such as texts.

    Args:
        column: The column.
        listed: The dtype of a list of floats, that of single items: float32, in metadata float64.
    """
    if isinstance(column, Tensor | Ragged | LazyColumn):
        return column
    array = np.asarray(column)
    if array.dtype.kind == "T":
        return array
    if array.dtype.kind in "biufc":
        is_list = isinstance(column, list) and array.dtype == np.float64
        return array.astype(listed) if is_list else array
    values = column if isinstance(column, list) else array.tolist()
    objects = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # assigning a list at once would join nested ones
        objects[row] = value
    return objects


def _row(tree: Any, row: int) -> Any:
    if isinstance(tree, dict):
        return {key: _row(each, row) for key, each in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_row(each, row) for each in tree)
    if isinstance(tree, Ragged) and tree.decoder:
        return tree[row].tobytes()  # as items contain encoded images
    return tree[row]


def chosen(column: Any, rows: slice | Tensor | None) -> Any:
    """Return rows of a column of a `ColumnDataset`; None: all."""
    if rows is None:
        return column
    if isinstance(column, LazyColumn):
        is_slice = isinstance(rows, slice)
        return column.take(np.arange(len(column))[rows] if is_slice else rows.numpy())
    if isinstance(column, Ragged):
        if isinstance(rows, Tensor):
            return column.take(rows.numpy())
        start, stop, _ = rows.indices(len(column))
        return column.part(start, stop)
    if isinstance(rows, slice) or isinstance(column, Tensor):
        return column[rows]
    return column[rows.numpy()]


def _bytes_per_row(column: Any) -> int:
    if isinstance(column, LazyColumn):
        return column.row_bytes
    if isinstance(column, Ragged):
        return column.values.nbytes // max(1, len(column))
    size = column.element_size() if isinstance(column, Tensor) else column.itemsize
    return size * int(np.prod(column.shape[1:], dtype=np.int64))


def _values(column: Any, start: int, path: str, reader: ItemReader) -> Column:
    """Return rows of an input or target column in the form in which they are stored."""
    if isinstance(column, Ragged):
        values = reader.array(column.values, start, path)
        return Ragged(values, column.offsets, column.decoder)
    if isinstance(column, Tensor) or column.dtype.kind not in "OT":
        return reader.array(column, start, path)
    named = path.startswith("targets") and reader.numbers is not None
    every = column if column.dtype == object or not named else ()
    for place, value in enumerate(every):
        if not (named and isinstance(value, str)):
            raise UnstorableValueError(
                reader.split, start + place, path, f"a {type(value).__name__}", "use numbers"
            )
    assert reader.numbers is not None
    return texts_to_numbers(column.tolist(), reader.numbers).astype(np.int64)
