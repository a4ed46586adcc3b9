"""Fixtures: a real project with three updates, created once; each test uses a copy."""

from __future__ import annotations

import fcntl
import sqlite3
import subprocess
from pathlib import Path

import pytest
from sandbox import SLUG, Sandbox, digest, generate

MODELS = "models.txt"  # file next to the project: SHA-256 of the model after each update


@pytest.fixture(scope="session")
def three_updates(tmp_path_factory, worker_id) -> Sandbox:
    """Return a project after three pushed updates, the third untagged; do not change it."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent  # shared by all xdist workers
    project = Sandbox(shared / "three" / SLUG)
    with (shared / "three.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first worker creates it, the others wait
        if not (project.root.parent / MODELS).exists():
            make_three_updates(project.root.parent)
    return project


def make_three_updates(folder: Path) -> None:
    project = generate(folder)
    project.run("renate-stages", "init")
    models = []
    for number in (1, 2, 3):
        project.put_digits(number)
        project.run("dvc", "repro", "-q")
        project.commit(f"Update {number}")
        project.run("dvc", "push", "-q")  # --all-tags resolves a relative remote from `/`
        models.append(digest(project.root / "state" / "model.safetensors"))
        if number < 3:
            project.run("renate-stages", "next")
    (folder / MODELS).write_text("\n".join(models))


@pytest.fixture
def models(three_updates) -> list[str]:
    """Return the SHA-256 of the model after each of the three updates."""
    return (three_updates.root.parent / MODELS).read_text().split()


@pytest.fixture
def project(three_updates, tmp_path) -> Sandbox:
    """Return a copy of the project after three updates, with its remote and MLflow runs."""
    source, copy = three_updates.root.parent, tmp_path / "copy"
    subprocess.run(["cp", "-a", source, copy], check=True)  # keeps the hard links to DVC's cache
    with sqlite3.connect(copy / SLUG / "mlflow.db") as store:  # MLflow keeps absolute paths
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            moved = f"update {table} set {column} = replace({column}, ?, ?)"
            store.execute(moved, (str(source), str(copy)))
    store.close()
    for name in (".dvc/config.local", ".renate/remote"):  # absolute paths of the remote
        path = copy / SLUG / name
        path.write_text(path.read_text().replace(str(source), str(copy)))
    return Sandbox(copy / SLUG)
