"""Datasets over stores of examples: a batch is one gather."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from renate_stages.data.decoders import decode
from renate_stages.errors import UnequalExamplesError, UserResultError, user_code
from renate_stages.memory import ExampleStore, Ragged, Tree

Transform = Callable[[Any], Any]
Rows = Sequence[int] | np.ndarray | Tensor


@dataclass(frozen=True)
class Batched:
    """A transform of whole batches, at a fraction of the cost of one call for each example.

        def train_transform():
            return Batched(lambda images: images.float() / 255)  # uint8 (B, H, W) to float32

    For what treats all examples of a batch alike: scaling, casting, normalising. A random transform
    would draw once for the whole batch.

    Args:
        transform: Takes and returns a batch: a tensor `(B, ...)`, or a dict or tuple of such.
    """

    transform: Transform

    def __call__(self, batch: Any) -> Any:
        return self.transform(batch)


class StoredDataset(Dataset):
    """The examples of a store, or some of its rows, as tensors.

    `dataset[i]` is `(inputs, targets)`; `dataset.__getitems__(rows)`, which a `DataLoader` calls
    for a batch, is the finished batch: one gather, or, where there are transforms of single examples,
    encoded images or rows of differing length, each example for itself and then a stack. Tensors are copies, free to
    be changed. Dicts and tuples in an example stay dicts and tuples of batched tensors. Rows that
    differ in length are filled up with zeros to the longest of the batch; where zero is not a value
    to be ignored, keep a mask of ones beside them.

        train = StoredDataset(ExampleStore.open(path), transform=transforms.RandomCrop(32, 4))

    Args:
        store: Where the examples are.
        rows: Rows of the store, int64 `(n,)`; all by default.
        transform: Applied to the inputs of each example, as stored, without a batch dimension; a
            `Batched` one to those of a whole batch.
        target_transform: Applied to the targets likewise.
    """

    def __init__(
        self,
        store: ExampleStore,
        rows: np.ndarray | None = None,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        self.store = store
        self.rows = None if rows is None else np.asarray(rows, dtype=np.int64)
        self.transform = transform
        self.target_transform = target_transform
        self.resident: Tree | None = None  # all examples as tensors, where `data.resident` put them

    def __len__(self) -> int:
        return len(self.store) if self.rows is None else len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the examples; an estimate where only some rows of a store are taken."""
        return round(self.store.nbytes * len(self) / max(1, len(self.store)))

    def __getitem__(self, index: int) -> Tree:
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return tuple(_example(part, 0) for part in self.__getitems__([index % len(self)]))

    def __getitems__(self, indices: Rows) -> Tree:
        """Return the examples at `indices`, `(n,)` in [0, len), as one batch `(inputs, targets)`."""
        inputs, targets = self._gather(indices)
        return (
            self._batch(inputs, self.transform, len(indices)),
            self._batch(targets, self.target_transform, len(indices)),
        )

    def _batch(self, part: Tree, transform: Transform | None, count: int) -> Tree:
        if isinstance(transform, Batched):
            return _whole_batch(transform, self._batch(part, None, count), count)
        if transform is None and not _has_ragged(part):
            return part
        examples = [_example(part, row) for row in range(count)]
        if transform is None:
            return _stack(examples)
        try:
            return _stack([transform(each) for each in examples])
        except Exception as error:  # noqa: BLE001 -- it is raised again
            given = user_code.outline(examples[0])
            user_code.fail(f"the transform {_name(transform)}, given {given},", error)

    def labels(self) -> np.ndarray | None:
        """Return the labels as stored, int64 `(len,)`; None if targets are not one integer each."""
        field = self.store.spec.fields.get("targets") if self.store.spec else None
        if field is None or field.shape or field.dtype.kind not in "iu":
            return None
        labels = self.store.column("targets").astype(np.int64)
        return labels if self.rows is None else labels[self.rows]

    def classes(self) -> list[int] | None:
        """Return the distinct labels, sorted; None if there are no integer labels."""
        return _classes(self.labels())

    def _gather(self, indices: Rows) -> Tree:
        rows = np.asarray(indices, dtype=np.int64)
        if self.resident is not None:
            return _taken(self.resident, torch.from_numpy(rows))
        return _tensors(self.store.gather(rows if self.rows is None else self.rows[rows]))


class ConcatStored(Dataset):
    """Several stored datasets, each with its own transforms, as one.

    What the transforms return must agree in structure, dtype and shape, since a batch may hold
    examples of several parts.

    Args:
        parts: The datasets, in order; empty ones are allowed.
    """

    def __init__(self, parts: Sequence[StoredDataset]) -> None:
        self.parts = tuple(parts)
        self.offsets = [0, *accumulate(len(part) for part in self.parts)]

    def __len__(self) -> int:
        return self.offsets[-1]

    def __getitem__(self, index: int) -> Tree:
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        index %= len(self)
        part = bisect_right(self.offsets, index) - 1
        return self.parts[part][index - self.offsets[part]]

    def __getitems__(self, indices: Rows) -> Tree:
        """Return the examples at `indices`, `(n,)` in [0, len), as one batch: a gather a part."""
        rows = np.asarray(indices, dtype=np.int64)
        owner = np.searchsorted(self.offsets, rows, side="right") - 1
        if len(rows) and (owner == owner[0]).all():
            return self.parts[owner[0]].__getitems__(rows - self.offsets[owner[0]])
        order = np.argsort(owner, kind="stable")
        batches = [
            self.parts[part].__getitems__(rows[owner == part] - self.offsets[part])
            for part in np.unique(owner)
        ]
        back = torch.from_numpy(np.argsort(order))
        return _reordered(concatenate(batches), back)

    def labels(self) -> np.ndarray | None:
        """Return the labels of all parts, int64 `(len,)`; None if a part with examples has none."""
        labels = [part.labels() for part in self.parts if len(part)]
        if not labels or any(part is None for part in labels):
            return None
        return np.concatenate([part for part in labels if part is not None])

    def classes(self) -> list[int] | None:
        """Return the distinct labels, sorted; None if there are no integer labels."""
        return _classes(self.labels())


def _whole_batch(transform: Batched, batch: Tree, count: int) -> Tree:
    """Return what a transform makes of a batch, which must have as many rows."""
    try:
        found = transform(batch)
    except Exception as error:  # noqa: BLE001 -- it is raised again
        what = f"the transform Batched({_name(transform.transform)}), given {user_code.outline(batch)},"
        user_code.fail(what, error)
    if any(
        not isinstance(each, Tensor) or not each.ndim or len(each) != count
        for each in _leaves(found)
    ):
        what = f"the transform Batched({_name(transform.transform)})"
        raise UserResultError(what, user_code.outline(found), f"tensors of {count} rows")
    return found


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping | tuple | list):
        for each in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _leaves(each)
    else:
        yield tree


def _name(transform: Any) -> str:
    return getattr(transform, "__qualname__", None) or type(transform).__qualname__


def _classes(labels: np.ndarray | None) -> list[int] | None:
    return None if labels is None else np.unique(labels).tolist()


def _tensors(tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return {key: _tensors(child) for key, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_tensors(child) for child in tree)
    return tree if isinstance(tree, Ragged) else torch.from_numpy(tree)


def _taken(tree: Tree, rows: Tensor) -> Tree:
    """Return copies of some rows of a tree of tensors, gathered where they lie."""
    if isinstance(tree, dict):
        return {key: _taken(child, rows) for key, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_taken(child, rows) for child in tree)
    return tree.index_select(0, rows.to(tree.device, non_blocking=True))


def _has_ragged(tree: Tree) -> bool:
    if isinstance(tree, dict | tuple):
        return any(map(_has_ragged, tree.values() if isinstance(tree, dict) else tree))
    return isinstance(tree, Ragged)


def _example(batch: Tree, index: int) -> Tree:
    if isinstance(batch, dict):
        return {key: _example(child, index) for key, child in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_example(child, index) for child in batch)
    if isinstance(batch, Ragged):
        row = batch[index]
        return decode(row, batch.decoder) if batch.decoder else torch.from_numpy(row.copy())
    return batch[index]


def _stack(values: list[Any]) -> Tree:
    """Collate examples; tuples stay tuples, where torch makes them lists."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _stack([value[key] for value in values]) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_stack(list(column)) for column in zip(*values, strict=True))
    if isinstance(first, Tensor) and len({value.shape for value in values}) > 1:
        return _filled_up(values)
    return default_collate(values)


def _filled_up(tensors: list[Tensor]) -> Tensor:
    """Stack tensors that differ in their first dimension, shorter ones ending with zeros.

    Raises:
        UnequalExamplesError: If they differ in another dimension, as images of many sizes do.
    """
    if len({tensor.shape[1:] for tensor in tensors}) > 1 or tensors[0].ndim > 2:
        raise UnequalExamplesError({tuple(tensor.shape) for tensor in tensors})
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)


def concatenate(batches: Sequence[Tree]) -> Tree:
    """Return batches of one structure as one, rows in the order given.

    Where they were filled up to different lengths, the shorter are to the longest.
    """
    first = batches[0]
    if isinstance(first, dict):
        return {key: concatenate([batch[key] for batch in batches]) for key in first}
    if isinstance(first, tuple):
        return tuple(concatenate(list(column)) for column in zip(*batches, strict=True))
    if len({batch.shape[1:] for batch in batches}) > 1:
        return _filled_up([row for batch in batches for row in batch])
    return torch.cat(list(batches))


def _reordered(batch: Tree, order: Tensor) -> Tree:
    if isinstance(batch, dict):
        return {key: _reordered(child, order) for key, child in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_reordered(child, order) for child in batch)
    return batch[order]
