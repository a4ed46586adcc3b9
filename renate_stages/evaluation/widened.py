"""Measure models that know fewer classes than there are labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from renate_stages.models import RenateModule

UNKNOWN_CLASS = 20.0
"""Distance below the lowest output for classes that a model has no output for."""


class Widened:
    """Adds a column to a classifier's outputs for each class that it does not know.

    An earlier model may have learnt fewer classes than there are labels now. Its predictions for the
    others are wrong, but must not fail. The values are finite, so that the loss is finite, and so
    low that they do not change the loss on the classes that the model knows.

    Args:
        model: The classifier.
        width: Minimum number of columns in its outputs, `(B, K)` or `(B, T, K)`.
    """

    def __init__(self, model: RenateModule, width: int) -> None:
        self.width = width
        self.seen = 0
        self.handle = model.register_forward_hook(self)

    def __call__(self, model: RenateModule, inputs: Any, outputs: Any) -> Any:
        if not isinstance(outputs, Tensor) or outputs.ndim not in (2, 3):
            return outputs
        self.seen = outputs.shape[-1]
        missing = self.width - self.seen
        if missing <= 0 or self.seen == 1:  # one output is a logit or a value, not a class
            return outputs
        lowest = outputs.min(dim=-1, keepdim=True).values - UNKNOWN_CLASS
        return torch.cat([outputs, lowest.expand(*outputs.shape[:-1], missing)], dim=-1)


@contextmanager
def widened(model: RenateModule, width: int) -> Iterator[Widened]:
    """Add columns to a classifier's outputs inside a block; see `Widened`."""
    added = Widened(model, width)
    try:
        yield added
    finally:
        added.handle.remove()
