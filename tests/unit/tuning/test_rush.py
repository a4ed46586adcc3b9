"""RUSH: by hand, and against ASHA over tabulated learning curves."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from simulated_search import SPACE, curves, experience_of, quality, search_by
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision

from renate_stages.tuning import History, TrialEpoch, TrialRecord
from renate_stages.tuning.schedulers import make_scheduler

CONTINUE, STOP = SchedulerDecision.CONTINUE, SchedulerDecision.STOP


def earlier(*rates: float):
    """Return what an update teaches in which the first rate was best, the second next, …"""
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


def test_the_best_of_before_are_the_hurdle_at_each_rung():
    scheduler = make_scheduler("rush", SPACE, "accuracy", "max", 27, 0, earlier(0.1, 0.2))
    # Levels 1, 3, 9, 27. The two of before come first; the second is behind at 1 and ends by ASHA.
    assert start(scheduler, 0, 0.5, 0.6, 0.7) == (0.1, [CONTINUE] * 3)
    assert start(scheduler, 1, 0.4) == (0.2, [STOP])
    assert scheduler.inner.thresholds == {1: -0.5, 3: -0.7}
    # New ones: better than the hurdle at 1, and at 3 for the first; as good as it counts.
    assert start(scheduler, 2, 0.55, 0.6, 0.72)[1] == [CONTINUE] * 3
    assert start(scheduler, 3, 0.60, 0.6, 0.69)[1] == [CONTINUE, CONTINUE, STOP]
    assert scheduler.inner.thresholds == {1: -0.5, 3: -0.7}  # new ones do not raise it


def test_one_that_asha_would_let_go_on_is_stopped_below_the_hurdle():
    halving = {"reduction_factor": 2}  # levels 1, 2, 4, …: the better half goes on
    past = earlier(0.1)
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


def test_the_second_of_before_can_raise_the_hurdle():
    scheduler = make_scheduler("rush", SPACE, "accuracy", "max", 27, 0, earlier(0.1, 0.2))
    start(scheduler, 0, 0.5)
    start(scheduler, 1, 0.6)
    assert scheduler.inner.thresholds == {1: -0.6}
    assert start(scheduler, 2, 0.55)[1] == [STOP]


def test_less_is_better_where_it_is():
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


def test_without_history_it_is_asha():
    rush = search_by("rush", curves(noise=0.01), seed=0)
    asha = search_by("asha", curves(noise=0.01), seed=0)
    assert rush.configurations == asha.configurations
    assert [each.values for each in rush.trials] == [each.values for each in asha.trials]


@pytest.mark.parametrize("workers", [1, 4])
def test_with_good_history_it_needs_fewer_epochs_than_asha(workers):
    epochs, found = {"asha": [], "rush": []}, {"asha": [], "rush": []}
    for seed in range(5):
        first = search_by("asha", curves(noise=0.01), seed=100 + seed)
        today = curves(noise=0.01, shift=0.2)  # the best learning rate has moved a little
        for name, past in (("asha", None), ("rush", experience_of(first))):
            done = search_by(name, today, seed, past=past, workers=workers)
            epochs[name].append(done.epochs)
            found[name].append(quality(done.chosen, shift=0.2))
    assert np.mean(epochs["rush"]) < 0.7 * np.mean(epochs["asha"])
    assert np.mean(found["rush"]) > np.mean(found["asha"]) - 0.005  # of 0.95


def test_history_that_has_become_bad_does_not_hide_what_is_better():
    bad = earlier(0.9, 0.95, 0.99)
    found = [
        quality(search_by("rush", curves(noise=0.01), seed, past=bad).chosen) for seed in range(3)
    ]
    assert min(found) > 0.92  # those of before reach 0.71
