"""Datasets over stores of examples, which read a batch in one gather."""

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

from renate_stages.errors import UnequalExamplesError, UserResultError, user_code
from renate_stages.memory import ExampleStore, Ragged, Tree
from renate_stages.memory.spec import IGNORED
from renate_stages.preprocessing.base import Preprocessing
from renate_stages.preprocessing.decoders import decode

Transform = Callable[[Any], Any]
Rows = Sequence[int] | np.ndarray | Tensor


@dataclass(frozen=True)
class Batched:
    """A transform of whole batches, much cheaper than one call per example.

        def train_transform():
            return Batched(lambda images: images.float() / 255)  # uint8 (B, H, W) to float32

    Use it for transforms that treat all examples alike: scaling, casting, normalising. A random
    transform would draw once for the whole batch.

    Args:
        transform: Takes and returns a batch: a tensor `(B, ...)`, or a dict or tuple of tensors.
        each: Applied to each example before they are stacked, for examples of different shapes, such
            as images of several sizes.
    """

    transform: Transform
    each: Transform | None = None

    def __call__(self, batch: Any) -> Any:
        return self.transform(batch)


def preprocessed(preprocessing: Preprocessing, then: Transform | None = None) -> Batched:
    """Return a transform of batches of stored inputs: a preprocessing, then another transform.

    Args:
        preprocessing: What was fitted on the data.
        then: Gets inputs of the model, one example at a time, or a batch if it is `Batched`.
    """
    first = preprocessing.transform_example
    if then is None:
        return Batched(preprocessing.transform, first)
    if isinstance(then, Batched):
        return Batched(lambda batch: then.transform(preprocessing.transform(batch)), first)

    def each(batch: Tree) -> Tree:
        inputs = preprocessing.transform(batch)
        count = len(next(_leaves(inputs)))
        return _stack([then(_example(inputs, row)) for row in range(count)], 0)

    return Batched(each, first)


class StoredDataset(Dataset):
    """The examples of a store, or some of its rows, as tensors.

    `dataset[i]` is `(inputs, targets)`. A `DataLoader` calls `dataset.__getitems__(rows)`, which
    returns a whole batch. The batch is one gather; with transforms of single examples, encoded
    images or rows of different lengths, examples are processed one by one and then stacked. Tensors
    are copies that you may change. Dicts and tuples in an example become dicts and tuples of batched
    tensors. Rows of different lengths are padded with zeros to the longest of the batch; if zero is
    a valid value, store a mask of ones with them.

        train = StoredDataset(ExampleStore.open(path), transform=transforms.RandomCrop(32, 4))

    Args:
        store: The store of examples.
        rows: Rows of the store, int64 `(n,)`; all by default.
        transform: Applied to the stored inputs of each example, without a batch dimension; if it is
            `Batched`, to the inputs of a whole batch.
        target_transform: Applied to the targets in the same way.
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
        self.resident: Tree | None = None  # all examples as tensors, set by `data.resident`

    def __len__(self) -> int:
        return len(self.store) if self.rows is None else len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the examples; an estimate if the dataset has only some rows of a store."""
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
            self._batch(targets, self.target_transform, len(indices), IGNORED),
        )

    def targets(self, indices: Rows) -> Tree:
        """Return the targets alone of the examples at `indices`, `(n,)` in [0, len), as one batch."""
        rows = np.asarray(indices, dtype=np.int64)
        if self.resident is not None:
            targets = _taken(self.resident[1], torch.from_numpy(rows))
        else:
            rows = rows if self.rows is None else self.rows[rows]
            targets = _tensors(self.store.gather_targets(rows))
        return self._batch(targets, self.target_transform, len(indices), IGNORED)

    def _batch(self, part: Tree, transform: Transform | None, count: int, padding: int = 0) -> Tree:
        if isinstance(transform, Batched):
            stacked = self._batch(part, transform.each, count, padding)
            return _whole_batch(transform, stacked, count)
        if transform is None and not _has_ragged(part):
            return part
        examples = [_example(part, row) for row in range(count)]
        if transform is None:
            return _stack(examples, padding)
        try:
            return _stack([transform(each) for each in examples], padding)
        except Exception as error:  # noqa: BLE001 -- raised again as the user's error
            given = user_code.outline(examples[0])
            user_code.fail(f"the transform {_name(transform)}, given {given},", error)

    def labels(self) -> np.ndarray | None:
        """Return the stored labels, int64 `(len,)`; None if a target is not a single integer."""
        field = self.store.spec.fields.get("targets") if self.store.spec else None
        if field is None or field.ragged or field.shape or field.dtype.kind not in "iu":
            return None
        labels = self.store.column("targets").astype(np.int64)
        return labels if self.rows is None else labels[self.rows]

    def classes(self) -> list[int] | None:
        """Return the distinct labels without `IGNORED`, sorted; None without integer labels."""
        return _classes(self.labels())

    def _gather(self, indices: Rows) -> Tree:
        rows = np.asarray(indices, dtype=np.int64)
        if self.resident is not None:
            return _taken(self.resident, torch.from_numpy(rows))
        return _tensors(self.store.gather(rows if self.rows is None else self.rows[rows]))


class ConcatStored(Dataset):
    """Several stored datasets, each with its own transforms, as one dataset.

    All transforms must return the same structure, dtype and shape, because a batch may mix examples
    of several parts.

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
        """Return the examples at `indices`, `(n,)` in [0, len), as one batch."""
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
        inputs, targets = zip(*batches, strict=True)
        return _reordered((concatenate(inputs), concatenate(targets, IGNORED)), back)

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
    """Apply a transform to a batch, and check that it returns as many rows."""
    try:
        result = transform(batch)
    except Exception as error:  # noqa: BLE001 -- raised again as the user's error
        what = f"the transform Batched({_name(transform.transform)}), given {user_code.outline(batch)},"
        user_code.fail(what, error)
    if any(
        not isinstance(leaf, Tensor) or not leaf.ndim or len(leaf) != count
        for leaf in _leaves(result)
    ):
        what = f"the transform Batched({_name(transform.transform)})"
        raise UserResultError(what, user_code.outline(result), f"tensors of {count} rows")
    return result


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Mapping | tuple | list):
        for each in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _leaves(each)
    else:
        yield tree


def _name(transform: Any) -> str:
    return getattr(transform, "__qualname__", None) or type(transform).__qualname__


def _classes(labels: np.ndarray | None) -> list[int] | None:
    return None if labels is None else np.unique(labels[labels != IGNORED]).tolist()


def _tensors(tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return {key: _tensors(child) for key, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_tensors(child) for child in tree)
    return tree if isinstance(tree, Ragged) else torch.from_numpy(tree)


def _taken(tree: Tree, rows: Tensor) -> Tree:
    """Return copies of rows of a tree of tensors, gathered on the tensors' device."""
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


def _stack(values: list[Any], padding: int) -> Tree:
    """Collate examples; unlike in torch, tuples stay tuples. `padding` is as in `padded`."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _stack([value[key] for value in values], padding) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_stack(list(column), padding) for column in zip(*values, strict=True))
    if isinstance(first, Tensor) and len({value.shape for value in values}) > 1:
        return padded(values, padding)
    return default_collate(values)


def padded(tensors: list[Tensor], padding: int) -> Tensor:
    """Stack tensors of different lengths, padding shorter ones at the end.

    Args:
        tensors: The tensors, `(T, ...)`.
        padding: Value for signed integers: 0 for inputs, `IGNORED` for targets. Others get 0.

    Raises:
        UnequalExamplesError: If they differ in another dimension, such as images of several sizes.
    """
    if len({tensor.shape[1:] for tensor in tensors}) > 1 or tensors[0].ndim > 2:
        raise UnequalExamplesError({tuple(tensor.shape) for tensor in tensors})
    first = tensors[0]
    is_signed = not first.is_floating_point() and first.dtype.is_signed
    value = padding if is_signed else 0
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def concatenate(batches: Sequence[Tree], padding: int = 0) -> Tree:
    """Concatenate batches of the same structure, in the given order.

    Args:
        batches: The batches. Those that were padded to different lengths are padded to the longest.
        padding: Value for integers: 0 for inputs, `IGNORED` for targets.
    """
    first = batches[0]
    if isinstance(first, dict):
        return {key: concatenate([batch[key] for batch in batches], padding) for key in first}
    if isinstance(first, tuple):
        return tuple(concatenate(list(column), padding) for column in zip(*batches, strict=True))
    if len({batch.shape[1:] for batch in batches}) > 1:
        return padded([row for batch in batches for row in batch], padding)
    return torch.cat(list(batches))


def _reordered(batch: Tree, order: Tensor) -> Tree:
    if isinstance(batch, dict):
        return {key: _reordered(child, order) for key, child in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_reordered(child, order) for child in batch)
    return batch[order]
