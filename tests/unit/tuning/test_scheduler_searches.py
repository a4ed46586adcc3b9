"""Run a whole search with each kind of scheduler, twice with identical bytes."""

from __future__ import annotations

import pytest
from small_project import snapshot
from small_searches import quiet, searched

from renate_stages.stages import tune

pytestmark = pytest.mark.usefixtures("warm_searches")


@pytest.fixture
def project(project_before_tune):
    return project_before_tune


@pytest.mark.parametrize("scheduler", ["bo", "asha", "pasha", "rush", "bounding-box"])
def test_scheduler_runs_a_whole_search_with_reproducible_bytes(project, scheduler):
    if scheduler == "bo":
        pytest.importorskip("botorch")
    summary = searched(
        project,
        trainer__max_epochs=4,
        tuning={"scheduler": scheduler, "max_trials": 5},
    )
    assert sum(summary["trials"].values()) == 5 and summary["epochs"] <= 20
    assert summary["ended_by"] == "max_trials"
    first = snapshot(project)
    tune.run(project, quiet)
    assert snapshot(project) == first
