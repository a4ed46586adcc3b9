"""PASHA: ASHA that trains longer only while this still changes the ranking of trials."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision, TrialSuggestion
from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving

Curve = Mapping[int, float]


class PASHA(AsynchronousSuccessiveHalving):
    """Progressive asynchronous successive halving.

    Bohdal et al., "PASHA: Efficient HPO and NAS with Progressive Resource Allocation", ICLR 2023.

    Trials first run to the second rung. Whenever a trial reaches the top rung, the ranking there is
    compared with the ranking of the same trials one rung below. If they differ, the next rung becomes
    the top rung. Two trials within epsilon of each other may change places (soft ranking).

    Below the top rung this is Syne Tune's ASHA of the stopping type. At the top rung a trial pauses;
    when the top rung rises, the best 1 / `reduction_factor` of the paused trials are resumed.

    Args:
        percentile: Percentile of the noisy differences that gives epsilon, in [0, 100].
        halving: Arguments of Syne Tune's ASHA.
    """

    def __init__(self, *, percentile: float = 90.0, **halving: Any) -> None:
        super().__init__(**halving)
        self.percentile = percentile
        rungs = [rung for rung in reversed(self.brackets[0].rungs) if rung[0] < self.max_t]
        self.levels = [level for level, _ in rungs]
        self.rungs: list[dict[int, dict[str, float]]] = [recorded for _, recorded in rungs]
        self.top = 1  # index of the top rung; at len(self.rungs), trials run to max_t
        self.curves: dict[int, dict[int, float]] = defaultdict(dict)
        self.paused: dict[int, int] = {}  # rung at which a trial is paused, by trial

    def suggest(self) -> TrialSuggestion | None:
        """Resume a trial that may continue because the top rung rose, or start a new trial."""
        return self.resume() or super().suggest()

    def resume(self) -> TrialSuggestion | None:
        """Return the best trial paused below the top rung that is in the best part of its rung."""
        for rung in range(min(self.top, len(self.rungs)) - 1, 0, -1):
            values = self._values(rung)
            waiting = [trial for trial, at in self.paused.items() if at == rung]
            for trial in sorted(waiting, key=lambda number: values[number]):
                better = sum(value < values[trial] for value in values.values())
                if better / len(values) <= 1 / self.reduction_factor:
                    del self.paused[trial]
                    return TrialSuggestion.resume_suggestion(trial)
        return None

    def on_trial_result(self, trial: Trial, result: dict[str, Any]) -> str:
        """Decide after an epoch: continue, pause at the top rung, or stop below it."""
        epoch = result[self.time_attr]
        self.curves[trial.trial_id][epoch] = result[self.metric] * self.metric_multiplier
        rung = self._new_rung(trial.trial_id, epoch)
        decision = super().on_trial_result(trial, result)
        if rung is None or rung != self.top or epoch >= self.max_t:
            return decision
        grows = not rankings_agree(self._values(rung), self._values(rung - 1), self.epsilon())
        if grows:
            self.top += 1
        if grows and decision == SchedulerDecision.CONTINUE:
            return decision
        self.paused[trial.trial_id] = rung
        return SchedulerDecision.PAUSE

    def on_trial_remove(self, trial: Trial) -> None:
        """Keep the trial's bracket, because the trial may be resumed."""

    def epsilon(self) -> float:
        """Return the difference that counts as noise, from the curves of trials in the top rung."""
        curves = [self.curves[trial] for trial in self.rungs[self.top]]
        return noise(curves, self.percentile)

    def _new_rung(self, trial: int, epoch: int) -> int | None:
        """Return the index of the highest rung that a trial has reached just now."""
        reached = [index for index, level in enumerate(self.levels) if epoch >= level]
        if not reached or trial in self.rungs[reached[-1]]:
            return None
        return reached[-1]

    def _values(self, rung: int) -> dict[int, float]:
        return {trial: recorded[self.metric] for trial, recorded in self.rungs[rung].items()}


def rankings_agree(upper: Mapping[int, float], lower: Mapping[int, float], epsilon: float) -> bool:
    """Return whether two rungs rank their common trials equally, up to epsilon.

    Args:
        upper: Values of the trials in the top rung; lower is better.
        lower: Values of these and other trials in the rung below.
        epsilon: Trials whose values differ by at most this may change places, >= 0.
    """
    places = sorted((trial for trial in upper if trial in lower), key=lambda trial: upper[trial])
    before = sorted(places, key=lambda trial: lower[trial])
    return all(
        abs(lower[now] - lower[then]) <= epsilon for now, then in zip(places, before, strict=True)
    )


def noise(curves: Sequence[Curve], percentile: float) -> float:
    """Return epsilon: the difference between trials whose curves cross twice (section 4.2).

    If the order of two trials changes and changes back, their difference is noise. Their difference
    at the last common epoch is a sample of it.

    Args:
        curves: Values of a metric by epoch, a curve for each trial.
        percentile: Percentile of the samples to return, in [0, 100].

    Returns:
        The percentile; 0 if no two curves cross twice.
    """
    samples = []
    for one, other in itertools.combinations(curves, 2):
        gaps = [one[epoch] - other[epoch] for epoch in sorted(one.keys() & other.keys())]
        signs = [np.sign(gap) for gap in gaps if gap]
        if sum(a != b for a, b in itertools.pairwise(signs)) >= 2:
            samples.append(abs(gaps[-1]))
    return float(np.percentile(samples, percentile)) if samples else 0.0
