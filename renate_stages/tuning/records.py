"""Data classes for a trial of a search and its reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrialEpoch:
    """The report of a trial after an epoch.

    Args:
        epoch: Number of the epoch, >= 1.
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
        trial: Number of the trial in that update, >= 0.
        status: How it ended: `completed`, `stopped` (by the scheduler), `failed`, …
        configuration: All its hyperparameters, including `learner`.
        epochs: Its reports in order; empty if it failed before the first.
    """

    update: int
    trial: int
    status: str
    configuration: Mapping[str, Any]
    epochs: tuple[TrialEpoch, ...] = ()

    def value(self, metric: str) -> float | None:
        """Return a metric after the last epoch; None if it is missing or not finite."""
        value = self.epochs[-1].metrics.get(metric) if self.epochs else None
        return value if value is not None and math.isfinite(value) else None
