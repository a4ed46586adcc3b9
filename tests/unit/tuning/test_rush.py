"""RUSH: worked examples, and a comparison with ASHA on simulated learning curves."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from simulated_search import SPACE, curves, history_of, quality, search_with
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision

from renate_stages.tuning import History, TrialEpoch, TrialRecord
from renate_stages.tuning.schedulers import make_scheduler

CONTINUE, STOP = SchedulerDecision.CONTINUE, SchedulerDecision.STOP


def history_of_rates(*rates: float):
    """Return the history of one update with these learning rates, ordered from best to worst."""
    records = [
        TrialRecord(
            1,
            number,
            "completed",
            {"learning_rate": rate, "momentum": 0.5},
            (TrialEpoch(1, 1, {"accuracy": 0.9 - number / 100}),),
        )
        for number, rate in enumerate(rates)
    ]
    return History().with_trials(records).usable(SPACE, "accuracy", "max")


def start(scheduler, number: int, *values: float) -> tuple[float, list[str]]:
    trial = Trial(number, scheduler.suggest().config, datetime(2026, 1, 1))
    scheduler.on_trial_add(trial)
    reports = [{"accuracy": value, "epoch": n} for n, value in enumerate(values, 1)]
    decisions = [scheduler.on_trial_result(trial, report) for report in reports]
    if STOP in decisions:
        scheduler.on_trial_remove(trial)
    return trial.config["learning_rate"], decisions


def test_best_earlier_trials_set_the_threshold_at_each_rung():
    scheduler = make_scheduler("rush", SPACE, "accuracy", "max", 27, 0, history_of_rates(0.1, 0.2))
    # Rungs 1, 3, 9, 27. The two previous rates come first; the second is worse at 1: ASHA stops it.
    assert start(scheduler, 0, 0.5, 0.6, 0.7) == (0.1, [CONTINUE] * 3)
    assert start(scheduler, 1, 0.4) == (0.2, [STOP])
    assert scheduler.inner.thresholds == {1: -0.5, 3: -0.7}
    # Both new trials pass the threshold at rung 1, but only the first passes that at rung 3.
    assert start(scheduler, 2, 0.55, 0.6, 0.72)[1] == [CONTINUE] * 3
    assert start(scheduler, 3, 0.60, 0.6, 0.69)[1] == [CONTINUE, CONTINUE, STOP]
    assert scheduler.inner.thresholds == {1: -0.5, 3: -0.7}  # new trials do not raise it


def test_trial_below_the_threshold_is_stopped_although_asha_continues_it():
    halving = {"reduction_factor": 2}  # rungs 1, 2, 4, …: the better half continues
    past = history_of_rates(0.1)
    rush = make_scheduler("rush", SPACE, "accuracy", "max", 8, 0, past, halving)
    asha = make_scheduler("asha", SPACE, "accuracy", "max", 8, 0, past, halving)
    decisions = {}
    for name, scheduler in (("rush", rush), ("asha", asha)):
        values = [0.5, 0.2, 0.3, 0.49, 0.5]
        decisions[name] = [start(scheduler, n, value)[1][0] for n, value in enumerate(values)]
    # At the first rung, ASHA's limit is a rank of one half: 0.2 is second of two, 0.3 second of
    # three, 0.49 second of four, 0.5 shares the first place.
    assert decisions["asha"] == [CONTINUE] * 5
    assert decisions["rush"] == [CONTINUE, STOP, STOP, STOP, CONTINUE]


def test_second_earlier_configuration_can_raise_the_threshold():
    scheduler = make_scheduler("rush", SPACE, "accuracy", "max", 27, 0, history_of_rates(0.1, 0.2))
    start(scheduler, 0, 0.5)
    start(scheduler, 1, 0.6)
    assert scheduler.inner.thresholds == {1: -0.6}
    assert start(scheduler, 2, 0.55)[1] == [STOP]


def test_rush_minimises_a_metric_with_mode_min():
    past = History().with_trials(
        [TrialRecord(1, 0, "completed", {"learning_rate": 0.1}, (TrialEpoch(1, 1, {"loss": 1.0}),))]
    )
    scheduler = make_scheduler(
        "rush", SPACE, "loss", "min", 27, 0, past.usable(SPACE, "loss", "min")
    )
    for number, (loss, decision) in enumerate([(0.5, CONTINUE), (0.6, STOP), (0.4, CONTINUE)]):
        trial = Trial(number, scheduler.suggest().config, datetime(2026, 1, 1))
        scheduler.on_trial_add(trial)
        assert scheduler.on_trial_result(trial, {"loss": loss, "epoch": 1}) == decision


def test_rush_without_history_equals_asha():
    rush = search_with("rush", curves(noise=0.01), seed=0)
    asha = search_with("asha", curves(noise=0.01), seed=0)
    assert rush.configurations == asha.configurations
    assert [each.values for each in rush.trials] == [each.values for each in asha.trials]


@pytest.mark.parametrize("workers", [1, 4])
def test_rush_with_good_history_needs_fewer_epochs_than_asha(workers):
    epochs, found = {"asha": [], "rush": []}, {"asha": [], "rush": []}
    for seed in range(5):
        first = search_with("asha", curves(noise=0.01), seed=100 + seed)
        today = curves(noise=0.01, shift=0.2)  # the best learning rate has moved a little
        for name, past in (("asha", None), ("rush", history_of(first))):
            done = search_with(name, today, seed, past=past, workers=workers)
            epochs[name].append(done.epochs)
            found[name].append(quality(done.chosen, shift=0.2))
    assert np.mean(epochs["rush"]) < 0.7 * np.mean(epochs["asha"])
    assert np.mean(found["rush"]) > np.mean(found["asha"]) - 0.005  # the optimum is 0.95


def test_rush_with_outdated_history_still_finds_good_configurations():
    bad = history_of_rates(0.9, 0.95, 0.99)
    found = [
        quality(search_with("rush", curves(noise=0.01), seed, past=bad).chosen) for seed in range(3)
    ]
    assert min(found) > 0.92  # the previous trials reach 0.71
