"""PASHA: worked examples, and a comparison with ASHA on simulated learning curves."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from simulated_search import EPOCHS, SPACE, curves, quality, search_with
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
        ({0: 0.1, 1: 0.2}, {0: 0.3, 1: 0.3}, 0.0, True),  # equal trials may change places
        ({0: 0.1, 1: 0.2}, {0: 0.4, 1: 0.5, 2: 0.0}, 0.0, True),  # 2 is not in the top rung
        # Upper 0, 1, 2; lower 1, 0, 2 with 0 and 1 within epsilon, then 1, 2, 0 with 0 beyond it.
        ({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.42, 1: 0.40, 2: 0.5}, 0.03, True),
        ({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.52, 1: 0.40, 2: 0.5}, 0.03, False),
    ],
)
def test_rankings_agree_if_only_trials_within_epsilon_change_places(upper, lower, epsilon, agree):
    assert rankings_agree(upper, lower, epsilon) is agree


def curve(*values: float) -> dict[int, float]:
    return dict(enumerate(values, 1))


def test_noise_is_the_final_distance_of_curves_that_cross_twice():
    steady = curve(0.5, 0.5, 0.5, 0.5)
    twice = curve(0.4, 0.6, 0.4, 0.45)  # below, above, below: 0.05 apart in the end
    once = curve(0.4, 0.6, 0.7, 0.8)
    touches = curve(0.4, 0.5, 0.4, 0.4)  # equal values are not a crossing
    assert noise([steady, twice], 90) == pytest.approx(0.05)
    assert noise([steady, once], 90) == noise([steady, touches], 90) == noise([steady], 90) == 0


def test_noise_uses_only_epochs_that_both_trials_have_run():
    assert noise([curve(0.5, 0.5, 0.5), curve(0.4, 0.6, 0.3, 9.0)], 90) == pytest.approx(0.2)
    assert noise([curve(0.5, 0.5), curve(0.4, 0.6, 0.3)], 90) == 0


def test_noise_is_a_percentile_over_all_pairs_of_crossing_curves():
    flat = curve(0.0, 0.0, 0.0)
    crossing = [curve(-1, 1, -0.1), curve(-1, 1, -0.2), curve(-1, 1, -0.3)]  # only with `flat`
    assert noise([flat, *crossing], 50) == pytest.approx(0.2)
    assert noise([flat, *crossing], 100) == pytest.approx(0.3)
    assert noise([flat, *crossing], 90) == pytest.approx(0.28)  # 0.2 + 0.8 * 0.1


class Run:
    """A PASHA scheduler and trials that report given losses."""

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
        return self.advance(trial.trial_id, *losses)

    def advance(self, number: int, *losses: float) -> list[str]:
        decisions = []
        for loss in losses:
            self.epochs[number] += 1
            report = {"loss": loss, "epoch": self.epochs[number]}
            decisions.append(self.scheduler.on_trial_result(self.trials[number], report))
            if decisions[-1] != CONTINUE:
                self.scheduler.on_trial_remove(self.trials[number])
        return decisions


def test_trials_pause_after_three_epochs_while_the_ranking_is_stable():
    run = Run()
    assert run.start(0.5, 0.45, 0.4) == [CONTINUE, CONTINUE, PAUSE]
    assert run.start(0.4, 0.35, 0.3) == [CONTINUE, CONTINUE, PAUSE]
    assert run.start(0.6) == [STOP]  # ASHA: third of three, behind the best third
    assert run.start(0.3, 0.3, 0.2) == [CONTINUE, CONTINUE, PAUSE]
    assert run.scheduler.inner.top == 1


def test_ranking_change_raises_the_top_rung_and_resumes_the_best_paused_trials():
    run = Run()
    assert run.start(0.5, 0.4, 0.30)[-1] == PAUSE
    assert run.start(0.4, 0.4, 0.35)[-1] == PAUSE  # 1st of 2 at rung 1, 2nd at 3: the top rises
    assert run.scheduler.inner.top == 2
    resumed = run.scheduler.suggest()  # trial 0 is the best third of the old top rung
    assert not resumed.spawn_new_trial_id and resumed.checkpoint_trial_id == 0
    assert run.scheduler.suggest().spawn_new_trial_id  # trial 1 is not
    assert run.advance(0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.25) == [*[CONTINUE] * 5, PAUSE]  # at 9 epochs


def test_trial_that_raises_the_top_rung_continues_only_if_it_is_the_best():
    run = Run()
    run.start(0.40, 0.4, 0.35)
    assert run.start(0.39, 0.4, 0.36)[-1] == PAUSE  # raises the top rung, but is second of two
    run = Run()
    run.start(0.40, 0.4, 0.36)
    run.start(0.30, 0.4, 0.35)
    assert run.scheduler.inner.top == 1
    assert run.start(0.35, 0.4, 0.2)[-1] == CONTINUE  # second at 1, first at 3
    assert run.scheduler.inner.top == 2


def test_ranking_change_within_the_noise_does_not_raise_the_top_rung():
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


def test_trials_run_to_the_end_if_the_top_rung_is_the_last_rung():
    run = Run(max_epochs=3)
    assert run.start(0.5, 0.4, 0.3) == [CONTINUE] * 3
    assert run.scheduler.inner.levels == [1]


def test_trial_restarted_without_a_checkpoint_is_not_judged_twice():
    run = Run()
    run.start(0.5, 0.4, 0.30)
    run.start(0.4, 0.4, 0.35)
    assert run.scheduler.suggest().checkpoint_trial_id == 0
    run.epochs[0] = 0  # it restarts without a checkpoint
    assert run.advance(0, 0.5, 0.4, 0.3, 0.3) == [CONTINUE] * 4


@pytest.mark.parametrize("workers", [1, 4])
def test_pasha_needs_fewer_epochs_than_asha_for_equal_quality(workers):
    epochs, found = {"asha": [], "pasha": []}, {"asha": [], "pasha": []}
    for seed in range(5):
        for name in ("asha", "pasha"):
            done = search_with(name, curves(noise=0.01), seed, workers=workers)
            epochs[name].append(done.epochs)
            found[name].append(quality(done.chosen))
    assert np.mean(epochs["pasha"]) < 0.6 * np.mean(epochs["asha"])
    assert np.mean(found["pasha"]) > np.mean(found["asha"]) - 0.005  # the optimum is 0.95


def test_trials_run_at_most_three_epochs_without_noise_and_crossing_curves():
    done = search_with("pasha", curves(noise=0.0, spread=0.0), seed=0)
    assert max(len(each.values) for each in done.trials) == 3
    asha = search_with("asha", curves(noise=0.0, spread=0.0), seed=0)
    assert max(len(each.values) for each in asha.trials) == EPOCHS
    assert done.chosen == asha.chosen and done.resumed == 0
