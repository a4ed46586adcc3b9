"""Stages that are killed at random moments write identical outputs when they are rerun.

Their processes are forked after all imports, so that kills hit the stage's own work, and do not use
git or DVC; `test_interruptions.py` kills new processes under `dvc repro`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from sandbox import REPOSITORY
from warm_processes import WarmProcess, WarmProcesses

from renate_stages.actions.example_data import write_digits
from renate_stages.state import state

STAGES = ("prepare", "restore-state", "tune", "train", "export")
PATIENCE = 120  # seconds after which a stage counts as hanging


@dataclass
class Stages:
    """Runs stages in forked processes.

    Args:
        warm: Forks the stages' processes.
    """

    warm: WarmProcesses

    def start(self, root: Path, name: str, log: IO[str], limit: int = 0) -> WarmProcess:
        """Start a stage that cannot write files larger than `limit` bytes; 0 sets no limit."""
        environment = {**os.environ, "RENATE_STAGES_CHECKPOINT_SECONDS": "0"}
        streams, main = (log.fileno(), log.fileno()), "limited_commands:command"
        return self.warm.start(main, [str(limit), name], root, streams, environment=environment)

    def finish(self, root: Path, name: str) -> None:
        """Run a stage to its end."""
        with tempfile.TemporaryFile("w+") as log:
            code = self.start(root, name, log).wait(PATIENCE)
            log.seek(0)
            assert code == 0, log.read()


@pytest.fixture(scope="module")
def stages():
    made = Stages(WarmProcesses("limited_commands:import_all"))
    yield made
    made.warm.close()


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not {".renate", "__pycache__"} & set(path.parts)
    }


@pytest.fixture(scope="module")
def undisturbed(stages, tmp_path_factory):
    """Return a project after its first update, its files, and the duration of each stage."""
    root = tmp_path_factory.mktemp("kills") / "project"
    root.mkdir()
    for name in ("dvc.yaml", "forget.yaml", "params.yaml", "renate_config.py"):
        shutil.copy(REPOSITORY / name, root / name)
    params = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(
        params.replace("enabled: true\n  exp", "enabled: false\n  exp")
    )
    write_digits(root / "data" / "incoming", 1)
    (root / "parent-state").mkdir()
    state.write_empty(root / "parent-state")
    seconds = {}
    for name in STAGES:
        started = time.monotonic()
        stages.finish(root, name)
        seconds[name] = time.monotonic() - started
    written = files_of(root)
    assert {"state/state.json", "export/model.ckpt"} <= written.keys()
    return root, written, seconds


@pytest.fixture
def root(undisturbed, tmp_path) -> Path:
    shutil.copytree(undisturbed[0], tmp_path / "project")
    return tmp_path / "project"


def kill_at_random_moments(
    stages: Stages, root: Path, undisturbed, times: dict[str, int], seed: int
) -> None:
    _, expected, seconds = undisturbed
    moments = random.Random(seed)
    for name, count in times.items():
        for _ in range(count):
            with tempfile.TemporaryFile("w+") as log:
                process = stages.start(root, name, log)
                try:
                    process.wait(moments.uniform(0.0, 1.0) * seconds[name])
                except subprocess.TimeoutExpired:
                    process.kill()
                process.wait(PATIENCE)
            left = files_of(root)
            for path in (p for p in expected if p.startswith(("parent-state/", "data/"))):
                assert left[path] == expected[path]
        stages.finish(root, name)
        assert files_of(root) == expected, f"after {name} was killed"
    assert not list((root / ".renate").glob("resume/*"))


def test_stages_killed_at_random_moments_write_identical_outputs_when_rerun(
    stages, root, undisturbed
):
    times = {"prepare": 2, "restore-state": 1, "tune": 1, "train": 3, "export": 2}
    kill_at_random_moments(stages, root, undisturbed, times, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_stages_killed_at_many_moments_write_identical_outputs_when_rerun(
    stages, root, undisturbed, seed
):
    times = {"prepare": 10, "restore-state": 6, "tune": 6, "train": 12, "export": 8}
    kill_at_random_moments(stages, root, undisturbed, times, seed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_stage_prints_no_traceback_and_can_be_rerun(stages, root, undisturbed, number):
    shutil.rmtree(root / "work" / "prepared")
    lock = root / ".renate" / "stage.lock"
    with tempfile.TemporaryFile("w+") as log:
        process = stages.start(root, "prepare", log)
        until = time.monotonic() + PATIENCE
        while f"process {process.pid}" not in lock.read_text():
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.001)
        os.kill(process.pid, number)
        assert process.wait(PATIENCE) != 0
        log.seek(0)
        assert "Traceback" not in log.read()
    stages.finish(root, "prepare")
    assert files_of(root) == undisturbed[1]


@pytest.mark.parametrize("name", ["prepare", "train", "export"])
def test_full_disk_leaves_no_partial_output(stages, root, undisturbed, name):
    """A file size limit simulates the full disk: writing fails with an OSError too."""
    output = {"prepare": "work/prepared", "train": "state", "export": "export"}[name]
    shutil.rmtree(root / output)

    with tempfile.TemporaryFile("w+") as file:
        process = stages.start(root, name, file, limit=4000)
        assert process.wait(PATIENCE) != 0
        file.seek(0)
        log = file.read()
    assert "error: no more data can be written" in log and "Traceback" not in log
    assert not (root / output).exists() and not list(root.rglob(".*.new"))
    stages.finish(root, name)
    assert files_of(root) == undisturbed[1]
