"""One real project with three updates, made once; each test works on a copy of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SLUG = "digits"


def pytest_collection_modifyitems(items):
    """Keep this folder in one process: its project takes minutes to make."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("pipeline"))


@dataclass(frozen=True)
class Sandbox:
    """A project, with its DVC remote beside it, and a clean environment to run commands in."""

    root: Path

    def run(self, *command: str, code: int | None = 0, **environment: str) -> str:
        """Run a command; return what it printed on both streams."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))
        }
        done = subprocess.run(
            command,
            cwd=self.root,
            env={
                **kept,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "GIT_AUTHOR_NAME": "Test",
                "GIT_AUTHOR_EMAIL": "test@example.org",
                "GIT_COMMITTER_NAME": "Test",
                "GIT_COMMITTER_EMAIL": "test@example.org",
                "DVC_NO_ANALYTICS": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert code is None or done.returncode == code, done.stdout
        return done.stdout

    def update(self, number: int) -> None:
        """Run one update on its digits, and commit it."""
        self.run("renate-stages", "example-data", str(number))
        self.run("dvc", "add", "-q", "data/incoming")
        self.run("dvc", "repro", "-q")
        self.commit(f"Update {number}")

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def read(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        text = self.read(name)
        assert old in text
        (self.root / name).write_text(text.replace(old, new), encoding="utf-8")

    def clone(self) -> Sandbox:
        """Clone it beside itself, where the relative remote is the same."""
        self.run("git", "clone", "-q", ".", "../clone")
        return Sandbox(self.root.parent / "clone")


def generate(folder: Path, **answers: str) -> Sandbox:
    """Generate a project from the template."""
    from cookiecutter.main import cookiecutter

    root = cookiecutter(
        str(REPOSITORY),
        directory="template",
        no_input=True,
        output_dir=str(folder),
        extra_context={"project_slug": SLUG, **answers},
    )
    return Sandbox(Path(root))


@pytest.fixture(scope="session")
def three_updates(tmp_path_factory) -> Sandbox:
    """A project after three updates; tests must not change it."""
    project = generate(tmp_path_factory.mktemp("three"))
    project.run("renate-stages", "init")
    for number in (1, 2, 3):
        project.update(number)
        if number < 3:
            project.run("renate-stages", "next")
    project.run("dvc", "push", "-q", "--all-tags")
    project.run("dvc", "push", "-q")
    return project


@pytest.fixture
def project(three_updates, tmp_path) -> Sandbox:
    """A copy of the project after three updates, with its remote and its runs."""
    shutil.copytree(three_updates.root.parent, tmp_path / "copy", symlinks=True)
    return Sandbox(tmp_path / "copy" / SLUG)
