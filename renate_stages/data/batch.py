"""`Batch`: examples that are read together; `StepBatch`: those of one training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from renate_stages.data.stored import ConcatStored, StoredDataset
from renate_stages.data.trees import mapped


class Batch(NamedTuple):
    """Examples of one batch, and their rows in the dataset.

    If several processes share a step, a batch is this process's share. If the share is empty,
    `inputs` and `targets` have one placeholder example of another process while `rows` is empty.
    The placeholder must not affect results: its weight, returned by `share`, is 0.

    Args:
        inputs: A tensor `(B, ...)`, or a dict or tuple of tensors.
        targets: A tensor `(B, ...)`, or a dict or tuple of tensors.
        rows: Rows of the examples in the dataset, int64 `(B,)`.
        fields: Fields that the memory stores with each example, by name, `(B, ...)`.
        whole: Rows of all processes in the order of the draw; None if there is one process.
        weights: Weights of the rows in the training loss, float `(B,)`; None: all count as 1.
    """

    inputs: Any
    targets: Any
    rows: np.ndarray
    fields: Mapping[str, Tensor] = {}
    whole: np.ndarray | None = None
    weights: Tensor | None = None

    @classmethod
    def of(cls, dataset: StoredDataset | ConcatStored, rows: np.ndarray) -> Batch:
        """Read rows of a dataset, int64 `(B,)`, with their weights."""
        inputs, targets = dataset.__getitems__(rows)
        return cls(inputs, targets, rows, weights=dataset.weights(rows))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def all_rows(self) -> np.ndarray:
        """The rows of all processes."""
        return self.rows if self.whole is None else self.whole

    @property
    def is_placeholder(self) -> bool:
        """Whether the batch is a placeholder: one example of another process."""
        return self.whole is not None and not len(self.rows)

    def with_targets(self, targets: Any) -> Batch:
        """Return the batch with other targets."""
        return Batch(self.inputs, targets, self.rows, self.fields, self.whole, self.weights)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Apply a function to every tensor of the batch; row numbers do not change."""
        inputs, targets, fields = (
            mapped(part, change) for part in (self.inputs, self.targets, dict(self.fields))
        )
        weights = None if self.weights is None else change(self.weights)
        return Batch(inputs, targets, self.rows, fields, self.whole, weights)

    def of_rows(self, rows: np.ndarray, whole: np.ndarray | None) -> Batch:
        """Return the batch with other numbers of rows, in all processes too."""
        return Batch(self.inputs, self.targets, rows, self.fields, whole, self.weights)


class StepBatch(NamedTuple):
    """The batches of one training step.

    Args:
        new: New examples.
        memory: Independent draws from the memory; may be empty.
    """

    new: Batch
    memory: tuple[Batch, ...] = ()

    def mapped(self, change: Callable[[Tensor], Tensor]) -> StepBatch:
        """Apply a function to every tensor of the step."""
        return StepBatch(
            self.new.mapped(change), tuple(each.mapped(change) for each in self.memory)
        )


def weights_of(batches: Sequence[Batch]) -> Tensor | None:
    """Return the weights of the rows of several batches in order, float `(B,)`.

    Placeholders are left out, unless all batches are placeholders; then the first one is returned.

    Args:
        batches: The batches. The rows of those without weights count as 1.

    Returns:
        The weights; None if no batch has weights.
    """
    some = next((each.weights for each in batches if each.weights is not None), None)
    if some is None:
        return None
    counted = [each for each in batches if not each.is_placeholder] or batches[:1]
    parts = [
        some.new_ones(max(1, len(each))) if each.weights is None else each.weights
        for each in counted
    ]
    return torch.cat(parts)
