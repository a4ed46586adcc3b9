"""PASHA: ASHA that trains longer only while longer training still changes who is best."""

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

    Trials run to the second rung at first. After each trial that reaches the top rung, the ranking
    there is compared with that of the same trials one rung below; where they differ, the next rung
    becomes the top one. Two trials within epsilon of each other may change places (soft ranking).

    Below the top rung it is Syne Tune's ASHA, of the stopping kind. At the top rung a trial pauses;
    when the top rises, the best 1 / `reduction_factor` of the paused ones are resumed.

    Args:
        percentile: Which percentile of the noisy differences is epsilon, in [0, 100].
        halving: Arguments of Syne Tune's ASHA.
    """

    def __init__(self, *, percentile: float = 90.0, **halving: Any) -> None:
        super().__init__(**halving)
        self.percentile = percentile
        rungs = [rung for rung in reversed(self.brackets[0].rungs) if rung[0] < self.max_t]
        self.levels = [level for level, _ in rungs]
        self.rungs: list[dict[int, dict[str, float]]] = [recorded for _, recorded in rungs]
        self.top = 1  # index of the top rung; len(self.rungs): trials run to max_t
        self.curves: dict[int, dict[int, float]] = defaultdict(dict)
        self.paused: dict[int, int] = {}  # the rung at which a trial waits

    def suggest(self) -> TrialSuggestion | None:
        """Resume a trial that may go on since the top rose, else start a new one."""
        return self.resume() or super().suggest()

    def resume(self) -> TrialSuggestion | None:
        """Return the best trial that paused below the top and is in the best part of its rung."""
        for rung in range(min(self.top, len(self.rungs)) - 1, 0, -1):
            values = self._values(rung)
            waiting = [trial for trial, at in self.paused.items() if at == rung]
            for trial in sorted(waiting, key=lambda each: values[each]):
                better = sum(value < values[trial] for value in values.values())
                if better / len(values) <= 1 / self.reduction_factor:
                    del self.paused[trial]
                    return TrialSuggestion.resume_suggestion(trial)
        return None

    def on_trial_result(self, trial: Trial, result: dict[str, Any]) -> str:
        """Decide after an epoch: go on, pause at the top rung, or stop below it."""
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
        """Keep the trial's bracket: it may be resumed."""

    def epsilon(self) -> float:
        """Return the difference that is noise, from the curves of the trials in the top rung."""
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
    """Return whether each trial's place in the upper rung is one it may have in the lower.

    Args:
        upper: Values of the trials in the top rung, less is better.
        lower: Values in the rung below, of these and other trials.
        epsilon: A trial may take the place of another within this difference, >= 0.
    """
    places = sorted((trial for trial in upper if trial in lower), key=lambda each: upper[each])
    before = sorted(places, key=lambda each: lower[each])
    return all(
        abs(lower[now] - lower[then]) <= epsilon for now, then in zip(places, before, strict=True)
    )


def noise(curves: Sequence[Curve], percentile: float) -> float:
    """Return epsilon: how far trials lie apart that cross back and forth (section 4.2).

    Two trials whose order changes and changes back are told apart by noise only; how far they are
    apart at the last epoch of both is a sample of it.

    Args:
        curves: Values of a metric by epoch, a curve for each trial.
        percentile: Which one of the samples, in [0, 100].

    Returns:
        0 where no two curves cross twice.
    """
    samples = []
    for one, other in itertools.combinations(curves, 2):
        gaps = [one[epoch] - other[epoch] for epoch in sorted(one.keys() & other.keys())]
        signs = [np.sign(gap) for gap in gaps if gap]
        if sum(a != b for a, b in itertools.pairwise(signs)) >= 2:
            samples.append(abs(gaps[-1]))
    return float(np.percentile(samples, percentile)) if samples else 0.0
