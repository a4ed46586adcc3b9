"""Hyperparameter search in two updates of a real project, run by `dvc repro`."""

from __future__ import annotations

import csv

import pytest
from sandbox import UP_TO_DATE, Sandbox, generate

SPACES = (
    ("learning_rate: 0.05", "learning_rate: {loguniform: [0.001, 1.0]}"),
    ("momentum: 0.9", "momentum: {uniform: [0.0, 0.95]}"),
    ("hidden_size: 128", "hidden_size: {choice: [32, 128]}"),
    ("max_epochs: 20", "max_epochs: 3"),
    ("max_trials: 20", "max_trials: 3"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Sandbox:
    """Return a project after two tuned and pushed updates, the second not yet tagged."""
    project = generate(tmp_path_factory.mktemp("searched"))
    project.edit("params.yaml", *SPACES)
    project.run("renate-stages", "init")
    for number in (1, 2):
        project.put_digits(number)
        project.run("dvc", "repro", "-q")
        project.commit(f"Update {number}")
        project.run("dvc", "push", "-q")
        if number == 1:
            project.run("renate-stages", "next")
    return project


def updates_in(project: Sandbox, path: str) -> set[str]:
    return {row["update"] for row in csv.DictReader(project.read(path).splitlines())}


def test_second_update_extends_the_tuning_history_of_the_first(project):
    assert UP_TO_DATE in project.run("dvc", "repro")
    assert updates_in(project, "parent-state/tuning_history.csv") == {"1"}
    assert updates_in(project, "state/tuning_history.csv") == {"1", "2"}
    report = project.read("reports/update.md")
    assert "- history: " in report and "3 of 3 trials and 1 of 1 updates can be used" in report
    assert "The search is reproducible: the same inputs give the same result." in report
    assert "learning_rate" in project.run(
        "dvc", "params", "diff", "update-1", "--targets", "tuned.yaml"
    )
    assert "accuracy.overall" in project.run("dvc", "metrics", "diff", "update-1")
    assert "failed" not in project.run("dvc", "plots", "show")
    assert "learning_rate" in project.run("dvc", "exp", "show", "--md")
    trials = [run for run in project.runs if "mlflow.parentRunId" in run]
    parents = {run["id"]: run["name"] for run in project.runs}
    assert [parents[run["mlflow.parentRunId"]] for run in trials] == [
        *["tuning of update-1"] * 3,
        *["tuning of update-2"] * 3,
    ]
    assert sum("trial.best" in run for run in trials) == 2

    before = project.read("dvc.lock")
    project.stop_tracking()
    project.run("dvc", "repro", "-f", "-q")
    assert project.read("dvc.lock") == before
    project.run("git", "checkout", "-q", "params.yaml")


def test_tune_in_an_unpulled_clone_needs_only_its_declared_dependencies(project):
    clone = project.clone()
    clone.stop_tracking()
    clone.edit("params.yaml", ("max_trials: 3", "max_trials: 2"))
    printed = clone.run("dvc", "repro", "--pull", "--allow-missing")
    assert "Running stage 'tune'" in printed and "Running stage 'prepare'" not in printed
    assert clone.read_json("work/tuning/search.json")["trials"]["completed"] >= 1
