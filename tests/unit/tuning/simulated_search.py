"""Searches over tabulated learning curves: schedulers are driven as a tuner does, nothing trains."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision

from renate_stages.params.search_space import SearchSpace
from renate_stages.tuning import History, TrialEpoch, TrialRecord
from renate_stages.tuning.schedulers import make_scheduler

EPOCHS = 81
SPACE = SearchSpace.of(
    "ER", {"learning_rate": {"loguniform": [0.001, 1.0]}, "momentum": {"uniform": [0.0, 1.0]}}
)


@dataclass
class SimulatedTrial:
    """A trial, and what it has reported."""

    trial: Trial
    values: list[float] = field(default_factory=list)
    status: str = "running"


@dataclass
class Search:
    """What a search did.

    Args:
        space: What was searched.
        trials: All that were started.
        resumed: How often a trial was resumed.
    """

    space: SearchSpace
    trials: list[SimulatedTrial] = field(default_factory=list)
    resumed: int = 0

    @property
    def epochs(self) -> int:
        return sum(len(each.values) for each in self.trials)

    @property
    def configurations(self) -> list[dict[str, Any]]:
        return [self.space.complete(each.trial.config) for each in self.trials]

    @property
    def chosen(self) -> dict[str, Any]:
        """The configuration with the best value of all."""
        best = max(range(len(self.trials)), key=lambda index: max(self.trials[index].values))
        return self.configurations[best]

    def records(self, update: int, metric: str = "accuracy") -> list[TrialRecord]:
        return [
            TrialRecord(
                update,
                number,
                each.status,
                {"learner": "ER", **configuration},
                tuple(TrialEpoch(n, 10 * n, {metric: v}) for n, v in enumerate(each.values, 1)),
            )
            for number, (each, configuration) in enumerate(
                zip(self.trials, self.configurations, strict=True)
            )
        ]


def search(
    scheduler: Any,
    space: SearchSpace,
    curve: Callable[[Mapping[str, Any]], np.ndarray],
    *,
    trials: int,
    workers: int = 1,
    metric: str = "accuracy",
) -> Search:
    """Run a search: each running trial takes an epoch in turn.

    Args:
        scheduler: What decides.
        space: What is searched.
        curve: Values of a configuration after each epoch, (epochs,).
        trials: How many to start.
        workers: How many run at a time.
        metric: Name of the values in reports.
    """
    done = Search(space)
    running: list[SimulatedTrial] = []
    while True:
        while len(running) < workers:
            full = len(done.trials) == trials
            suggestion = scheduler.resume() if full else scheduler.suggest()
            if suggestion is None:
                break
            if not suggestion.spawn_new_trial_id:
                resumed = done.trials[suggestion.checkpoint_trial_id]
                assert resumed.status == "paused"
                resumed.status, done.resumed = "running", done.resumed + 1
                running.append(resumed)
                continue
            trial = Trial(len(done.trials), suggestion.config, datetime(2026, 1, 1))
            done.trials.append(SimulatedTrial(trial))
            running.append(done.trials[-1])
            scheduler.on_trial_add(trial)
        if not running:
            return done
        for each in list(running):
            values = curve(space.complete(each.trial.config))
            each.values.append(float(values[len(each.values)]))
            report = {metric: each.values[-1], "epoch": len(each.values)}
            decision = scheduler.on_trial_result(each.trial, report)
            if decision != SchedulerDecision.CONTINUE:
                each.status = "stopped" if decision == SchedulerDecision.STOP else "paused"
                scheduler.on_trial_remove(each.trial)
            elif len(each.values) == len(values):
                each.status = "completed"
                scheduler.on_trial_complete(each.trial, report)
            if each.status != "running":
                running.remove(each)


def search_by(
    name: str, curve: Callable, seed: int, *, trials: int = 40, past: Any = None, **options: Any
) -> Search:
    """Make a scheduler by name for `SPACE` and run a search of curves of `EPOCHS` values."""
    arguments = options.pop("arguments", None)
    scheduler = make_scheduler(name, SPACE, "accuracy", "max", EPOCHS, seed, past, arguments)
    return search(scheduler, SPACE, curve, trials=trials, **options)


def quality(configuration: Mapping[str, Any], shift: float = 0.0) -> float:
    """Return what a configuration reaches in the end; best near a learning rate of 0.05.

    Args:
        configuration: Has `learning_rate` and `momentum`.
        shift: How far the best place has moved, in decades of the learning rate.
    """
    distance = np.log10(configuration["learning_rate"]) - (np.log10(0.05) + shift)
    return float(0.95 - 0.15 * distance**2 - 0.2 * (configuration["momentum"] - 0.7) ** 2)


def curves(
    noise: float, shift: float = 0.0, spread: float = 0.1
) -> Callable[[Mapping[str, Any]], np.ndarray]:
    """Return the learning curve of each configuration: it saturates.

    Args:
        noise: Standard deviation of a value.
        shift: As in `quality`.
        spread: How much the speed of learning differs, as the deviation of its logarithm.
    """

    def curve(configuration: Mapping[str, Any]) -> np.ndarray:
        last = quality(configuration, shift)
        draws = np.random.default_rng(zlib.crc32(repr(sorted(configuration.items())).encode()))
        speed = 0.4 * np.exp(spread * draws.normal())
        epochs = np.arange(1, EPOCHS + 1)
        return last - (last - 0.1) * np.exp(-speed * epochs) + noise * draws.normal(size=EPOCHS)

    return curve


def experience_of(past: Search, update: int = 1) -> Any:
    """Return what a search teaches the next one."""
    return History().with_trials(past.records(update)).usable(SPACE, "accuracy", "max")
