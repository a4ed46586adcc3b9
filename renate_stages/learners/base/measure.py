"""Measure a model on validation data, for learners that choose a value by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch.utils.data import Dataset

from renate_stages.data import StoredDataset
from renate_stages.errors import UnmeasuredMetricError
from renate_stages.models import RenateModule

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Measure:
    """Measures a model on all validation data so far, and ranks the results.

        best = max(models, key=lambda model: measure.rank(measure(model)))

    Args:
        evaluate: Returns a model's loss and metrics on the rows of all datasets together, and on each
            dataset by update number.
        datasets: Validation data by update number; at least one dataset, none of them empty.
        update: Number of the running update.
        metric: The headline metric.
        mode: Whether a higher (`max`) or lower (`min`) headline metric is better.
    """

    evaluate: Callable[[RenateModule, Mapping[int, Dataset]], tuple[Metrics, Mapping[int, Metrics]]]
    datasets: Mapping[int, StoredDataset]
    update: int
    metric: str = "accuracy"
    mode: Literal["max", "min"] = "max"

    def __call__(self, model: RenateModule) -> Metrics:
        """Return loss and metrics on all validation data, with equal weight for every example."""
        return self.evaluate(model, self.datasets)[0]

    def by_update(self, model: RenateModule) -> Mapping[int, Metrics]:
        """Return loss and metrics on the validation data of each update."""
        return self.evaluate(model, self.datasets)[1]

    def rank(self, metrics: Metrics) -> tuple[float, float]:
        """Return a sort key, higher for better models: the headline metric first, then the loss.

        Raises:
            UnmeasuredMetricError: If the headline metric is not among the metrics.
        """
        if self.metric not in metrics:
            raise UnmeasuredMetricError(self.metric, metrics)
        value = metrics[self.metric] * (1 if self.mode == "max" else -1)
        return _or_worst(value), _or_worst(-metrics["loss"])


def _or_worst(value: float) -> float:
    return -math.inf if math.isnan(value) else value
