"""Whole searches: reproducible bytes, reuse of the best trial by `train`, limits, history."""

from __future__ import annotations

import pytest
from small_project import edit_params, snapshot
from small_searches import SEARCH, quiet, rows, searched

from renate_stages import errors
from renate_stages.stages import export, prepare, restore_state, train, tune

pytestmark = pytest.mark.usefixtures("warm_searches", "no_pictures")


@pytest.fixture
def project(project_before_tune):
    return project_before_tune


def test_repeated_search_has_identical_bytes(project):
    searched(project)
    first = snapshot(project)
    tune.run(project, quiet)
    assert snapshot(project) == first


@pytest.mark.parametrize(
    ("learner", "scheduler", "status"),
    [("ER", "random", "completed"), ("LwF", "random", "completed"), ("ER", "pasha", "paused")],
)
def test_reused_best_trial_gives_the_bytes_of_a_repeated_training(
    project, learner, scheduler, status
):
    tuning = {"scheduler": scheduler, "max_trials": 1 if scheduler == "pasha" else 3}
    changes = {"learner": learner, "trainer__keep": "best", "trainer__max_epochs": 5}
    summary = searched(project, tuning=tuning, **changes)
    best = [row for row in rows(project) if row["trial"] == str(summary["best"]["trial"])]
    assert best[0]["status"] == status and len(best) == (5 if status == "completed" else 3)
    messages: list[str] = []
    train.run(project, messages.append)
    assert messages[0].startswith("the best trial was trained with these values")
    taken_over = snapshot(project)
    edit_params(project, tuning={**tuning, "reuse_best": False})
    tune.run(project, quiet)
    assert not list(project.tuning.rglob("*.ckpt"))
    messages.clear()
    train.run(project, messages.append)
    assert "trained with these values" not in messages[0] and messages[-1].startswith("update 1")
    again = snapshot(project)
    for name in [name for name in taken_over if name.startswith(("state/", "metrics/", "plots/"))]:
        assert again[name] == taken_over[name], name


def test_best_trial_is_not_reused_after_a_change_of_settings(project):
    searched(project)
    edit_params(project, trainer__threads=2)
    messages: list[str] = []
    train.run(project, messages.append)
    assert "trained with these values" not in messages[0] and messages[-1].startswith("update 1")


def test_history_continues_over_updates_and_is_used_by_searches(project):
    searched(project)
    train.run(project, quiet)
    export.run(project, quiet)
    first = rows(project)
    project.parent.rename(project.root / "older")
    project.state.rename(project.parent)
    edit_params(project, update__number=2, update__parent=1)
    prepare.run(project, quiet)
    restore_state.run(project, quiet)
    summary = searched(project, tuning={**SEARCH, "max_trials": 2})
    assert summary["history"][0].startswith(
        "history: 6 of 6 rows, 3 of 3 trials and 1 of 1 updates"
    )
    assert [row["update"] for row in rows(project)] == ["1"] * 6 + ["2"] * 4
    assert [tuple(row.values()) for row in rows(project)[:6]] == [tuple(r.values()) for r in first]
    last = [row for row in first if row["epoch"] == "2"]
    best = max(last, key=lambda row: float(row["metric.accuracy"]))
    assert rows(project)[6]["config.learning_rate"] == best["config.learning_rate"]

    edit_params(project, hyperparameters__learning_rate=0.1, hyperparameters__momentum=0.9)
    tune.run(project, quiet)  # constants, so no search
    assert [row["update"] for row in rows(project)] == ["1"] * 6, "history of update 1 is kept"


@pytest.mark.parametrize(
    ("budget", "reached"),
    [
        ({"max_epochs_total": 3}, "max_epochs_total"),
        ({"max_completed": 1, "max_trials": None}, "max_completed"),
        ({"max_time": 0.001}, "max_time"),
    ],
)
def test_search_ends_at_the_first_limit_that_is_reached(project, budget, reached):
    if reached == "max_time":
        with pytest.raises(errors.NoFinishedTrialError, match=r"none of [01] trial"):
            searched(project, tuning={**SEARCH, **budget})
        assert not project.tuned.exists() and not project.tuning.exists()
        return
    summary = searched(project, tuning={**SEARCH, **budget})
    assert summary["ended_by"] == reached
    if reached == "max_completed":
        assert summary["trials"] == {"completed": 1}
        return
    assert summary["epochs"] == 3 and summary["trials"] == {"completed": 1, "stopped": 1}


def test_search_that_ends_within_its_first_trial_chooses_the_values_of_this_trial(project):
    summary = searched(project, tuning={**SEARCH, "max_epochs_total": 1})
    assert summary["trials"] == {"stopped": 1} and summary["epochs"] == 1
    assert summary["best"]["trial"] == 0 and summary["best"]["epoch"] == 1
    train.run(project, quiet)


def test_two_workers_give_the_same_trials_as_one_worker(project):
    one = searched(project)
    alone = rows(project)
    two = searched(project, tuning={**SEARCH, "n_workers": 2})
    assert rows(project) == alone and two["best"] == one["best"]
    assert two["not_repeatable_because"] == ["2 trials ran at a time (tuning.n_workers)"]
