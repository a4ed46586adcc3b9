"""A generated project with a strategy of Avalanche over three updates, the second tuned by ASHA."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec

import pytest
from sandbox import UP_TO_DATE, Sandbox, generate

if find_spec("avalanche") is None:
    pytest.skip("needs the extra avalanche", allow_module_level=True)

CONSTANT = "ewc_lambda: 10.0"
SPACE = "ewc_lambda: {loguniform: [0.1, 1000.0]}"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Sandbox:
    project = generate(tmp_path_factory.mktemp("avalanche"))
    project.edit(
        "params.yaml",
        ("learner: ER", "learner: Avalanche-EWC"),
        ("  optimizer: SGD", f"  {CONSTANT}\n  optimizer: SGD"),
        ("max_epochs: 20", "max_epochs: 3"),
        ("max_trials: 20", "max_trials: 4"),
    )
    project.run("renate-stages", "init")
    for number in (1, 2, 3):
        project.put_digits(number)
        if number == 2:
            project.edit("params.yaml", (CONSTANT, SPACE), ("scheduler: rush", "scheduler: asha"))
        if number == 3:
            project.edit("params.yaml", (SPACE, CONSTANT))
        project.run("dvc", "repro", "-q")
        project.commit(f"Update {number}")
        if number < 3:
            project.run("renate-stages", "next")
    return project


def test_three_updates_go_on_from_each_other(project: Sandbox) -> None:
    assert UP_TO_DATE in project.run("dvc", "repro")
    left = project.read_json("state/learner.json")
    assert left["learner"] == "Avalanche-EWC"
    assert left["avalanche"]["plugins"]["Clock"]["train_exp_counter"] == 3
    assert len(left["avalanche"]["plugins"]["Elastic"]["importances"]["dict"]) == 3
    trained = project.read_json("metrics/update.json")
    assert trained["accuracy"]["holdout_3"] > 0.8


def test_the_second_searched_its_strength_with_epochs_measured(project: Sandbox) -> None:
    rows = list(csv.DictReader(project.read("state/tuning_history.csv").splitlines()))
    assert {row["update"] for row in rows} == {"2"}
    assert len({row["trial"] for row in rows}) == 4
    strengths = {json.loads(row["configuration"])["ewc_lambda"] for row in rows}
    assert len(strengths) == 4
    epochs = [int(row["epoch"]) for row in rows]
    assert max(epochs) == 3 and epochs.count(1) > epochs.count(3)  # ASHA stopped some


def test_the_same_inputs_give_the_same_bytes(project: Sandbox) -> None:
    before = project.read("dvc.lock")
    project.stop_tracking()
    project.run("dvc", "repro", "-f", "-q")
    assert project.read("dvc.lock") == before


def test_a_combination_is_a_what_if(project: Sandbox) -> None:
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
