"""Rows that were encoded for a deployed model, read in the way of a stored dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.data.stored import Rows, StoredDataset, Transform
from renate_stages.memory import Ragged, Tree


class EncodedInputs:
    """Stored inputs in memory, which become inputs of the model as those of a store do.

    Args:
        inputs: Arrays `(rows, ...)` or `Ragged`, in dicts and tuples.
        transform: The test transform; None: inputs are used as they are.
    """

    def __init__(self, inputs: Tree, transform: Transform | None) -> None:
        self._inputs = inputs
        self._reader = _Reader(transform)

    def __len__(self) -> int:
        return _length(self._inputs)

    def batch(self, rows: Rows) -> Tree:
        """Return the inputs of the model for rows, int `(n,)`, as one batch."""
        return self._reader.inputs(
            _taken(self._inputs, np.asarray(rows, dtype=np.int64)), len(rows)
        )


class _Reader(StoredDataset):
    """The part of `StoredDataset` that applies transforms; it has no store."""

    def __init__(self, transform: Transform | None) -> None:
        self.transform = transform

    def inputs(self, part: Tree, count: int) -> Tree:
        return self._batch(part, self.transform, count)


def _length(tree: Any) -> int:
    if isinstance(tree, dict | tuple):
        return _length(next(iter(tree.values() if isinstance(tree, dict) else tree)))
    return len(tree)


def _taken(tree: Any, rows: np.ndarray) -> Any:
    if isinstance(tree, dict):
        return {key: _taken(child, rows) for key, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_taken(child, rows) for child in tree)
    if isinstance(tree, Ragged):
        return tree.take(rows)
    return (
        tree[torch.from_numpy(rows)] if isinstance(tree, Tensor) else torch.from_numpy(tree[rows])
    )
