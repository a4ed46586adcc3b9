"""Each kind of scheduler searches from end to end, and again with equal bytes."""

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
def test_schedulers_search_end_to_end(project, scheduler):
    if scheduler == "bo":
        pytest.importorskip("botorch")
    said = searched(
        project,
        trainer__max_epochs=4,
        tuning={"scheduler": scheduler, "max_trials": 5},
    )
    assert sum(said["trials"].values()) == 5 and said["epochs"] <= 20
    assert said["ended_by"] == "max_trials"
    first = snapshot(project)
    tune.run(project, quiet)
    assert snapshot(project) == first
