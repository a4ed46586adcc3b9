"""Datasets over stores of examples, which read a batch in one gather."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.data.trees import (
    Decode,
    concatenate,
    example_of,
    leaves,
    reordered,
    stack,
    stacked,
    taken,
    tensors_of,
)
from renate_stages.errors import UserResultError, user_code
from renate_stages.memory import ExampleStore, Tree
from renate_stages.memory.row_weights import is_weighted, weights_in
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
        decode: Decodes an example that is stored as bytes, given them and the name of the decoder;
            None: as the store says.
    """

    transform: Transform
    each: Transform | None = None
    decode: Decode | None = None

    def __call__(self, batch: Any) -> Any:
        return self.transform(batch)


def preprocessed(
    preprocessing: Preprocessing, then: Transform | None = None, *, training: bool = False
) -> Batched:
    """Return a transform of batches of stored inputs: a preprocessing, then another transform.

    Args:
        preprocessing: What was fitted on the data.
        then: Gets inputs of the model, one example at a time, or a batch if it is `Batched`.
        training: Whether the examples are trained on, new or remembered ones, so that they may be
            changed at random.
    """
    first = preprocessing.transform_training if training else preprocessing.transform

    def whole(batch: Tree) -> Tree:
        inputs = first(batch)
        if then is None:
            return inputs
        if isinstance(then, Batched):
            return then.transform(inputs)
        count = len(next(leaves(inputs)))
        return stack([then(example_of(inputs, row)) for row in range(count)], 0)

    return Batched(whole, preprocessing.transform_example, preprocessing.decode)


def decoding(transform: Transform | None) -> Transform | None:
    """Return a transform that only decodes examples, in the way of another transform."""
    if isinstance(transform, Batched) and transform.decode is not None:
        return Batched(_unchanged, _unchanged, transform.decode)
    return None


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
        return tuple(example_of(part, 0) for part in self.__getitems__([index % len(self)]))

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
            targets = taken(self.resident[1], torch.from_numpy(rows))
        else:
            rows = rows if self.rows is None else self.rows[rows]
            targets = tensors_of(self.store.gather_targets(rows))
        return self._batch(targets, self.target_transform, len(indices), IGNORED)

    def _batch(
        self,
        part: Tree,
        transform: Transform | None,
        count: int,
        padding: int = 0,
        decode: Decode = decode,
    ) -> Tree:
        if isinstance(transform, Batched):
            batch = self._batch(part, transform.each, count, padding, transform.decode or decode)
            return _whole_batch(transform, batch, count)
        if transform is None:
            return stacked(part, count, padding, decode)
        examples = [example_of(part, row, decode) for row in range(count)]
        try:
            return stack([transform(each) for each in examples], padding)
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

    @property
    def is_weighted(self) -> bool:
        """Whether rows of the store have weights."""
        return is_weighted(self.store)

    def weights(self, indices: Rows) -> Tensor | None:
        """Return the weights of rows in the training loss, float32 `(n,)` on the CPU.

        Args:
            indices: Rows in [0, len), `(n,)`.

        Returns:
            The weights, 1 for rows that came without one; None if no row of the store has one.
        """
        rows = np.asarray(indices, dtype=np.int64)
        found = weights_in(self.store, rows if self.rows is None else self.rows[rows])
        return None if found is None else torch.from_numpy(found)

    def classes(self) -> list[int] | None:
        """Return the distinct labels without `IGNORED`, sorted; None without integer labels."""
        return _classes(self.labels())

    def _gather(self, indices: Rows) -> Tree:
        rows = np.asarray(indices, dtype=np.int64)
        if self.resident is not None:
            return taken(self.resident, torch.from_numpy(rows))
        return tensors_of(self.store.gather(rows if self.rows is None else self.rows[rows]))


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
        return reordered((concatenate(inputs), concatenate(targets, IGNORED)), back)

    def labels(self) -> np.ndarray | None:
        """Return the labels of all parts, int64 `(len,)`; None if a part with examples has none."""
        labels = [part.labels() for part in self.parts if len(part)]
        if not labels or any(part is None for part in labels):
            return None
        return np.concatenate([part for part in labels if part is not None])

    @property
    def is_weighted(self) -> bool:
        """Whether rows of any part have weights."""
        return any(part.is_weighted for part in self.parts)

    def weights(self, indices: Rows) -> Tensor | None:
        """Return what `StoredDataset.weights` does; rows of parts without weights count as 1."""
        if not self.is_weighted:
            return None
        rows = np.asarray(indices, dtype=np.int64)
        found = torch.ones(len(rows))
        owner = np.searchsorted(self.offsets, rows, side="right") - 1
        for number in np.unique(owner):
            here = owner == number
            own = self.parts[number].weights(rows[here] - self.offsets[number])
            if own is not None:
                found[torch.from_numpy(here)] = own
        return found

    def classes(self) -> list[int] | None:
        """Return the distinct labels, sorted; None if there are no integer labels."""
        return _classes(self.labels())


def _unchanged(examples: Any) -> Any:
    return examples


def _whole_batch(transform: Batched, batch: Tree, count: int) -> Tree:
    """Apply a transform to a batch, and check that it returns as many rows."""
    try:
        result = transform(batch)
    except Exception as error:  # noqa: BLE001 -- raised again as the user's error
        what = f"the transform Batched({_name(transform.transform)}), given {user_code.outline(batch)},"
        user_code.fail(what, error)
    if any(
        not isinstance(leaf, Tensor) or not leaf.ndim or len(leaf) != count
        for leaf in leaves(result)
    ):
        what = f"the transform Batched({_name(transform.transform)})"
        raise UserResultError(what, user_code.outline(result), f"tensors of {count} rows")
    return result


def _name(transform: Any) -> str:
    return getattr(transform, "__qualname__", None) or type(transform).__qualname__


def _classes(labels: np.ndarray | None) -> list[int] | None:
    return None if labels is None else np.unique(labels[labels != IGNORED]).tolist()
