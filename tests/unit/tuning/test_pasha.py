"""PASHA: by hand, and against ASHA over tabulated learning curves."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from simulated_search import EPOCHS, SPACE, curves, quality, search_by
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.scheduler import SchedulerDecision

from renate_stages.tuning.pasha import noise, rankings_agree
from renate_stages.tuning.schedulers import make_scheduler

CONTINUE, PAUSE, STOP = (
    SchedulerDecision.CONTINUE,
    SchedulerDecision.PAUSE,
    SchedulerDecision.STOP,
)


@pytest.mark.parametrize(
    ("upper", "lower", "epsilon", "agree"),
    [
        ({0: 0.1}, {0: 0.3, 1: 0.1}, 0.0, True),  # one trial is always first
        ({0: 0.1, 1: 0.2}, {0: 0.3, 1: 0.4}, 0.0, True),
        ({0: 0.1, 1: 0.2}, {0: 0.4, 1: 0.3}, 0.0, False),
        ({0: 0.1, 1: 0.2}, {0: 0.4, 1: 0.3}, 0.05, False),  # 0.1 apart
        ({0: 0.1, 1: 0.2}, {0: 0.4, 1: 0.3}, 0.15, True),
        ({0: 0.1, 1: 0.2}, {0: 0.3, 1: 0.3}, 0.0, True),  # equals may change places
        ({0: 0.1, 1: 0.2}, {0: 0.4, 1: 0.5, 2: 0.0}, 0.0, True),  # 2 is not in the top rung
        # Above 0, 1, 2; below 1, 0, 2 with 0 and 1 within epsilon, then 1, 2, 0 with 0 beyond it.
        ({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.42, 1: 0.40, 2: 0.5}, 0.03, True),
        ({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.52, 1: 0.40, 2: 0.5}, 0.03, False),
    ],
)
def test_rankings_agree_where_nobody_takes_the_place_of_one_far_away(upper, lower, epsilon, agree):
    assert rankings_agree(upper, lower, epsilon) is agree


def curve(*values: float) -> dict[int, float]:
    return dict(enumerate(values, 1))


def test_noise_is_how_far_curves_are_apart_that_cross_back_and_forth():
    steady = curve(0.5, 0.5, 0.5, 0.5)
    twice = curve(0.4, 0.6, 0.4, 0.45)  # below, above, below: 0.05 apart in the end
    once = curve(0.4, 0.6, 0.7, 0.8)
    touches = curve(0.4, 0.5, 0.4, 0.4)  # equal is no crossing
    assert noise([steady, twice], 90) == pytest.approx(0.05)
    assert noise([steady, once], 90) == noise([steady, touches], 90) == noise([steady], 90) == 0


def test_noise_is_told_by_epochs_that_both_have_run():
    assert noise([curve(0.5, 0.5, 0.5), curve(0.4, 0.6, 0.3, 9.0)], 90) == pytest.approx(0.2)
    assert noise([curve(0.5, 0.5), curve(0.4, 0.6, 0.3)], 90) == 0


def test_noise_is_a_percentile_of_all_pairs():
    flat = curve(0.0, 0.0, 0.0)
    crossing = [curve(-1, 1, -0.1), curve(-1, 1, -0.2), curve(-1, 1, -0.3)]  # never each other
    assert noise([flat, *crossing], 50) == pytest.approx(0.2)
    assert noise([flat, *crossing], 100) == pytest.approx(0.3)
    assert noise([flat, *crossing], 90) == pytest.approx(0.28)  # 0.2 + 0.8 * 0.1


class Run:
    """Trials whose values a test gives; less is better."""

    def __init__(self, max_epochs: int = 27, **arguments) -> None:
        self.scheduler = make_scheduler(
            "pasha", SPACE, "loss", "min", max_epochs, 0, None, arguments
        )
        self.trials: list[Trial] = []
        self.epochs: list[int] = []

    def start(self, *losses: float) -> list[str]:
        suggestion = self.scheduler.suggest()
        assert suggestion is not None and suggestion.spawn_new_trial_id
        trial = Trial(len(self.trials), suggestion.config, datetime(2026, 1, 1))
        self.trials.append(trial)
        self.epochs.append(0)
        self.scheduler.on_trial_add(trial)
        return self.go_on(trial.trial_id, *losses)

    def go_on(self, number: int, *losses: float) -> list[str]:
        decisions = []
        for loss in losses:
            self.epochs[number] += 1
            report = {"loss": loss, "epoch": self.epochs[number]}
            decisions.append(self.scheduler.on_trial_result(self.trials[number], report))
            if decisions[-1] != CONTINUE:
                self.scheduler.on_trial_remove(self.trials[number])
        return decisions


def test_trials_pause_at_three_epochs_while_the_ranking_is_stable():
    run = Run()
    assert run.start(0.5, 0.45, 0.4) == [CONTINUE, CONTINUE, PAUSE]
    assert run.start(0.4, 0.35, 0.3) == [CONTINUE, CONTINUE, PAUSE]
    assert run.start(0.6) == [STOP]  # ASHA: third of three, behind the best third
    assert run.start(0.3, 0.3, 0.2) == [CONTINUE, CONTINUE, PAUSE]
    assert run.scheduler.inner.top == 1


def test_the_top_rises_when_the_ranking_changes_and_the_best_that_paused_go_on():
    run = Run()
    assert run.start(0.5, 0.4, 0.30)[-1] == PAUSE
    assert run.start(0.4, 0.4, 0.35)[-1] == PAUSE  # first of two at 1, second at 3: the top rises
    assert run.scheduler.inner.top == 2
    resumed = run.scheduler.suggest()  # 0 is the best third at the old top
    assert not resumed.spawn_new_trial_id and resumed.checkpoint_trial_id == 0
    assert run.scheduler.suggest().spawn_new_trial_id  # 1 is not
    assert run.go_on(0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.25) == [*[CONTINUE] * 5, PAUSE]  # at 9 epochs


def test_a_trial_that_makes_the_top_rise_goes_on_if_it_is_good():
    run = Run()
    run.start(0.40, 0.4, 0.35)
    assert run.start(0.39, 0.4, 0.36)[-1] == PAUSE  # raises, and is second of two
    run = Run()
    run.start(0.40, 0.4, 0.36)
    run.start(0.30, 0.4, 0.35)
    assert run.scheduler.inner.top == 1
    assert run.start(0.35, 0.4, 0.2)[-1] == CONTINUE  # second at 1, first at 3
    assert run.scheduler.inner.top == 2


def test_a_change_within_the_noise_lets_the_top_be():
    def crossing(**arguments):
        run = Run(max_epochs=81, **arguments)
        run.scheduler.inner.top = 2  # 9 epochs, so that curves can cross
        run.start(*[0.5, 0.40, 0.40, 0.40, 0.40, 0.40, 0.40, 0.40, 0.30])
        run.start(*[0.5, 0.41, 0.39, 0.41, 0.39, 0.41, 0.39, 0.41, 0.31])
        return run.scheduler.inner

    assert crossing().epsilon() == pytest.approx(0.01)
    assert crossing().top == 2  # 0.39 and 0.40 at 3 epochs are within 0.01
    inner = crossing()
    inner.curves.clear()
    assert inner.epsilon() == 0


def test_with_the_last_rung_as_the_top_trials_run_to_their_end():
    run = Run(max_epochs=3)
    assert run.start(0.5, 0.4, 0.3) == [CONTINUE] * 3
    assert run.scheduler.inner.levels == [1]


def test_a_trial_begun_anew_is_not_judged_twice():
    run = Run()
    run.start(0.5, 0.4, 0.30)
    run.start(0.4, 0.4, 0.35)
    assert run.scheduler.suggest().checkpoint_trial_id == 0
    run.epochs[0] = 0  # a backend without a checkpoint
    assert run.go_on(0, 0.5, 0.4, 0.3, 0.3) == [CONTINUE] * 4


@pytest.mark.parametrize("workers", [1, 4])
def test_it_finds_what_asha_finds_with_fewer_epochs(workers):
    epochs, found = {"asha": [], "pasha": []}, {"asha": [], "pasha": []}
    for seed in range(5):
        for name in ("asha", "pasha"):
            done = search_by(name, curves(noise=0.01), seed, workers=workers)
            epochs[name].append(done.epochs)
            found[name].append(quality(done.chosen))
    assert np.mean(epochs["pasha"]) < 0.6 * np.mean(epochs["asha"])
    assert np.mean(found["pasha"]) > np.mean(found["asha"]) - 0.005  # of 0.95


def test_without_noise_and_crossings_nobody_runs_longer_than_three_epochs():
    done = search_by("pasha", curves(noise=0.0, spread=0.0), seed=0)
    assert max(len(each.values) for each in done.trials) == 3
    asha = search_by("asha", curves(noise=0.0, spread=0.0), seed=0)
    assert max(len(each.values) for each in asha.trials) == EPOCHS
    assert done.chosen == asha.chosen and done.resumed == 0
