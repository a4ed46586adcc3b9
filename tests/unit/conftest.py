"""A small real project in a folder, without git and DVC, for stages called in the process."""

from __future__ import annotations

import shutil
import sys

import pytest
from small_project import REPOSITORY, edit_params

from renate_stages import state
from renate_stages.project import Project


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
