"""One real project with three updates, made once; each test works on a copy of it."""

from __future__ import annotations

import sqlite3
import subprocess

import pytest
from sandbox import SLUG, Sandbox, digest, generate

MODELS = "models.txt"  # beside the project: what `state/model.safetensors` was after each update


@pytest.fixture(scope="session")
def three_updates(tmp_path_factory) -> Sandbox:
    """A project after three updates, pushed, the third not yet tagged; tests must not change it."""
    project = generate(tmp_path_factory.mktemp("three"))
    project.run("renate-stages", "init")
    models = []
    for number in (1, 2, 3):
        project.put_digits(number)
        project.run("dvc", "repro", "-q")
        project.commit(f"Update {number}")
        models.append(digest(project.root / "state" / "model.safetensors"))
        if number < 3:
            project.run("renate-stages", "next")
    project.run("dvc", "push", "-q", "--all-tags")  # and the workspace
    (project.root.parent / MODELS).write_text("\n".join(models))
    return project


@pytest.fixture
def models(three_updates) -> list[str]:
    """SHA-256 of the model after each of the three updates."""
    return (three_updates.root.parent / MODELS).read_text().split()


@pytest.fixture
def project(three_updates, tmp_path) -> Sandbox:
    """A copy of the project after three updates, with its remote and its runs."""
    source, copy = three_updates.root.parent, tmp_path / "copy"
    subprocess.run(["cp", "-a", source, copy], check=True)  # keeps the hard links to DVC's cache
    with sqlite3.connect(copy / SLUG / "mlflow.db") as store:  # MLflow keeps absolute paths
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            moved = f"update {table} set {column} = replace({column}, ?, ?)"
            store.execute(moved, (str(source), str(copy)))
    store.close()
    return Sandbox(copy / SLUG)
