"""New rows that earlier updates have trained on are counted."""

from __future__ import annotations

import json

import numpy as np
from small_project import edit_params, move_on, run

from renate_stages.actions.example_data import write_digits
from renate_stages.stages import prepare


def test_rows_in_memory_are_counted_by_split(project):
    edit_params(project, trainer__max_epochs=1, hyperparameters__memory_size=1000)
    edit_params(project, data__validation_fraction=0.0)
    run(project)
    assert json.loads(project.data_metrics.read_text())["in_memory"] == {
        "test": 0,
        "train": 0,
        "val": 0,
    }
    kept = np.array(json.loads(project.data_metrics.read_text())["train"]["rows"])
    move_on(project)  # the same data again
    said: list[str] = []
    prepare.run(project, said.append)
    figures = json.loads(project.data_metrics.read_text())
    counts = figures["in_memory"]
    assert counts["train"] == figures["train"]["rows"] < kept
    assert counts["test"] > 0 and counts["val"] == 0
    assert f"{counts['train']} of train and {counts['test']} of test trained on before" in said[0]


def test_new_rows_are_not_counted(project):
    edit_params(project, trainer__max_epochs=1)
    run(project)
    move_on(project)
    for path in project.incoming.iterdir():
        path.unlink()
    write_digits(project.incoming, 2)
    prepare.run(project, lambda _: None)
    counts = json.loads(project.data_metrics.read_text())["in_memory"]
    assert not any(counts.values())
