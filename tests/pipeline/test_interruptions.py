"""Kills during `dvc repro`, and data changed without DVC, in a real project."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
from sandbox import digest

TRANSFORM = "    return images.float() / 16\n"
PAUSE = '    if Path(".renate/pause").exists() and torch.is_grad_enabled():  # in training\n'
PAUSE += '        Path(".renate/paused").touch()\n        __import__("time").sleep(600)\n'


@pytest.mark.parametrize("victim", ["stage", "dvc", pytest.param("both", marks=pytest.mark.slow)])
def test_killed_update_gives_identical_results_when_rerun(project, victim):
    undisturbed = project.hashes("state")
    untouched = {folder: project.hashes(folder) for folder in (".dvc/cache/files", "parent-state")}
    project.edit("renate_config.py", (TRANSFORM, PAUSE + TRANSFORM))
    scratch = project.root / ".renate"
    (scratch / "pause").touch()
    repro = project.start("dvc", "repro", "-q")
    try:
        started = time.monotonic()
        while not (scratch / "paused").exists():
            assert repro.poll() is None and time.monotonic() - started < 180
            time.sleep(0.1)
        stage, pid = (scratch / "stage.lock").read_text().rsplit(" ", 1)
        assert stage == "stage train, process"
        if victim == "both":
            os.killpg(repro.pid, signal.SIGKILL)
        if victim == "dvc":  # its stage keeps running; a second stage must not start
            repro.kill()
            repro.wait(60)
            refused = project.run("dvc", "repro", code=None)
            assert f"process {pid}" in refused and "Traceback" not in refused
            assert (scratch / "stage.lock").read_text().endswith(pid)
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        assert repro.wait(60) != 0
    finally:
        if repro.poll() is None:
            os.killpg(repro.pid, signal.SIGKILL)
            repro.wait()
    assert not (project.root / "state").exists()
    for folder, before in untouched.items():
        assert project.hashes(folder).items() >= before.items()

    (scratch / "pause").unlink()
    project.run("dvc", "repro", "-q")
    found = project.hashes("state")
    assert found.pop("state.json") != undisturbed.pop("state.json")  # it lists the edited file
    assert found == undisturbed
    assert not list(project.root.glob(".*.new"))
    assert [run["status"] for run in project.runs[-2:]] == ["KILLED", "FINISHED"]


def test_repro_detects_data_changed_without_dvc_add(project):
    before = project.read("data/incoming.dvc")
    rows = project.read_json("metrics/data.json")
    for name in ("inputs.npy", "targets.npy"):
        path = project.root / "data" / "incoming" / name
        fewer = np.load(path)[:-100]
        path.unlink()
        np.save(path, fewer)
    printed = project.run("dvc", "repro", "prepare")
    assert "Running stage 'prepare'" in printed
    now = project.read_json("metrics/data.json")
    count = {
        when: sum(data[split]["rows"] for split in ("train", "val", "test"))
        for when, data in (("before", rows), ("now", now))
    }
    assert count["before"] - count["now"] == 100
    assert project.read("data/incoming.dvc") != before, "and its new hash is there to commit"


def test_writing_example_data_does_not_modify_the_dvc_cache(project):
    project.run("dvc", "config", "cache.type", "hardlink")
    project.run("dvc", "checkout", "-q", "--relink")
    linked = project.root / "data" / "incoming" / "inputs.npy"
    assert linked.stat().st_nlink > 1, "the same bytes as in the cache"
    cache = project.root / ".dvc" / "cache"
    before = {path: digest(path) for path in cache.rglob("*") if path.is_file()}
    project.run("renate-stages", "example-data", "1")
    assert linked.stat().st_nlink == 1
    assert {path: digest(path) for path in before} == before
