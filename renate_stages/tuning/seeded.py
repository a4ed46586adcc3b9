"""A wrapper for schedulers that makes them reproducible from a seed."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision, TrialScheduler, TrialSuggestion

from renate_stages.params.search_space import SearchSpace

RESOURCE = "epoch"  # name of the number of epochs run so far in a trial's reports
DRAWS = 1000


class SeededScheduler(TrialScheduler):
    """A scheduler with its own random state, which tries no configuration twice.

    Syne Tune's schedulers use the global random generators even if they get a seed. This class swaps
    the state of these generators during each call. So equal seeds and equal results give equal
    suggestions, and other users of the generators are not affected.

    A trial that has run all its epochs is not stopped but ends by itself. A trial whose metric is
    not finite is stopped.

    Args:
        build: Creates the scheduler that makes the decisions.
        space: The search space.
        metric: Name of the objective in trial reports.
        mode: `max` or `min`.
        max_epochs: Maximum epochs of a trial, >= 1.
        seed: Seed in [0, 2^32).
    """

    def __init__(
        self,
        build: Callable[[], TrialScheduler],
        space: SearchSpace,
        metric: str,
        mode: str,
        max_epochs: int,
        seed: int,
    ) -> None:
        self._randomness = _Randomness(seed)
        self._draws = np.random.default_rng(seed)
        with self._randomness.in_place():
            super().__init__(random_seed=seed)
            self.inner = build()
        self.space, self.metric, self.mode, self.max_epochs = space, metric, mode, max_epochs
        self._tried: set[str] = set()

    def suggest(self) -> TrialSuggestion | None:
        """Return a trial to start or to resume, or None if all configurations were tried."""
        with self._randomness.in_place():
            suggestion = self.inner.suggest()
        if suggestion is None or not suggestion.spawn_new_trial_id or suggestion.config is None:
            return suggestion
        for _ in range(DRAWS):
            tried = json.dumps(self.space.complete(suggestion.config), sort_keys=True, default=str)
            if tried not in self._tried:
                self._tried.add(tried)
                return suggestion
            drawn = {name: each.draw(self._draws) for name, each in self.space.domains.items()}
            suggestion.config = suggestion.config | self.space.encode(drawn)
        return None

    def resume(self) -> TrialSuggestion | None:
        """Return a paused trial to resume, or None; called when no more trials may be started."""
        resume = getattr(self.inner, "resume", None)
        return resume() if resume else None

    def on_trial_add(self, trial: Trial) -> None:
        with self._randomness.in_place():
            self.inner.on_trial_add(trial)

    def on_trial_result(self, trial: Trial, result: dict[str, Any]) -> str:
        """Decide after an epoch; `result` has the metric and `epoch`, the epochs run so far."""
        if not math.isfinite(result[self.metric]):
            return SchedulerDecision.STOP
        with self._randomness.in_place():
            decision = self.inner.on_trial_result(trial, result)
        return SchedulerDecision.CONTINUE if result[RESOURCE] >= self.max_epochs else decision

    def on_trial_complete(self, trial: Trial, result: dict[str, Any]) -> None:
        if not math.isfinite(result[self.metric]):
            return self.on_trial_error(trial)
        with self._randomness.in_place():
            self.inner.on_trial_complete(trial, result)

    def on_trial_error(self, trial: Trial) -> None:
        with self._randomness.in_place():
            self.inner.on_trial_error(trial)

    def on_trial_remove(self, trial: Trial) -> None:
        with self._randomness.in_place():
            self.inner.on_trial_remove(trial)

    def metric_names(self) -> list[str]:
        return [self.metric]

    def metric_mode(self) -> str:
        return self.mode

    def metadata(self) -> dict[str, Any]:
        return {
            "scheduler_name": type(self.inner).__name__,
            "metric_names": self.metric_names(),
            "metric_mode": self.mode,
        }


class _Randomness:
    """A separate state of the global random generators."""

    def __init__(self, seed: int) -> None:
        self._python = random.Random(seed).getstate()
        self._numpy = np.random.RandomState(seed).get_state()
        self._torch: Any = None
        self._seed = seed

    @contextmanager
    def in_place(self) -> Iterator[None]:
        torch = sys.modules.get("torch")  # a scheduler that uses torch has already imported it
        outside = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        if torch:
            own = self._torch
            torch.set_rng_state(
                torch.Generator().manual_seed(self._seed).get_state() if own is None else own
            )
        try:
            yield
        finally:
            self._python, self._numpy = random.getstate(), np.random.get_state()
            random.setstate(outside[0])
            np.random.set_state(outside[1])
            if torch:
                self._torch = torch.get_rng_state()
                torch.set_rng_state(outside[2])
