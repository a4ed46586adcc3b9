"""Measure a model on validation data, for learners that choose by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch.utils.data import Dataset

from renate_stages.data import ConcatStored, StoredDataset
from renate_stages.errors import UnmeasuredMetricError
from renate_stages.models import RenateModule

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Measure:
    """Measures a model on all validation data so far, and says which of two measurements is better.

        best = max(models, key=lambda model: measure.rank(measure(model)))

    Args:
        evaluate: Returns loss and metrics of a model on each dataset, by its number.
        datasets: Validation data by the update that it belongs to; at least one, none empty.
        update: Number of the running update.
        metric: The headline metric.
        mode: Whether more of it is better.
    """

    evaluate: Callable[[RenateModule, Mapping[int, Dataset]], Mapping[int, Metrics]]
    datasets: Mapping[int, StoredDataset]
    update: int
    metric: str = "accuracy"
    mode: Literal["max", "min"] = "max"

    def __call__(self, model: RenateModule) -> Metrics:
        """Return loss and metrics on all validation data, each example counting the same."""
        together = ConcatStored(list(self.datasets.values()))
        return self.evaluate(model, {self.update: together})[self.update]

    def by_update(self, model: RenateModule) -> Mapping[int, Metrics]:
        """Return loss and metrics on the validation data of each update."""
        return self.evaluate(model, self.datasets)

    def rank(self, metrics: Metrics) -> tuple[float, float]:
        """Return a key that is the greater, the better: by the headline metric, then by the loss.

        Raises:
            UnmeasuredMetricError: If the headline metric is not among them.
        """
        if self.metric not in metrics:
            raise UnmeasuredMetricError(self.metric, metrics)
        value = metrics[self.metric] * (1 if self.mode == "max" else -1)
        return _or_worst(value), _or_worst(-metrics["loss"])


def _or_worst(value: float) -> float:
    return -math.inf if math.isnan(value) else value
