"""`data.split`: which rows become holdout and validation split."""

from __future__ import annotations

import numpy as np
import pytest
from small_project import edit_config, edit_params

from renate_stages import errors
from renate_stages.memory import ExampleStore
from renate_stages.project import Project
from renate_stages.stages import prepare

DATED = """[
            (image, label, {"created": f"2026-11-{1 + row * 7 % 29:02}"})
            for row, (image, label) in enumerate(zip(images, labels))
        ]"""


def quiet(line: str) -> None:
    pass


def dates(project: Project, split: str) -> list[bytes]:
    store = ExampleStore.open(project.prepared / split)
    return store.column("meta.created").tolist()


@pytest.fixture
def dated(project):
    edit_config(project, "TensorDataset(images, labels)", DATED)
    edit_params(project, data__split="newest", data__split_by="created")
    return project


def test_splits_follow_one_another_in_time(dated):
    prepare.run(dated, quiet)
    train, val, test = (dates(dated, split) for split in ("train", "val", "test"))
    assert max(train) <= min(val) <= max(val) <= min(test)
    assert max(train) < max(test)
    rows = len(train) + len(val) + len(test)
    assert len(test) == round(0.2 * rows) and len(val) == round(0.1 * (rows - len(test)))


def test_seed_does_not_change_the_newest_rows(dated):
    prepare.run(dated, quiet)
    first = np.array(ExampleStore.open(dated.prepared / "test").column("inputs"))
    edit_params(dated, seed=99)
    prepare.run(dated, quiet)
    assert np.array_equal(first, ExampleStore.open(dated.prepared / "test").column("inputs"))


def test_unknown_field_is_refused_before_anything_is_written(dated):
    edit_params(dated, data__split_by="day")
    with pytest.raises(errors.DataModuleError, match=r"no metadata 'day' \(it has: created\)"):
        prepare.run(dated, quiet)
    assert not dated.prepared.exists()


def test_stratified_splits_have_the_share_of_each_label(project):
    edit_params(project, data__split="stratified")
    prepare.run(project, quiet)
    counts = {
        split: np.bincount(ExampleStore.open(project.prepared / split).column("targets"))
        for split in ("train", "val", "test")
    }
    whole = sum(counts.values())
    assert np.abs(counts["test"] - 0.2 * whole).max() < 1.01


@pytest.mark.parametrize(
    "values", [{"data__split": "newest"}, {"data__split_by": "created"}, {"data__split": "first"}]
)
def test_rule_without_its_field_is_refused(project, values):
    edit_params(project, **values)
    with pytest.raises(errors.InvalidParamsError, match=r"data.*split"):
        prepare.run(project, quiet)
