"""Real stage processes are killed at random moments; what they write in the end is the same.

Without git and DVC, which would take most of the time: `test_updates.py` kills under `dvc repro`.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sandbox import REPOSITORY

from renate_stages.actions.digits import write_digits
from renate_stages.state import state

STAGES = ("prepare", "restore-state", "tune", "train", "export")
PATIENCE = 120  # seconds until a stage is taken to hang


def stage(root: Path, name: str, **options) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "RENATE_STAGES_CHECKPOINT_SECONDS": "0",
    }
    command = [str(Path(sys.executable).parent / "renate-stages"), name]
    return subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def finish(root: Path, name: str) -> str:
    process = stage(root, name)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not {".renate", "__pycache__"} & set(path.parts)
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
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
        finish(root, name)
        seconds[name] = time.monotonic() - started
    written = files_of(root)
    assert {"state/state.json", "export/model.ckpt"} <= written.keys()
    return root, written, seconds


@pytest.fixture
def root(undisturbed, tmp_path) -> Path:
    shutil.copytree(undisturbed[0], tmp_path / "project")
    return tmp_path / "project"


def kill_at_random_moments(root: Path, undisturbed, times: dict[str, int], seed: int) -> None:
    _, expected, seconds = undisturbed
    moments = random.Random(seed)
    for name, count in times.items():
        for _ in range(count):
            process = stage(root, name)
            try:
                process.wait(moments.uniform(0.3, 1.0) * seconds[name])
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.communicate(timeout=PATIENCE)
            left = files_of(root)
            for path in (p for p in expected if p.startswith(("parent-state/", "data/"))):
                assert left[path] == expected[path]
        finish(root, name)
        assert files_of(root) == expected, f"after {name} was killed"
    assert not list((root / ".renate").glob("resume/*"))


def test_stages_killed_at_random_moments_write_the_same_in_the_end(root, undisturbed):
    times = {"prepare": 2, "restore-state": 1, "tune": 1, "train": 3, "export": 2}
    kill_at_random_moments(root, undisturbed, times, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_stages_killed_at_many_moments_write_the_same_in_the_end(root, undisturbed, seed):
    times = {"prepare": 10, "restore-state": 6, "tune": 6, "train": 12, "export": 8}
    kill_at_random_moments(root, undisturbed, times, seed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_stage_says_so_without_a_traceback(root, undisturbed, number):
    shutil.rmtree(root / "work" / "prepared")
    process, lock = stage(root, "prepare"), root / ".renate" / "stage.lock"
    until = time.monotonic() + PATIENCE
    while f"process {process.pid}" not in lock.read_text():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0 and "Traceback" not in said
    finish(root, "prepare")
    assert files_of(root) == undisturbed[1]


@pytest.mark.parametrize("name", ["prepare", "train", "export"])
def test_a_full_disk_leaves_no_half_output(root, undisturbed, name):
    """A limit on the size of files stands for the disk: writing fails with an OSError alike."""
    output = {"prepare": "work/prepared", "train": "state", "export": "export"}[name]
    shutil.rmtree(root / output)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    process = stage(root, name, preexec_fn=limit)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "error: no more data can be written" in said and "Traceback" not in said
    assert not (root / output).exists() and not list(root.rglob(".*.new"))
    finish(root, name)
    assert files_of(root) == undisturbed[1]
