"""RUSH: ASHA in which new trials must beat the best configurations of earlier updates."""

from __future__ import annotations

from typing import Any

from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision
from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving


class RUSH(AsynchronousSuccessiveHalving):
    """Successive halving for repeated searches.

    Zappella et al., "A Resource-Efficient Method for Repeated HPO and NAS", AutoML workshop at ICML
    2021.

    The best configurations of earlier updates are tried first. At each rung, the best of them on the
    present data is a hurdle: a new trial continues only if it is at least as good and ASHA continues
    it too. Without earlier configurations this is ASHA.

    Args:
        hurdles: The configurations of earlier updates; the searcher must suggest them first.
        halving: Arguments of Syne Tune's ASHA.
    """

    def __init__(self, *, hurdles: list[dict[str, Any]], **halving: Any) -> None:
        super().__init__(**halving)
        self.hurdles = hurdles
        self.thresholds: dict[float, float] = {}  # value of the hurdle by rung; lower is better

    def on_trial_result(self, trial: Trial, result: dict[str, Any]) -> str:
        """Decide after an epoch: continue or stop."""
        rung = self._new_rung(trial.trial_id, result[self.time_attr])
        decision = super().on_trial_result(trial, result)
        if rung is None:
            return decision
        value = result[self.metric] * self.metric_multiplier
        hurdle = self.thresholds.get(rung, value)
        if {name: trial.config[name] for name in self.config_space} in self.hurdles:
            self.thresholds[rung] = min(hurdle, value)
        elif value > hurdle:
            return SchedulerDecision.STOP
        return decision

    def _new_rung(self, trial: int, epoch: int) -> float | None:
        """Return the level of the highest rung that a trial has reached just now."""
        reached = [(level, rung) for level, rung in self.trial_info[trial].rungs if epoch >= level]
        return None if not reached or trial in reached[0][1] else reached[0][0]
