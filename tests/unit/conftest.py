"""A small real project in a folder, without git and DVC, for stages called in the process."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from renate_stages import state, yaml_file
from renate_stages.project import Project

REPOSITORY = Path(__file__).parents[2]


def edit_params(project: Project, **changes) -> None:
    """Set values in params.yaml; `a__b` names the key b of block a."""

    def change(content):
        for path, value in changes.items():
            *blocks, key = path.split("__")
            block = content
            for name in blocks:
                block = block[name]
            block[key] = value

    yaml_file.edit(project.params, change)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    """The root's own project, with the digits of update 1 and the empty state."""
    from renate_stages.data import write_digits

    root = tmp_path / "project"
    root.mkdir()
    for name in ("dvc.yaml", "params.yaml", "renate_config.py"):
        shutil.copy(REPOSITORY / name, root / name)
    project = Project(root)
    write_digits(project.incoming, 1)
    project.parent.mkdir()
    state.write_empty(project.parent)
    edit_params(project, trainer__max_epochs=2, tracking__enabled=False)
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return project


def snapshot(project: Project) -> dict[str, bytes]:
    """Return the bytes of every file of a project, but of locks and compiled code."""
    return {
        path.relative_to(project.root).as_posix(): path.read_bytes()
        for path in project.root.rglob("*")
        if path.is_file() and not {".renate", "__pycache__"} & set(path.parts)
    }
