"""One trial of a search, and what it reported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrialEpoch:
    """What a trial reported after an epoch.

    Args:
        epoch: Its number, >= 1.
        steps: Optimizer steps so far.
        metrics: Values by name.
    """

    epoch: int
    steps: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrialRecord:
    """One trial of one update.

    Args:
        update: Number of the update.
        trial: Number of the trial in it, >= 0.
        status: How it ended: `completed`, `stopped` (by the scheduler), `failed`, …
        configuration: All its hyperparameters, `learner` among them.
        epochs: What it reported, in order; none where it failed at once.
    """

    update: int
    trial: int
    status: str
    configuration: Mapping[str, Any]
    epochs: tuple[TrialEpoch, ...] = ()

    def value(self, metric: str) -> float | None:
        """Return a metric of the model that it gave; None where there is no finite one."""
        value = self.epochs[-1].metrics.get(metric) if self.epochs else None
        return value if value is not None and math.isfinite(value) else None
