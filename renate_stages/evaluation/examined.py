"""A model's metrics on a holdout, with its prediction for each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """A classifier's answers, in the order of the holdout's rows.

    Args:
        labels: The true class, int64 `(rows,)`.
        predicted: The class with the largest output, int64 `(rows,)`.
        confidence: Its probability, the softmax of the outputs, float32 `(rows,)` in [0, 1].
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether each is right, bool `(rows,)`."""
        return self.labels == self.predicted


@dataclass(frozen=True)
class Examined:
    """One model on one holdout.

    Args:
        rows: Number of examples.
        metrics: `loss` and every metric by name.
        predictions: None where targets are no class labels.
    """

    rows: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    predictions: Predictions | None = None
