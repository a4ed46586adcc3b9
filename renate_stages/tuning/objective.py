"""Compute the objective of a search from a model's validation metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from renate_stages.errors import UnmeasuredMetricError

if TYPE_CHECKING:
    from renate_stages.learners.base.measure import Measure
    from renate_stages.models import RenateModule
    from renate_stages.params import Params

Over = Literal["union", "new", "weighted"]


@dataclass(frozen=True)
class Objective:
    """A validation metric over some or all of the validation data.

    Args:
        metric: Name of the metric.
        mode: Whether to maximize or minimize it.
        over: `union`: all validation data so far, all examples with the same weight; `new`: the
            validation data of this update; `weighted`: a mix of the value on this update and the
            mean of the values on earlier updates.
        new_weight: Weight of this update's value for `weighted`, in (0, 1).
    """

    metric: str
    mode: Literal["max", "min"] = "max"
    over: Over = "union"
    new_weight: float | None = None

    @classmethod
    def of(cls, params: Params) -> Objective:
        """Return the objective that is set in the parameters."""
        metric, mode = params.objective
        return cls(metric, mode, params.tuning.objective, params.tuning.new_weight)

    def metrics(
        self, measure: Measure, model: RenateModule, union: Mapping[str, float]
    ) -> dict[str, float]:
        """Return a model's metrics; the objective replaces the metric of the same name.

        Args:
            measure: Measures a model on validation data.
            model: The model; it is not changed.
            union: Its metrics on all validation data so far.

        Raises:
            UnmeasuredMetricError: If the objective's metric is not measured.
        """
        if self.metric not in union:
            raise UnmeasuredMetricError(self.metric, union)
        if self.over == "union":
            return dict(union)
        values = {n: metrics[self.metric] for n, metrics in measure.by_update(model).items()}
        value = values.pop(measure.update)
        if self.over == "weighted" and values:
            weight = self.new_weight or 0.0
            value = weight * value + (1 - weight) * sum(values.values()) / len(values)
        return {**union, self.metric: value}

    def better(self, one: float, other: float) -> bool:
        """Return whether one value is better than another; NaN and infinity are worse than all."""
        if not (math.isfinite(one) and math.isfinite(other)):
            return math.isfinite(one) and not math.isfinite(other)
        return one > other if self.mode == "max" else one < other
