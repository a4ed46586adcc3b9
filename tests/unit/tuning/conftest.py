"""A project at update 2, a server that its trials are forked from, and trials."""

from __future__ import annotations

import sys

import pytest
from small_searches import make_project, make_trials

from renate_stages.project import Project
from renate_stages.tuning.processes import ForkedProcesses


@pytest.fixture(scope="module")
def at_update_2(tmp_path_factory) -> Project:
    """Has a parent with a memory and validation data; tests do not change it."""
    path = list(sys.path)
    yield make_project(tmp_path_factory.mktemp("second") / "project", update=2)
    sys.path[:] = path


@pytest.fixture(scope="module")
def processes(at_update_2, tmp_path_factory):
    """Forks trials of `at_update_2`, for all tests of a file."""
    forked = ForkedProcesses(at_update_2, tmp_path_factory.mktemp("scratch"))
    yield forked
    forked.close()


@pytest.fixture
def trials(processes, tmp_path):
    made = make_trials(tmp_path / "trials", processes)
    yield made
    made.close()
