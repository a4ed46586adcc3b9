"""Write any dataset of `(inputs, targets)` into a store of examples, streaming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from renate_stages.errors import (
    EmptyDatasetError,
    ItemMismatchError,
    NotAPairError,
    UnstorableValueError,
)
from renate_stages.memory import ExampleSpec, ExampleStore, StoreWriter, Tree
from renate_stages.memory.spec import flatten_example, outline, structure_of_example

_BLOCK_BYTES = 8 * 2**20


def ingest(dataset: Dataset, path: Path, update: int, split: str) -> ExampleStore:
    """Write every item of a dataset, in order, into a new store.

    Args:
        dataset: Items `(inputs, targets)`, each a tensor, a numeric array or a Python number, or
            dicts, tuples or lists of these. Integers become int64, floats float32; lists and
            named tuples become tuples. A `TensorDataset` of two tensors, and subsets of one, are
            copied in blocks instead of item by item.
        path: Folder of the store; must be absent or empty.
        update: Number of the update.
        split: "train", "val" or "test", for messages.

    Raises:
        EmptyDatasetError: There is no item.
        NotAPairError: An item is not a pair.
        UnstorableValueError: An item holds something else, such as a string or an image object.
        ItemMismatchError: An item differs from item 0 in structure, dtype or shape.
        ExampleStructureError: A dict or tuple is empty, or a key is not a plain name.
    """
    tensors, rows = _tensors_of(dataset)
    blocks = (
        _item_blocks(dataset, split) if tensors is None else _tensor_blocks(tensors, rows, split)
    )
    empty = True
    with StoreWriter(path, update) as writer:
        for block in blocks:
            writer.append(block)
            empty = False
        if empty:
            raise EmptyDatasetError(split)
    return ExampleStore.open(path)


def _tensors_of(dataset: Dataset) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
    """Return a pair of tensors and the rows of them that the dataset is, where it is such a one."""
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
    tensors: tuple[Tensor, Tensor], rows: Tensor | None, split: str
) -> Iterator[Tree]:
    total = len(tensors[0]) if rows is None else len(rows)
    step = _block_rows(sum(t[:1].numel() * t.element_size() for t in tensors))
    for start in range(0, total, step):
        block = slice(start, start + step)
        chosen = block if rows is None else rows[block]
        yield tuple(
            _array(tensor[chosen], split, start, name)
            for tensor, name in zip(tensors, ("inputs", "targets"), strict=True)
        )


def _item_blocks(dataset: Dataset, split: str) -> Iterator[Tree]:
    """Yield blocks of items copied together; a dataset may reuse the arrays it returns."""
    spec: ExampleSpec | None = None
    block: dict[str, np.ndarray] = {}
    filled = 0
    for index, item in enumerate(_items(dataset)):
        values = _values(item, split, index)
        if spec is None:
            spec = ExampleSpec.of(_batch_of_one(item, values))
            rows = _block_rows(spec.row_bytes)
            block = {
                path: np.empty((rows, *field.shape), field.dtype)
                for path, field in spec.fields.items()
            }
        _require_like_first(item, values, spec, split, index)
        for path, value in values.items():
            block[path][filled] = value
        filled += 1
        if filled == rows:
            yield spec.unflatten(block)
            filled = 0
    if spec is not None and filled:
        yield spec.unflatten({path: column[:filled] for path, column in block.items()})


def _items(dataset: Any) -> Iterator[Any]:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        return iter(dataset)
    return (dataset[index] for index in range(len(dataset)))


def _values(item: Any, split: str, index: int) -> dict[str, np.ndarray]:
    """Return an item's arrays by path."""
    if not (isinstance(item, tuple | list) and len(item) == 2):
        found = "None" if item is None else f"a {type(item).__name__}"
        if isinstance(item, tuple | list):
            found += f" of {len(item)}"
        raise NotAPairError(split, index, found)
    return {path: _array(leaf, split, index, path) for path, leaf in flatten_example(item).items()}


def _batch_of_one(item: Any, values: dict[str, np.ndarray]) -> Tree:
    return ExampleSpec(structure_of_example(item), {}).unflatten(
        {path: value[None] for path, value in values.items()}
    )


def _require_like_first(
    item: Any, values: dict[str, np.ndarray], spec: ExampleSpec, split: str, index: int
) -> None:
    structure = structure_of_example(item)
    if structure != spec.structure:
        found, expected = outline(structure), outline(spec.structure)
        raise ItemMismatchError(split, index, "its structure (inputs, targets)", found, expected)
    for path, field in spec.fields.items():
        value = values[path]
        if value.shape != field.shape or value.dtype != field.dtype:
            found = f"{value.dtype} {value.shape}"
            raise ItemMismatchError(split, index, path, found, str(field))


def _array(leaf: Any, split: str, index: int, path: str) -> np.ndarray:
    """Return one leaf of an item as an array."""
    if isinstance(leaf, Tensor):
        try:
            return leaf.detach().cpu().numpy()
        except (RuntimeError, TypeError) as error:
            found = f"a {leaf.layout} tensor of {leaf.dtype}"
            cure = "return a dense tensor of a dtype that NumPy has, with .to_dense() or .float()"
            raise UnstorableValueError(split, index, path, found, cure) from error
    if isinstance(leaf, np.ndarray | np.generic):
        array = np.asarray(leaf)
        if array.dtype.kind in "biufc":
            return array.astype(array.dtype.newbyteorder("<"), copy=False)
        cure = "return numbers, with .astype(...) or one code for each word"
        raise UnstorableValueError(split, index, path, f"an array of {array.dtype}", cure)
    if isinstance(leaf, bool | int):
        return np.asarray(leaf, dtype=bool if isinstance(leaf, bool) else np.int64)
    if isinstance(leaf, float):
        return np.asarray(leaf, dtype=np.float32)
    raise UnstorableValueError(split, index, path, f"a {_kind(leaf)}", _cure(leaf))


def _kind(leaf: Any) -> str:
    kind = type(leaf)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _cure(leaf: Any) -> str:
    if isinstance(leaf, str | bytes):
        return (
            "return token ids or a class number, such as torch.tensor(tokenizer(text)['input_ids'])"
        )
    if type(leaf).__module__.startswith("PIL."):
        return "return torch.from_numpy(np.array(image)), uint8, and let the transform do the rest"
    if leaf is None:
        return "return a number in its place"
    return "return torch.as_tensor(...) of it"


def _block_rows(row_bytes: int) -> int:
    return max(1, min(4096, _BLOCK_BYTES // max(1, row_bytes)))
