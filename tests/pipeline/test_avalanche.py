"""An Avalanche strategy in a generated project over three updates, the second tuned by ASHA."""

from __future__ import annotations

import csv
from importlib.util import find_spec

import pytest
from sandbox import UP_TO_DATE, Sandbox, generate

if find_spec("avalanche") is None:
    pytest.skip("needs the extra avalanche", allow_module_level=True)

SPACES = (
    ("ewc_lambda: 0.1", "ewc_lambda: {loguniform: [0.01, 10.0]}"),
    ("learning_rate: 0.05", "learning_rate: {loguniform: [0.0001, 0.5]}"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Sandbox:
    project = generate(tmp_path_factory.mktemp("avalanche"))
    project.edit(
        "params.yaml",
        ("learner: ER", "learner: Avalanche-EWC"),
        ("  optimizer: SGD", f"  {SPACES[0][0]}\n  optimizer: SGD"),
        ("max_epochs: 20", "max_epochs: 3"),
        ("max_trials: 20", "max_trials: 6"),
    )
    project.run("renate-stages", "init")
    for number in (1, 2, 3):
        project.put_digits(number)
        if number == 2:
            project.edit("params.yaml", *SPACES, ("scheduler: rush", "scheduler: asha"))
        if number == 3:
            project.edit("params.yaml", *((space, constant) for constant, space in SPACES))
        project.run("dvc", "repro", "-q")
        project.commit(f"Update {number}")
        if number < 3:
            project.run("renate-stages", "next")
    return project


def test_each_update_continues_the_avalanche_state_of_its_parent(project: Sandbox) -> None:
    assert UP_TO_DATE in project.run("dvc", "repro")
    left = project.read_json("state/learner.json")
    assert left["learner"] == "Avalanche-EWC"
    assert left["avalanche"]["plugins"]["Clock"]["train_exp_counter"] == 3
    assert len(left["avalanche"]["plugins"]["Elastic"]["importances"]["dict"]) == 3
    assert project.read_json("metrics/update.json")["accuracy"]["holdout"]["3"] > 0.2  # up from 0


def test_asha_searches_ewc_lambda_and_stops_some_trials_early(project: Sandbox) -> None:
    rows = list(csv.DictReader(project.read("state/tuning_history.csv").splitlines()))
    assert {row["update"] for row in rows} == {"2"}
    assert len({row["trial"] for row in rows}) == 6
    assert len({row["config.ewc_lambda"] for row in rows}) == 6
    epochs = [int(row["epoch"]) for row in rows]
    assert max(epochs) == 3 and epochs.count(1) > epochs.count(3)  # ASHA stopped some


def test_forced_training_rerun_leaves_dvc_lock_unchanged(project: Sandbox) -> None:
    before = project.read("dvc.lock")
    project.stop_tracking()
    project.run("dvc", "repro", "-f", "-q", "-s", "train")
    assert project.read("dvc.lock") == before


def test_dvc_experiment_combines_er_and_ewc_plugins(project: Sandbox) -> None:
    project.run(
        "dvc",
        "exp",
        "run",
        "-q",
        "-S",
        "learner=Avalanche-ER+EWC",
        "-S",
        "hyperparameters.memory_size=50",
    )
    left = project.read_json("state/learner.json")
    assert {"Elastic", "ReplayPlugin"} <= set(left["avalanche"]["plugins"])
