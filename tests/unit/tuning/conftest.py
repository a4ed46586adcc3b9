"""Fixtures: prepared projects at updates 1 and 2, a fork server, and trials."""

from __future__ import annotations

import shutil
import sys

import pytest
from small_searches import make_project, make_trials

from renate_stages.project import Project
from renate_stages.tuning.processes import ForkedProcesses


@pytest.fixture(scope="module")
def at_update_2(tmp_path_factory) -> Project:
    """Create a project whose parent has memory and validation data; do not change it."""
    path = list(sys.path)
    yield make_project(tmp_path_factory.mktemp("second") / "project", update=2)
    sys.path[:] = path


@pytest.fixture(scope="session")
def prepared_project(tmp_path_factory) -> Project:
    """Create a project with two epochs at update 1, ready for `tune`; do not change it."""
    path = list(sys.path)
    yield make_project(tmp_path_factory.mktemp("first") / "project", epochs=2)
    sys.path[:] = path


@pytest.fixture
def project_before_tune(prepared_project, tmp_path, monkeypatch) -> Project:
    """Return a copy of `prepared_project` that tests may change."""
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copytree(prepared_project.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture(scope="module")
def processes(at_update_2, tmp_path_factory):
    """Fork trials of `at_update_2` from one server for all tests of a module."""
    forked = ForkedProcesses(at_update_2, tmp_path_factory.mktemp("scratch"))
    yield forked
    forked.close()


@pytest.fixture
def trials(processes, tmp_path):
    made = make_trials(tmp_path / "trials", processes)
    yield made
    made.close()
