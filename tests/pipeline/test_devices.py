"""Distributed training of an update by two processes, in a generated project."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox import SLUG, Sandbox, generate

TRANSFORM = "    return images.float() / 16\n"
# Added to the user's transform: in training, rank 1 alone does what .renate/fate says.
FATE = """    import os

    fate = Path(".renate/fate")
    if os.environ.get("RANK") == "1" and torch.is_grad_enabled() and fate.exists():
        (fate.parent / "met").touch()
        if fate.read_text() == "mistake":
            from renate_stages.errors import RenateStagesError

            raise RenateStagesError("the second process alone says so")
        if fate.read_text() == "defect":
            raise ZeroDivisionError("of the second process alone")
        __import__("time").sleep(600)
"""


@pytest.fixture(scope="module")
def repro(tmp_path_factory) -> tuple[Sandbox, str]:
    """Return a project whose first update was trained by two processes, and the output."""
    project = replace(generate(tmp_path_factory.mktemp("two") / SLUG), warm=False)
    changes = (("  devices: 1 ", "  devices: 2 "), ("max_epochs: 20 ", "max_epochs: 2 "))
    project.edit("params.yaml", *changes)
    replace(project, warm=True).run("renate-stages", "init")
    replace(project, warm=True).run("dvc", "repro", "prepare", "restore-state", "tune")
    return project, project.run("dvc", "repro", "train")


@pytest.fixture
def project(repro) -> Iterator[Sandbox]:
    """Yield the same project, with a selectable failure on rank 1."""
    project = replace(repro[0], warm=True)
    project.stop_tracking()
    project.edit("renate_config.py", (TRANSFORM, FATE + TRANSFORM))
    yield project
    project.edit("renate_config.py", (FATE, ""))
    tracked = "enabled: false\n  experiment"
    project.edit("params.yaml", (tracked, tracked.replace("false", "true")))
    for name in ("fate", "met"):
        (project.root / ".renate" / name).unlink(missing_ok=True)


def processes(project: Sandbox) -> list[int]:
    """Return the ids of the processes that train in a project."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes()
            here = (folder / "cwd").readlink() == project.root
        except OSError:
            continue
        if here and b"RENATE_STAGES_LAUNCHED=" in variables and b"RANK=" in variables:
            found.append(int(folder.name))
    return found


def test_two_processes_train_one_update_and_log_one_run(repro):
    project, printed = repro
    assert printed.count("update 1: 34 steps") == 1 == printed.count("memory: 300 examples")
    assert [run["status"] for run in project.runs] == ["FINISHED"]
    assert project.read_json("metrics/update.json")["training"] == {"epochs": 2, "steps": 34}
    left = {path.name for path in (project.root / ".renate").iterdir()}
    assert left == {"md5.json", "mlflow.lock", "remote", "stage.lock"}
    assert not processes(project)


def test_rerun_update_has_identical_bytes(repro):
    project = replace(repro[0], warm=True)
    before = project.hashes("state"), project.hashes("metrics"), project.hashes("plots")
    project.run("dvc", "repro", "-q", "--force", "--single-item", "train")
    assert (project.hashes("state"), project.hashes("metrics"), project.hashes("plots")) == before


@pytest.mark.parametrize(
    ("fate", "code", "message", "forked"),
    [
        ("mistake", 2, "error: the second process alone says so", False),
        ("defect", 2, "ZeroDivisionError: of the second", True),
    ],
)
def test_failure_on_one_rank_ends_both_processes_and_is_reported_once(
    project, fate, code, message, forked
):
    project = replace(project, warm_ranks=forked)
    (project.root / ".renate" / "fate").write_text(fate)
    printed = project.run("renate-stages", "train", code=code)
    assert printed.count(message) == 1 and "Traceback" not in printed, printed
    assert not processes(project)


def test_user_error_on_both_ranks_is_reported_once(project):
    right = "learning_rate: 0.05"
    project.edit("tuned.yaml", (right, "learning_rate: -1"))
    printed = project.run("renate-stages", "train", code=2)
    project.edit("tuned.yaml", ("learning_rate: -1", right))
    assert printed.count("error:") == 1 and "expected a number > 0, found -1" in printed


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_killing_the_stage_ends_all_training_processes(project, ending):
    scratch = project.root / ".renate"
    (scratch / "fate").write_text("wait")
    stage = project.start("renate-stages", "train")
    started = time.monotonic()
    while not (scratch / "met").exists():
        assert stage.poll() is None and time.monotonic() - started < 180
        time.sleep(0.1)
    assert (scratch / "stage.lock").read_text() == f"stage train, process {stage.pid}"
    assert len(processes(project)) == 2
    os.kill(stage.pid, ending)
    assert stage.wait(20) == (143 if ending == signal.SIGTERM else -signal.SIGKILL)
    ended = time.monotonic()
    while processes(project):
        assert time.monotonic() - ended < 10
        time.sleep(0.1)
