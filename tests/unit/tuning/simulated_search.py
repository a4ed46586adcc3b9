"""Simulate searches on given learning curves: call schedulers as a tuner does, without training."""

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
    """A trial and the values that it has reported."""

    trial: Trial
    values: list[float] = field(default_factory=list)
    status: str = "running"


@dataclass
class Search:
    """The outcome of a search.

    Args:
        space: The search space.
        trials: All trials that were started.
        resumed: Number of times that trials were resumed.
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
        """Return the configuration with the best value of all trials."""
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
    """Run a search in which all running trials advance by one epoch in turn.

    Args:
        scheduler: The scheduler under test.
        space: The search space.
        curve: Returns the values of a configuration after each epoch, (epochs,).
        trials: Number of trials to start.
        workers: Number of trials that run at a time.
        metric: Name of the metric in reports.
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


def search_with(
    name: str, curve: Callable, seed: int, *, trials: int = 40, past: Any = None, **options: Any
) -> Search:
    """Search `SPACE` with a scheduler given by name, on curves of `EPOCHS` values."""
    arguments = options.pop("arguments", None)
    scheduler = make_scheduler(name, SPACE, "accuracy", "max", EPOCHS, seed, past, arguments)
    return search(scheduler, SPACE, curve, trials=trials, **options)


def quality(configuration: Mapping[str, Any], shift: float = 0.0) -> float:
    """Return the final value of a configuration; it is best near a learning rate of 0.05.

    Args:
        configuration: Values of `learning_rate` and `momentum`.
        shift: Shift of the best learning rate, in decades.
    """
    distance = np.log10(configuration["learning_rate"]) - (np.log10(0.05) + shift)
    return float(0.95 - 0.15 * distance**2 - 0.2 * (configuration["momentum"] - 0.7) ** 2)


def curves(
    noise: float, shift: float = 0.0, spread: float = 0.1
) -> Callable[[Mapping[str, Any]], np.ndarray]:
    """Return a function that gives the saturating learning curve of a configuration.

    Args:
        noise: Standard deviation of a value.
        shift: Shift of the best learning rate, as in `quality`.
        spread: Standard deviation of the logarithm of the learning speed.
    """

    def curve(configuration: Mapping[str, Any]) -> np.ndarray:
        last = quality(configuration, shift)
        draws = np.random.default_rng(zlib.crc32(repr(sorted(configuration.items())).encode()))
        speed = 0.4 * np.exp(spread * draws.normal())
        epochs = np.arange(1, EPOCHS + 1)
        return last - (last - 0.1) * np.exp(-speed * epochs) + noise * draws.normal(size=EPOCHS)

    return curve


def history_of(past: Search, update: int = 1) -> Any:
    """Return the trials of a search as history for the next search."""
    return History().with_trials(past.records(update)).usable(SPACE, "accuracy", "max")
