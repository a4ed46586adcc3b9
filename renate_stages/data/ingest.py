"""Write any dataset of `(inputs, targets)` to a store of examples, block by block."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from renate_stages.data.items import Item, ItemReader
from renate_stages.errors import EmptyDatasetError, ItemMismatchError, user_code
from renate_stages.memory import Column, ExampleSpec, ExampleStore, Ragged, StoreWriter
from renate_stages.memory.identity import content_ids
from renate_stages.memory.spec import METADATA, Field

_BLOCK_BYTES = 8 * 2**20
_BLOCK_ROWS = 4096

Columns = dict[str, Column]
Unwanted = Callable[[Columns, ExampleSpec], np.ndarray]


def ingest(
    dataset: Dataset,
    path: Path,
    update: int,
    split: str,
    *,
    ragged: Collection[str] = (),
    unwanted: Sequence[Unwanted] = (),
    numbers: Callable[[Any], Any] | None = None,
) -> ExampleStore:
    """Write every item of a dataset, in order, to a new store.

    Each example's metadata gets its id, given or computed from its content, and the update's number.

    Args:
        dataset: Items `(inputs, targets)`, each a tensor, a numeric array or a Python number, the
            bytes of a JPEG or PNG file, or dicts, tuples or lists of these. Integers become int64,
            floats float32; lists and named tuples become tuples. A third part may be a dict of
            metadata: `id`, `source`, and other numbers or short texts. A `TensorDataset` of two
            tensors, or a subset of one, is copied in blocks instead of item by item.
        path: Folder of the store; must not exist or be empty.
        update: Number of the update.
        split: "train", "val" or "test", for messages.
        ragged: Paths, such as `inputs.input_ids`, whose first dimension varies between items.
        unwanted: Functions that return which rows of a block to leave out, bool `(rows,)`; each gets
            the rows that the one before has left.
        numbers: Replaces names of labels in the targets of an item by numbers; see `ItemReader`.

    Raises:
        EmptyDatasetError: If the dataset has no items.
        NotAPairError: If an item is not a pair.
        UnstorableValueError: If an item contains another type, such as a string or an image object.
        InvalidMetadataError: If metadata cannot be stored.
        ItemMismatchError: If an item differs from item 0 in structure, dtype or shape.
        UnknownFieldError: If items do not have a part that is listed in `ragged`.
        ExampleStructureError: If a dict or tuple is empty, or a key is not a plain name.
    """
    reader = ItemReader(split, ragged, numbers)
    tensors, rows = tensors_of(dataset)
    if tensors is None or ragged:
        blocks = _item_blocks(dataset, reader)
    else:
        blocks = _tensor_blocks(tensors, rows, reader)
    empty = True
    with StoreWriter(path, update) as writer:
        for columns, spec in blocks:
            empty = False
            columns, spec = _with_origin(columns, spec, update)
            for each in unwanted:
                out = each(columns, spec)
                columns = {name: _where(column, ~out) for name, column in columns.items()}
            writer.append_columns(columns, spec)
        if empty:
            raise EmptyDatasetError(split)
    return ExampleStore.open(path)


def _with_origin(columns: Columns, spec: ExampleSpec, update: int) -> tuple[Columns, ExampleSpec]:
    """Add the metadata that every example has: `id` and `update`."""
    rows = len(next(iter(columns.values())))
    added: Columns = {METADATA + "update": np.full(rows, update, np.int32)}
    if METADATA + "id" not in columns:
        examples = {path: columns[path] for path in spec.fields}
        added[METADATA + "id"] = content_ids(examples, spec.fields)
    fields = {path: Field.of(path, column) for path, column in added.items()}
    metadata = dict(sorted({**spec.metadata, **fields}.items()))
    return {**columns, **added}, ExampleSpec(spec.structure, spec.fields, metadata)


def _where(column: Column, mask: np.ndarray) -> Column:
    return column.take(np.flatnonzero(mask)) if isinstance(column, Ragged) else column[mask]


def tensors_of(dataset: Dataset) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
    """Return tensors and rows of a `TensorDataset` of two tensors, or of subsets of one.

    Rows are None if the dataset is not a subset; for other datasets both are None.
    """
    rows: Tensor | None = None
    while type(dataset) is Subset:
        indices = torch.as_tensor(dataset.indices, dtype=torch.int64)
        rows = indices if rows is None else indices[rows]
        dataset = dataset.dataset
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        inputs, targets = dataset.tensors
        return (inputs, targets), rows
    return None, None


def _tensor_blocks(
    tensors: tuple[Tensor, Tensor], rows: Tensor | None, reader: ItemReader
) -> Iterator[tuple[Columns, ExampleSpec]]:
    total = len(tensors[0]) if rows is None else len(rows)
    row_bytes = sum(t[:1].numel() * t.element_size() for t in tensors)
    step = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // max(1, row_bytes)))
    for start in range(0, total, step):
        block = slice(start, start + step)
        chosen = block if rows is None else rows[block]
        columns: Columns = {
            name: reader.array(tensor[chosen], start, name)
            for tensor, name in zip(tensors, ("inputs", "targets"), strict=True)
        }
        yield columns, ExampleSpec.of((columns["inputs"], columns["targets"]))


def _item_blocks(dataset: Dataset, reader: ItemReader) -> Iterator[tuple[Columns, ExampleSpec]]:
    """Yield blocks of copied items, because a dataset may reuse the arrays it returns."""
    spec: ExampleSpec | None = None
    unknown: set[str] = set()  # paths whose dtype is unknown, because all rows so far are empty
    named: bool | None = None
    block: list[dict[str, np.ndarray]] = []
    nbytes = 0
    for index, each in enumerate(_items(dataset, reader.split)):
        item = reader.read(each, index)
        if spec is None:
            spec, unknown = reader.spec(item), reader.empty(item)
        elif unknown and (found := unknown - reader.empty(item)):
            spec, unknown = reader.with_dtypes(spec, item, found), unknown - found
        reader.require(item, spec, index)
        if named is not None and item.named is not None and named != item.named:
            kinds = ("a number", "a name")
            raise ItemMismatchError(
                reader.split, index, "its label", kinds[bool(item.named)], kinds[named]
            )
        named = item.named if named is None else named
        row = _row(item)
        block.append(row)
        nbytes += sum(value.nbytes for value in row.values())
        if not unknown and (len(block) >= _BLOCK_ROWS or nbytes >= _BLOCK_BYTES):
            yield _stacked(block, spec), spec
            block, nbytes = [], 0
    if spec is not None and block:
        yield _stacked(block, spec), spec


def _row(item: Item) -> dict[str, np.ndarray]:
    metadata = {METADATA + name: value for name, value in item.metadata.items()}
    return {path: value.copy() for path, value in {**item.values, **metadata}.items()}


def _stacked(block: list[dict[str, np.ndarray]], spec: ExampleSpec) -> Columns:
    columns: Columns = {}
    for path, field in spec.all_fields.items():
        values = [row[path] for row in block]
        if field.ragged:
            values = [
                value.astype(field.dtype, copy=False) if value.size else _nothing(field)
                for value in values
            ]
            columns[path] = Ragged.of(values, field.decoder)
        else:
            columns[path] = np.stack(values)
    return columns


def _nothing(field: Field) -> np.ndarray:
    """Return an empty row of a ragged field; an empty list has no shape or dtype of its own."""
    return np.empty((0, *field.shape), field.dtype)


def _items(dataset: Any, split: str) -> Iterator[Any]:
    """Yield the items of a dataset; errors name the item and the line in the user's code."""
    index = 0
    try:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            for item in dataset:
                yield item
                index += 1
            return
        for index in range(len(dataset)):
            yield dataset[index]
    except Exception as error:  # noqa: BLE001 -- raised again as the user's error
        what = f"data_module_fn, {split} data, item {index}"
        user_code.fail(what, error)
