"""A model's metrics and predictions on holdouts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from renate_stages.evaluation.counted_rows import CountedRows


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
        scores: For metrics that are means over rows, the numerator and divisor of each row, float64
            `(rows, 2)`: the metric is the sum of the numerators over that of the divisors.
        counted: What the user's metrics were computed from, by row; None if this was not kept.
    """

    rows: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    predictions: Predictions | None = None
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    counted: CountedRows | None = None


class ExaminedHoldouts(dict[int, Examined]):
    """Results of one model on each of several holdouts, and on all their rows together.

    Args:
        results: The results on each holdout, by number.
        together: `loss` and every metric, computed on the rows of all holdouts.
    """

    def __init__(self, results: Mapping[int, Examined], together: Mapping[str, float]) -> None:
        super().__init__(results)
        self.together = dict(together)

    @classmethod
    def of_means(
        cls, results: Mapping[int, Examined], together: Mapping[str, float] | None = None
    ) -> Self:
        """Return results whose metrics on all rows, where not given, are means over rows.

        Args:
            results: The results on each holdout, by number.
            together: Known metrics on all rows. Others become the mean over holdouts, weighted by
                their rows; NaN if a value is missing.
        """
        rows = sum(each.rows for each in results.values())
        names = {name for each in results.values() for name in each.metrics}
        means = {
            name: sum(r.rows * r.metrics.get(name, math.nan) for r in results.values()) / rows
            for name in names
        }
        return cls(results, {**means, **(together or {})})
