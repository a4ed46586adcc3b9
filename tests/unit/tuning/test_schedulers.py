"""All schedulers: creation by name, search, reproducibility, and use of earlier trials."""

from __future__ import annotations

import logging
import random
import sys
from datetime import datetime
from importlib.util import find_spec
from logging.handlers import BufferingHandler

import numpy as np
import pytest
import torch
from simulated_search import SPACE, curves, history_of, quality, search, search_with
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision

from renate_stages import errors
from renate_stages.params.schedulers import SCHEDULERS
from renate_stages.params.search_space import SearchSpace
from renate_stages.tuning import History, TrialEpoch, TrialRecord
from renate_stages.tuning.schedulers import make_scheduler

HAS_BOTORCH = find_spec("botorch") is not None
NAMES = [name for name in SCHEDULERS if name != "bo" or HAS_BOTORCH]


def scheduler_names(*slow: str) -> list:
    """Return the schedulers as test parameters; those in `slow` fit models and are marked slow."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in NAMES]


MIXED = SearchSpace.of(
    {"choice": ["ER", "DER", "LwF"]},
    {
        "alpha": {"uniform": [0, 1]},
        "rate": {"loguniform": [0.001, 1]},
        "batch_size": {"ordinal": [16, 32, 64]},
        "layers": {"randint": [1, 4]},
        "width": {"logfinrange": [16, 128, 4]},
        "share": {"finrange": [0.0, 1.0, 5]},
        "optimizer": {"choice": ["SGD", None, True]},
        "units": {"lograndint": [8, 512]},
    },
)


def curve(configuration):
    """Return the values of 9 epochs, higher near a rate of 0.03."""
    distance = abs(np.log10(configuration["rate"]) + 1.5) + (configuration["optimizer"] is None)
    return (0.9 - 0.2 * distance) * (1 - 0.5 ** np.arange(1, 10))


@pytest.fixture(scope="module")
def past():
    """Return the history of two earlier updates with random trials."""
    trials = []
    for update in (1, 2):
        scheduler = make_scheduler("random", MIXED, "accuracy", "max", 9, seed=update)
        done = search(scheduler, MIXED, curve, trials=8)
        trials += done.records(update)
    history = History().with_trials(trials)
    return history.usable(MIXED, "accuracy", "max")


def run(name, past=None, seed=0, trials=12, **arguments):
    scheduler = make_scheduler(name, MIXED, "accuracy", "max", 9, seed, past, arguments)
    return search(scheduler, MIXED, curve, trials=trials, workers=2)


@pytest.mark.parametrize("name", scheduler_names("asha-cqr", "quantile"))
def test_every_scheduler_searches_a_space_with_all_kinds_of_domains(name, past):
    options = {"points": 2} if name == "grid" else {}
    done = run(name, past, **options)
    assert len(done.trials) == 12 and done.epochs >= 12
    for each in done.configurations:
        assert set(each) - {"alpha"} == set(MIXED.domains) - {"alpha"}
        assert ("alpha" in each) == (each["learner"] == "DER")
        assert MIXED.accepts(each) == each
    assert len({repr(each) for each in done.configurations}) == 12


@pytest.mark.parametrize("name", scheduler_names("asha-cqr", "cqr"))
def test_every_scheduler_depends_on_its_seed_but_not_on_global_generators(name, past):
    options: dict = {"trials": 9} | ({"points": 2} if name == "grid" else {})
    first = run(name, past, seed=3, **options)
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    again = run(name, past, seed=3, **options)
    assert again.configurations == first.configurations
    assert [each.values for each in again.trials] == [each.values for each in first.trials]
    assert before[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(before[2], torch.get_rng_state())
    if name != "zero-shot":  # it orders earlier configurations and draws nothing
        assert run(name, past, seed=4, **options).configurations != first.configurations


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grid"])
def test_search_starts_with_the_best_earlier_configurations_or_the_middle_one(name, past):
    assert run(name, trials=1).configurations == [MIXED.middle()]
    if name not in ("bounding-box", "quantile", "zero-shot"):
        best = [MIXED.complete(point) for point in past.best(3)]
        assert run(name, past, trials=3).configurations == best


@pytest.mark.parametrize("name", ["bounding-box", "quantile", "zero-shot"])
def test_transfer_methods_suggest_good_configurations_from_the_start(name):
    past = history_of(search_with("random", curves(0.0), seed=1, trials=24))

    def mean_quality(done):
        return np.mean([quality(each) for each in done.configurations])

    found = mean_quality(search_with(name, curves(0.0), seed=2, trials=8, past=past))
    assert found > mean_quality(search_with("random", curves(0.0), seed=2, trials=8)) + 0.05


@pytest.mark.parametrize("name", ["bounding-box", "quantile", "zero-shot", "rush", "tpe"])
@pytest.mark.parametrize("trials", [1, 2, 3])
def test_transfer_methods_accept_a_history_of_one_to_three_trials(name, trials):
    past = history_of(search_with("random", curves(0.0), seed=1, trials=trials))
    done = search_with(name, curves(0.0), seed=2, trials=5, past=past)
    assert len(done.trials) == 5


def test_transfer_methods_follow_the_mode_min_or_max():
    rates = np.geomspace(0.001, 1, 24)
    records = [
        TrialRecord(1, n, "completed", {"rate": float(r)}, (TrialEpoch(1, 1, {"loss": float(r)}),))
        for n, r in enumerate(rates)
    ]
    space = SearchSpace.of("ER", {"rate": {"loguniform": [0.001, 1]}})
    for mode, good in (("min", lambda rate: rate < 0.1), ("max", lambda rate: rate > 0.1)):
        past = History().with_trials(records).usable(space, "loss", mode)
        for name in ("bounding-box", "quantile", "zero-shot"):
            scheduler = make_scheduler(name, space, "loss", mode, 9, 0, past)
            suggested = [space.complete(scheduler.suggest().config)["rate"] for _ in range(5)]
            assert all(map(good, suggested)), (name, mode, suggested)


def test_zero_shot_orders_configurations_by_joint_mean_rank():
    space = SearchSpace.of("ER", {"x": {"choice": [1, 2, 3, 4]}})
    values = {1: {1: 0.9, 2: 0.8, 3: 0.1, 4: 0.7}, 2: {1: 0.1, 2: 0.8, 3: 0.9, 4: 0.7}}
    records = [
        TrialRecord(update, x, "completed", {"x": x}, (TrialEpoch(1, 1, {"a": value}),))
        for update, each in values.items()
        for x, value in each.items()
    ]
    past = History().with_trials(records).usable(space, "a", "max")
    scheduler = make_scheduler("zero-shot", space, "a", "max", 1, 0, past)
    order = [space.complete(scheduler.suggest().config)["x"] for _ in range(4)]
    # Ranks on updates 2 and 1: x=1: 4, 1; x=2: 2, 2; x=3: 1, 4; x=4: 3, 3. x=2 has the best mean
    # rank, 2. Then x=3 or x=1 lowers it to 1.5; x=3 was best in the later update.
    assert order == [2, 3, 1, 4] and scheduler.suggest() is None


def test_search_of_a_finite_space_tries_each_configuration_once():
    space = SearchSpace.of("ER", {"a": {"choice": [1, 2, 3]}, "b": {"randint": [1, 3]}})
    for name in ("random", "tpe", "grid", "asha", "rush"):
        scheduler = make_scheduler(name, space, "accuracy", "max", 3, seed=0)
        done = search(scheduler, space, lambda c: np.full(3, c["a"] + c["b"]), trials=20)
        assert len(done.trials) == 9, name
        assert len({repr(each) for each in done.configurations}) == 9


def test_values_that_a_learner_ignores_do_not_make_new_configurations():
    space = SearchSpace.of({"choice": ["ER", "DER"]}, {"alpha": {"choice": [0.1, 0.2, 0.3]}})
    for name in ("random", "grid"):
        scheduler = make_scheduler(name, space, "accuracy", "max", 1, seed=0)
        done = search(scheduler, space, lambda _: np.ones(1), trials=20)
        assert len(done.trials) == 4, name  # ER, and DER with each alpha


def test_grid_search_tries_all_combinations():
    space = SearchSpace.of("ER", {"a": {"uniform": [0, 1]}, "b": {"choice": ["x", "y"]}})
    scheduler = make_scheduler("grid", space, "a", "max", 1, 0, arguments={"points": 3})
    done = search(scheduler, space, lambda _: np.ones(1), trials=20, metric="a")
    found = sorted((each["a"], each["b"]) for each in done.configurations)
    assert found == [(a, b) for a in (0.0, 0.5, 1.0) for b in ("x", "y")]


def trial_of(scheduler, number=0) -> Trial:
    trial = Trial(number, scheduler.suggest().config, datetime(2026, 1, 1))
    scheduler.on_trial_add(trial)
    return trial


@pytest.mark.parametrize("name", ["asha", "pasha", "rush"])
def test_trial_at_its_last_epoch_is_not_stopped(name):
    scheduler = make_scheduler(name, SPACE, "accuracy", "max", 1, seed=0)
    report = {"accuracy": 0.5, "epoch": 1}
    assert scheduler.on_trial_result(trial_of(scheduler), report) == SchedulerDecision.CONTINUE


@pytest.mark.parametrize("name", NAMES)
def test_trial_with_nan_metric_is_stopped_and_the_search_continues(name):
    scheduler = make_scheduler(name, MIXED, "accuracy", "max", 9, seed=0)
    trial = trial_of(scheduler)
    report = {"accuracy": float("nan"), "epoch": 1}
    assert scheduler.on_trial_result(trial, report) == SchedulerDecision.STOP
    scheduler.on_trial_remove(trial)
    other = trial_of(scheduler, 1)
    scheduler.on_trial_error(other)
    assert scheduler.suggest() is not None


def test_median_stopping_stops_some_trials_early():
    done = search_with("median", curves(0.0), seed=0, trials=20)
    assert {each.status for each in done.trials} == {"stopped", "completed"}


def test_syne_tune_scheduler_is_created_by_its_dotted_name():
    name = "syne_tune.optimizer.baselines.REA"
    done = run(name, population_size=4, sample_size=2)
    assert len(done.trials) == 12 and done.configurations[0] == MIXED.middle()
    assert run(name).configurations == run(name).configurations
    asha = make_scheduler(
        "syne_tune.optimizer.baselines:ASHA", SPACE, "accuracy", "min", 9, 0, None, {"brackets": 2}
    )
    assert (asha.inner.max_t, asha.inner.time_attr, asha.metric_mode()) == (9, "epoch", "min")
    assert asha.metric_names() == ["accuracy"] and asha.metadata()["scheduler_name"] == "ASHA"


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("rsh", {}, "unknown scheduler 'rsh', did you mean 'rush'? (known: random, grid, bo"),
        ("asha", {"graceperiod": 2}, "asha has no such argument, did you mean 'grace_period'?"),
        ("random", {"x": 2}, "random has no such argument (it has: none)"),
        ("asha", {"reduction_factor": 1}, "asha refuses {'reduction_factor': 1}: reduction factor"),
        ("asha", {"grace_period": 10}, "asha refuses {'grace_period': 10}: grace_period must be"),
        (
            "no_such_module.Scheduler",
            {},
            "the class no_such_module.Scheduler cannot be imported: No module",
        ),
        ("syne_tune.Nothing", {}, "the class syne_tune.Nothing cannot be imported"),
        ("pathlib.Path", {}, "pathlib.Path is not a subclass of Syne Tune's TrialScheduler"),
        ("syne_tune.optimizer.baselines.REA", {"x": 1}, "refuses {'x': 1}: "),
    ],
)
def test_invalid_scheduler_or_argument_is_reported_as_params_error(name, arguments, expected):
    with pytest.raises(errors.InvalidParamsError) as raised:
        make_scheduler(name, SPACE, "accuracy", "max", 9, 0, None, arguments)
    (problem,) = raised.value.problems
    assert problem.startswith("tuning.scheduler") and expected in problem


@pytest.mark.skipif(HAS_BOTORCH, reason="BoTorch is installed")
def test_bayesian_optimisation_error_names_the_missing_extra():
    with pytest.raises(errors.MissingExtraError, match=r'pip install "renate-stages\[bo\]"'):
        make_scheduler("bo", SPACE, "accuracy", "max", 9, seed=0)


@pytest.mark.skipif(not HAS_BOTORCH, reason="needs the extra bo")
@pytest.mark.parametrize("workers", [1, 3])
def test_bayesian_optimisation_finds_a_near_optimal_configuration(workers, monkeypatch):
    logged = BufferingHandler(1000)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logged])
    done = search_with("bo", curves(0.0), seed=0, trials=14, workers=workers)
    assert not logged.buffer  # after an error, Syne Tune logs it and draws at random
    found = [quality(each) for each in done.configurations]
    assert max(found) > 0.9495 and int(np.argmax(found)) > 3  # optimum 0.95; starts at random


@pytest.mark.skipif(find_spec("huggingface_hub") is not None, reason="huggingface_hub is installed")
def test_stub_of_a_missing_package_is_removed_from_sys_modules():
    run("cqr", trials=8)
    assert "huggingface_hub" not in sys.modules


def test_history_of_another_metric_is_not_used():
    past = history_of(search_with("random", curves(0.0), seed=0, trials=3))
    assert len(past.trials) == 3
    history = History().with_trials(search_with("random", curves(0.0), seed=0, trials=3).records(1))
    assert history.usable(SPACE, "loss", "min").trials == ()
