"""Projects for tables, images and texts: three updates as generated, and predictions from raw rows.

The third update is run in a fresh clone, by the commands of the generated workflow.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from sandbox import Sandbox, generate

from renate_stages.actions.check import check_user_config
from renate_stages.state import State

PREDICT = """
import json, sys
from pathlib import Path

import numpy as np
import pandas as pd

import renate_stages.export
from renate_stages.memory.identity import given_id, stored_ids, to_array
from renate_stages.state import State

kind, target, identity = sys.argv[1:]
incoming = Path("data/incoming")
if kind == "images":
    names = sorted(path.relative_to(incoming).as_posix() for path in incoming.rglob("*.png"))
    frame = pd.DataFrame({identity: names, target: [Path(name).parent.name for name in names]})
else:
    frame = pd.concat([pd.read_csv(path) for path in incoming.glob("*.csv")], ignore_index=True)
held_out = {bytes(each) for each in stored_ids(State.open("state").split("holdouts")[3])}
ids = to_array(given_id(str(each)) for each in frame[identity])
frame = frame[[bytes(each) in held_out for each in ids]]
rows = [str(incoming / name) for name in frame[identity]] if kind == "images" else frame
rows = frame["text"].tolist() if kind == "text" else rows
found = renate_stages.export.load("export").predict(rows)
expected = frame[target].to_numpy()
if kind == "table-regression":
    result = float(np.abs(found["prediction"].to_numpy() - expected).mean())
else:
    result = float((found["prediction"].to_numpy() == expected).mean())
print(json.dumps({"rows": len(frame), "result": result}))
"""
VARIANTS = {
    "images": ("label", "path", "accuracy"),
    "table": ("leaves", "customer", "accuracy"),
    "table-regression": ("progression", "patient", "mae"),
    "text": ("topic", "ticket", "accuracy"),
}


WORKFLOW = (
    "Check the chain of updates",
    "Fetch the new data",
    "Run the update",
    "Push the results",
    "Gate",
)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory) -> tuple[str, Sandbox]:
    """Return a variant and a clone of its project after three updates; do not change it."""
    project = generate(tmp_path_factory.mktemp(request.param), starting_data=request.param)
    project.stop_tracking()
    project.edit("params.yaml", ("max_epochs: 20", "max_epochs: 5"))
    project.run("renate-stages", "init")
    for number in (1, 2, 3):
        if number > 1:
            project.run("renate-stages", "next")
            project.run("renate-stages", "example-data", str(number))
            project.run("dvc", "add", "-q", "data/incoming")
        if number < 3:
            project.run("dvc", "repro", "-q")
        project.commit(f"Update {number}")
    project.run("dvc", "push", "-q")
    clone = project.clone()
    for step in WORKFLOW:
        run_step(clone, step)
    clone.commit("Results of the update")
    return request.param, clone


def run_step(project: Sandbox, name: str) -> str:
    """Run the commands of a step of the generated workflow that runs an update."""
    jobs = yaml.safe_load(project.read(".github/workflows/update.yml"))["jobs"]
    (step,) = (step for step in jobs["update"]["steps"] if step.get("name") == name)
    return project.run("bash", "-euc", step["run"])


def test_predictions_from_raw_rows_are_those_that_were_evaluated(variant):
    kind, project = variant
    target, identity, metric = VARIANTS[kind]
    command = [sys.executable, "-c", PREDICT, kind, target, identity]
    done = subprocess.run(
        command, cwd=project.root, env=project.environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    state = State.open(project.root / "state")
    assert found["rows"] == len(state.split("holdouts")[3]) > 0
    evaluated = state.evaluations().matrix(metric)[3][3]
    assert found["result"] == pytest.approx(evaluated, rel=1e-5)


def test_updates_are_repeatable_and_learn(variant):
    kind, project = variant
    assert "up to date" in project.run("dvc", "repro")
    before = project.hashes("state")
    project.run("dvc", "repro", "-q", "-f", "prepare", "train")
    assert project.hashes("state") == before
    project.run("renate-stages", "verify")
    figures = project.read_json("metrics/update.json")
    name = VARIANTS[kind][2]
    interval = figures[name]["interval"]["change"]
    compared = project.read_json("reports/verdict.json")["figures"][f"overall_{name}"]
    assert interval == pytest.approx({end: compared[end] for end in ("low", "high")}, abs=1e-6)
    assert figures[name]["overall"] < 60 if name == "mae" else figures[name]["overall"] > 0.8


def test_make_test_of_the_project_passes(variant):
    _, project = variant
    checked = check_user_config(project.root)
    assert checked.loss_after < checked.loss_before and checked.restored_equals_saved
    assert checked.padding_change < 1e-4 and checked.lacking == {}


@pytest.mark.slow
def test_step_of_the_workflow_that_checks_the_model_passes(variant):
    assert "3 passed" in run_step(variant[1], "Check the model and the data")
