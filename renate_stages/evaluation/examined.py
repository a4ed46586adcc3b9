"""A model's metrics and predictions on a holdout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """A classifier's predictions, in the order of the holdout's rows.

    Args:
        labels: True classes, int64 `(rows,)`.
        predicted: Classes with the largest output, int64 `(rows,)`.
        confidence: Probabilities of the predicted classes, float32 `(rows,)` in [0, 1].
        counted: Whether each row of the holdout counts, bool; the other arrays leave out rows with
            ignored labels. None: all rows count.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    counted: np.ndarray | None = None

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct, bool `(rows,)`."""
        return self.labels == self.predicted


@dataclass(frozen=True)
class Examined:
    """Results of one model on one holdout.

    Args:
        rows: Number of examples.
        metrics: `loss` and every metric by name.
        predictions: Predictions for each row; None if targets are not class labels.
    """

    rows: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    predictions: Predictions | None = None
