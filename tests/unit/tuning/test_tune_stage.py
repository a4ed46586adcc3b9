"""`tune` with a search space: its outputs, its errors, and its continuation after a kill."""

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


def test_search_writes_history_best_configuration_and_best_checkpoint(project):
    summary = searched(project)
    assert summary["trials"] == {"completed": 3} and summary["epochs"] == 6
    assert (summary["ended_by"], summary["not_repeatable_because"]) == ("max_trials", [])
    assert [(row["trial"], row["epoch"]) for row in rows(project)] == [
        (str(trial), str(epoch)) for trial in range(3) for epoch in (1, 2)
    ]
    last = [row for row in rows(project) if row["epoch"] == "2"]
    values = [float(row["metric.accuracy"]) for row in last]
    best = summary["best"]
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


def test_killed_search_continues_with_its_finished_trials(project, monkeypatch):
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
    messages: list[str] = []
    tune.run(project, messages.append)
    assert messages[0] == "continuing the search: 2 trials found"
    assert started == [0, 1, 2, 2]
    assert snapshot(project) == straight


def test_failed_trials_are_recorded_with_their_logs(project):
    faults = {"choice": ["", "exit", "kill"]}
    summary = searched(
        project,
        hyperparameters__fault=faults,
        tuning={"scheduler": "grid", "scheduler_arguments": {"points": 1}, "max_trials": 9},
    )
    assert summary["trials"] == {"completed": 1, "failed": 2}
    logs = [path.read_text() for path in sorted((project.tuning / "failures").iterdir())]
    assert len(logs) == 2 and all(log.startswith("it ended with code") for log in logs)
    assert {row["status"] for row in rows(project)} == {"completed", "failed"}


def test_error_without_a_finished_trial_shows_the_log_of_the_first_trial(project):
    with pytest.raises(errors.NoFinishedTrialError, match=r"none of 5 trials [\s\S]*process \d+"):
        searched(project, hyperparameters__fault="exit", tuning={**SEARCH, "max_trials": 20})


NAN_METRIC = """def metrics_fn():
    from torchmetrics import MeanMetric

    class Never(MeanMetric):
        def update(self, outputs, targets):
            super().update(outputs.sum() * float("nan"))

        def compute(self):
            return torch.tensor(float("nan"))

    return {"never": Never(nan_strategy="disable")}


def loss_fn("""


def test_error_names_a_metric_that_is_nan_in_all_trials(project):
    edit_config(project, "def loss_fn(", NAN_METRIC)
    with pytest.raises(errors.ObjectiveNotFiniteError) as raised:
        searched(
            project, evaluation__metric="never", tuning={**SEARCH, "metric": "never", "mode": "max"}
        )
    expected = "never on the validation data is not a finite number in any of 3 trials"
    assert expected in str(raised.value) and "trial 0: nan, trial 1: nan" in str(raised.value)
    assert not project.tuned.exists()


@pytest.mark.parametrize("over", ["new", "weighted"])
def test_objective_can_be_measured_on_new_data(project, over):
    weight = {"new_weight": 0.5} if over == "weighted" else {}
    summary = searched(project, tuning={**SEARCH, "objective": over, **weight})
    assert summary["objective"]["over"] == over


def test_forget_update_uses_the_best_known_values_without_a_search(project):
    edit_params(project, update__kind="forget", **SPACES)
    tune.run(project, quiet)
    assert read_tuned(project.tuned)["learning_rate"] == pytest.approx(0.0316, abs=1e-3)
    assert json.loads((project.tuning / "search.json").read_text()) == {"searched": False}


def test_plots_and_report_show_the_search(project):
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


def test_update_without_a_search_has_an_empty_plot_and_no_report_section(project):
    for stage in (tune, train, export):
        stage.run(project, quiet)
    assert (project.plots / "tuning.csv").read_text() == "epochs,best,trial\n"
    assert "Search" not in project.report.read_text()
