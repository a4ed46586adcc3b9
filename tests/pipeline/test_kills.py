"""Stages are killed at random moments; what they write in the end is the same.

Their processes are forked from one that has imported what they need, so that kills hit their work, and
run without git and DVC: `test_interruptions.py` kills real processes under `dvc repro`.
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

from renate_stages.actions.digits import write_digits
from renate_stages.state import state

STAGES = ("prepare", "restore-state", "tune", "train", "export")
PATIENCE = 120  # seconds until a stage is taken to hang


@dataclass
class Stages:
    """Runs stages, each in a process forked from one that has imported what they need.

    Args:
        warm: Forks them.
    """

    warm: WarmProcesses

    def start(self, root: Path, name: str, said: IO[str], limit: int = 0) -> WarmProcess:
        """Start a stage; of more than `limit` bytes it can write no file."""
        environment = {**os.environ, "RENATE_STAGES_CHECKPOINT_SECONDS": "0"}
        streams, main = (said.fileno(), said.fileno()), "limited_commands:command"
        return self.warm.start(main, [str(limit), name], root, streams, environment=environment)

    def finish(self, root: Path, name: str) -> None:
        """Run a stage to its end."""
        with tempfile.TemporaryFile("w+") as said:
            code = self.start(root, name, said).wait(PATIENCE)
            said.seek(0)
            assert code == 0, said.read()


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
    """A project whose first update has run; its files after each stage, and each stage's time."""
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
            with tempfile.TemporaryFile("w+") as said:
                process = stages.start(root, name, said)
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


def test_stages_killed_at_random_moments_write_the_same_in_the_end(stages, root, undisturbed):
    times = {"prepare": 2, "restore-state": 1, "tune": 1, "train": 3, "export": 2}
    kill_at_random_moments(stages, root, undisturbed, times, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_stages_killed_at_many_moments_write_the_same_in_the_end(stages, root, undisturbed, seed):
    times = {"prepare": 10, "restore-state": 6, "tune": 6, "train": 12, "export": 8}
    kill_at_random_moments(stages, root, undisturbed, times, seed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_stage_says_so_without_a_traceback(stages, root, undisturbed, number):
    shutil.rmtree(root / "work" / "prepared")
    lock = root / ".renate" / "stage.lock"
    with tempfile.TemporaryFile("w+") as said:
        process = stages.start(root, "prepare", said)
        until = time.monotonic() + PATIENCE
        while f"process {process.pid}" not in lock.read_text():
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.001)
        os.kill(process.pid, number)
        assert process.wait(PATIENCE) != 0
        said.seek(0)
        assert "Traceback" not in said.read()
    stages.finish(root, "prepare")
    assert files_of(root) == undisturbed[1]


@pytest.mark.parametrize("name", ["prepare", "train", "export"])
def test_a_full_disk_leaves_no_half_output(stages, root, undisturbed, name):
    """A limit on the size of files stands for the disk: writing fails with an OSError alike."""
    output = {"prepare": "work/prepared", "train": "state", "export": "export"}[name]
    shutil.rmtree(root / output)

    with tempfile.TemporaryFile("w+") as file:
        process = stages.start(root, name, file, limit=4000)
        assert process.wait(PATIENCE) != 0
        file.seek(0)
        said = file.read()
    assert "error: no more data can be written" in said and "Traceback" not in said
    assert not (root / output).exists() and not list(root.rglob(".*.new"))
    stages.finish(root, name)
    assert files_of(root) == undisturbed[1]
