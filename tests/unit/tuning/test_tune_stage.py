"""`tune` with a space: what it writes, what it says, and going on after a kill."""

from __future__ import annotations

import csv
import json

import pytest
from small_project import edit_config, edit_params, snapshot
from small_searches import SEARCH, SPACES, quiet, rows, searched

from renate_stages import errors, files
from renate_stages.stages import export, train, tune
from renate_stages.state.inputs import read_tuned
from renate_stages.tuning.trials import Trials

pytestmark = pytest.mark.usefixtures("warm_searches")


@pytest.fixture
def project(project_before_tune):
    return project_before_tune


def test_a_search_leaves_its_trials_its_choice_and_the_best_training(project):
    said = searched(project)
    assert said["trials"] == {"completed": 3} and said["epochs"] == 6
    assert (said["ended_by"], said["not_repeatable_because"]) == ("max_trials", [])
    assert [(row["trial"], row["epoch"]) for row in rows(project)] == [
        (str(trial), str(epoch)) for trial in range(3) for epoch in (1, 2)
    ]
    last = [row for row in rows(project) if row["epoch"] == "2"]
    values = [float(row["metric.accuracy"]) for row in last]
    best = said["best"]
    assert best["value"] == max(values) and best["trial"] == values.index(max(values))
    assert read_tuned(project.tuned) == best["configuration"]
    names = {path.name for path in project.tuning.rglob("*") if path.is_file()}
    assert names == {"search.json", "tuning_history.csv", "last.ckpt"}
    assert not project.searches.exists()


def test_learner_and_epochs_can_be_searched(project):
    searched(
        project,
        learner={"choice": ["FineTuning", "ER"]},
        hyperparameters__max_epochs={"randint": [1, 3]},
    )
    chosen = read_tuned(project.tuned)
    assert chosen["learner"] in ("FineTuning", "ER") and chosen["max_epochs"] in (1, 2, 3)
    train.run(project, quiet)
    assert files.read_json(project.state / "state.json")["learner"] == chosen["learner"]
    trained = files.read_json(project.update_metrics)["training"]
    assert trained["epochs"] == chosen["max_epochs"]


def test_a_search_that_was_killed_goes_on_from_its_trials(project, monkeypatch):
    searched(project)
    straight = snapshot(project)
    start, started = Trials._start, []

    def counted(self, record):
        started.append(record.number)
        if len(started) == 3:
            raise KeyboardInterrupt
        start(self, record)

    monkeypatch.setattr(Trials, "_start", counted)
    with pytest.raises(KeyboardInterrupt):
        tune.run(project, quiet)
    assert snapshot(project) == straight, "nothing was written"
    said: list[str] = []
    tune.run(project, said.append)
    assert said[0] == "continuing the search: 2 trials found"
    assert started == [0, 1, 2, 2]
    assert snapshot(project) == straight


def test_trials_that_fail_are_kept_with_their_last_words(project):
    faults = {"choice": ["", "exit", "kill"]}
    said = searched(
        project,
        hyperparameters__fault=faults,
        tuning={"scheduler": "grid", "scheduler_arguments": {"points": 1}, "max_trials": 9},
    )
    assert said["trials"] == {"completed": 1, "failed": 2}
    logs = [path.read_text() for path in sorted((project.tuning / "failures").iterdir())]
    assert len(logs) == 2 and all(log.startswith("it ended with code") for log in logs)
    assert {row["status"] for row in rows(project)} == {"completed", "failed"}


def test_no_finished_trial_shows_the_first_ones_log(project):
    with pytest.raises(errors.NoFinishedTrialError, match=r"none of 5 trial[\s\S]*process \d+"):
        searched(project, hyperparameters__fault="exit", tuning={**SEARCH, "max_trials": 20})


NEVER = """def metrics_fn():
    from torchmetrics import MeanMetric

    class Never(MeanMetric):
        def update(self, outputs, targets):
            super().update(outputs.sum() * float("nan"))

        def compute(self):
            return torch.tensor(float("nan"))

    return {"never": Never(nan_strategy="disable")}


def loss_fn("""


def test_a_metric_that_is_never_a_number_is_named_with_its_values(project):
    edit_config(project, "def loss_fn(", NEVER)
    with pytest.raises(errors.ObjectiveNotFiniteError) as raised:
        searched(project, tuning={**SEARCH, "metric": "never", "mode": "max"})
    expected = "never on the validation data is not a finite number in any of 3 trial(s)"
    assert expected in str(raised.value) and "trial 0: nan, trial 1: nan" in str(raised.value)
    assert not project.tuned.exists()


@pytest.mark.parametrize("over", ["new", "weighted"])
def test_the_objective_can_be_of_the_new_data(project, over):
    weight = {"new_weight": 0.5} if over == "weighted" else {}
    said = searched(project, tuning={**SEARCH, "objective": over, **weight})
    assert said["objective"]["over"] == over


def test_an_update_that_forgets_takes_the_best_known_values(project):
    edit_params(project, update__kind="forget", **SPACES)
    tune.run(project, quiet)
    assert read_tuned(project.tuned)["learning_rate"] == pytest.approx(0.0316, abs=1e-3)
    assert json.loads((project.tuning / "search.json").read_text()) == {"searched": False}


def test_the_plots_and_the_report_show_the_search(project):
    searched(project, tuning={**SEARCH, "n_workers": 2})
    train.run(project, quiet)
    export.run(project, quiet)
    progress = list(csv.DictReader((project.plots / "tuning.csv").read_text().splitlines()))
    assert [row["epochs"] for row in progress] == ["1", "2", "3", "4", "5", "6"]
    best = [float(row["best"]) for row in progress]
    assert best == sorted(best)
    trials = list(csv.DictReader((project.plots / "tuning_trials.csv").read_text().splitlines()))
    assert [row["trial"] for row in trials] == ["0", "1", "2"]
    assert {"status", "value", "learning_rate", "momentum", "learner"} <= trials[0].keys()
    report = project.report.read_text()
    assert "## Search" in report and "| scheduler | random |" in report
    assert "No earlier trials were used." in report
    assert "A repeated search may give another result: 2 trials ran at a time" in report


def test_without_a_search_the_plot_has_no_rows_and_the_report_no_word(project):
    for stage in (tune, train, export):
        stage.run(project, quiet)
    assert (project.plots / "tuning.csv").read_text() == "epochs,best,trial\n"
    assert "Search" not in project.report.read_text()
