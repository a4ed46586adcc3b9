"""The objective of a search: one number for a model, from its validation metrics."""

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
    """A validation metric, over some or all of the validation data.

    Args:
        metric: Its name.
        mode: Whether more of it is better.
        over: `union`: all validation data so far, each example counting the same; `new`: that of
            this update; `weighted`: a mix of that and the mean of earlier updates' values.
        new_weight: Of the new data's value where `weighted`, in (0, 1).
    """

    metric: str
    mode: Literal["max", "min"] = "max"
    over: Over = "union"
    new_weight: float | None = None

    @classmethod
    def of(cls, params: Params) -> Objective:
        """Return the objective that the parameters name."""
        metric, mode = params.objective
        return cls(metric, mode, params.tuning.objective, params.tuning.new_weight)

    def metrics(
        self, measure: Measure, model: RenateModule, union: Mapping[str, float]
    ) -> dict[str, float]:
        """Return all metrics of a model on all validation data, with the objective under its name.

        Args:
            measure: Measures a model on validation data.
            model: Is left as it was.
            union: Its metrics on all validation data so far.

        Raises:
            UnmeasuredMetricError: If the objective is not among them.
        """
        if self.metric not in union:
            raise UnmeasuredMetricError(self.metric, union)
        if self.over == "union":
            return dict(union)
        values = {n: found[self.metric] for n, found in measure.by_update(model).items()}
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
