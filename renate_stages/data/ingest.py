"""Write any dataset of `(inputs, targets)` to a store of examples, block by block."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from renate_stages.data.columns import column_blocks, columns_of, with_ids
from renate_stages.data.item_workers import item_blocks
from renate_stages.data.items import ItemReader
from renate_stages.errors import EmptyDatasetError
from renate_stages.memory import Column, ExampleSpec, ExampleStore, Ragged, StoreWriter
from renate_stages.memory.spec import METADATA, Field

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
    num_workers: int = 0,
) -> ExampleStore:
    """Write every item of a dataset, in order, to a new store.

    Each example's metadata gets its id, given or computed from its content, and the update's number.

    Args:
        dataset: Items `(inputs, targets)`, each a tensor, a numeric array or a Python number, the
            bytes of a JPEG or PNG file, or dicts, tuples or lists of these. Integers become int64,
            floats float32; lists and named tuples become tuples. A third part may be a dict of
            metadata: `id`, `source`, and other numbers or short texts. A `ColumnDataset`, a
            `TensorDataset` of two tensors, and subsets of one are copied in blocks, unless `ragged`
            lists a column of theirs that is not `Ragged`.
        path: Folder of the store; must not exist or be empty.
        update: Number of the update.
        split: "train", "val" or "test", for messages.
        ragged: Paths, such as `inputs.input_ids`, whose first dimension varies between items.
        unwanted: Functions that return which rows of a block to leave out, bool `(rows,)`; each gets
            the rows that the one before has left.
        numbers: Replaces names of labels in the targets of an item by numbers; see `ItemReader`.
        num_workers: Processes that read items; 0: this process reads them. The files of the store do
            not depend on it. Datasets without a length, and columns, are read by this process.

    Raises:
        EmptyDatasetError: If the dataset has no items.
        NotAPairError: If an item is not a pair.
        UnstorableValueError: If an item contains another type, such as a string or an image object.
        InvalidMetadataError: If metadata cannot be stored.
        ItemMismatchError: If an item differs from item 0 in structure, dtype or shape.
        UnknownFieldError: If items do not have a part that is listed in `ragged`.
        ExampleStructureError: If a dict or tuple is empty, or a key is not a plain name.
        DrawingItemsError: If workers read items that draw random numbers.
        UnreadableByWorkersError: If a worker cannot read items.
    """
    reader = ItemReader(split, ragged, numbers)
    source, rows = columns_of(dataset)
    if source is None or not set(ragged) <= set(source.ragged_fields):
        blocks = item_blocks(dataset, reader, num_workers)
    else:
        blocks = column_blocks(source, rows, reader)
    stored: Future[None] | None = None
    # A thread stores a block while this one reads the next: hashing and writing release Python's lock.
    with StoreWriter(path, update) as writer, ThreadPoolExecutor(1) as thread:
        for columns, spec in blocks:
            if stored is not None:
                stored.result()
            stored = thread.submit(_store, writer, columns, spec, update, unwanted)
        if stored is None:
            raise EmptyDatasetError(split)
        stored.result()
    return ExampleStore.open(path)


def _store(
    writer: StoreWriter,
    columns: Columns,
    spec: ExampleSpec,
    update: int,
    unwanted: Sequence[Unwanted],
) -> None:
    """Append the wanted rows of a block."""
    columns, spec = _with_origin(columns, spec, update)
    for each in unwanted:
        out = each(columns, spec)
        columns = {name: _where(column, ~out) for name, column in columns.items()}
    writer.append_columns(columns, spec)


def _with_origin(columns: Columns, spec: ExampleSpec, update: int) -> tuple[Columns, ExampleSpec]:
    """Add the metadata that every example has: `id` and `update`."""
    columns, spec = with_ids(columns, spec)
    path, rows = METADATA + "update", len(next(iter(columns.values())))
    columns = {**columns, path: np.full(rows, update, np.int32)}
    metadata = {**spec.metadata, path: Field.of(path, columns[path])}
    return columns, ExampleSpec(spec.structure, spec.fields, dict(sorted(metadata.items())))


def _where(column: Column, mask: np.ndarray) -> Column:
    return column.take(np.flatnonzero(mask)) if isinstance(column, Ragged) else column[mask]
