"""`prepare` on a table with weights of rows: figures, and what cannot use them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from small_project import edit_params
from small_tables import TESTS, table_project

from renate_stages import errors, files
from renate_stages.project import Project
from renate_stages.stages import prepare


@pytest.fixture
def weighted(tmp_path, monkeypatch) -> Project:
    """A project with a table whose column `w` has weights from 0 to 2."""
    project = Project(tmp_path / "project")
    project.root.mkdir()
    monkeypatch.chdir(project.root)
    table_project(project)
    for path in project.incoming.glob("*.csv"):
        frame = pd.read_csv(path)
        frame.assign(w=np.arange(len(frame)) % 5 / 2).to_csv(path, index=False)
    module = {"name": "table", "target": "label", "id": "customer", "test_files": TESTS}
    edit_params(project, data__module={**module, "text": ["note"], "weight": "w"})
    edit_params(project, data__validation_fraction=0.0)
    return project


def test_weights_of_training_rows_are_shown(weighted):
    said: list[str] = []
    prepare.run(weighted, said.append)
    assert said[0].startswith("train 120 rows with weights from 0 to 2")
    figures = files.read_json(weighted.data_metrics)
    assert figures["train"]["weights"] == {"least": 0, "mean": 1, "largest": 2, "zero": 24}


@pytest.mark.parametrize(
    ("change", "error"),
    [("learner", errors.UnweightedLearnerError), ("zeros", errors.NoRowWeighsError)],
)
def test_what_cannot_use_weights_is_refused_and_nothing_is_written(weighted, change, error):
    if change == "learner":
        edit_params(weighted, learner={"choice": ["ER", "SCR"]})
        match = "SCR would ignore"
    else:
        for path in weighted.incoming.glob("*.csv"):
            pd.read_csv(path).assign(w=0).to_csv(path, index=False)
        match = "the weights of all 120 rows are 0"
    with pytest.raises(error, match=match):
        prepare.run(weighted, lambda _: None)
    assert not weighted.prepared.exists()
