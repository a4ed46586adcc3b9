"""Labels of new data: those that are new, look alike, or are only in `data.labels`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from renate_stages.memory import ExampleStore, Ragged, StoreWriter
from renate_stages.params.data import LabelParams
from renate_stages.shift.data_metrics import LabelFigures
from renate_stages.state import State
from renate_stages.state.label_figures import FoundLabels, seen_by
from renate_stages.tasks.labels import LabelNames, known_names, lookalikes


def stored(folder, targets) -> ExampleStore:
    with StoreWriter(folder, update=2) as writer:
        if len(targets):
            writer.append((np.arange(len(targets)), targets), {})
    return ExampleStore.open(folder)


def parent(names=(), classes=(), kind="update", has_model=True) -> State:
    source = SimpleNamespace(labels=tuple(names), classes=tuple(classes), kind=kind)
    return cast("State", SimpleNamespace(provenance=source, has_model=has_model))


def found(folder, state, task="classification", **splits: Any) -> FoundLabels:
    stores = {name: stored(folder / name, np.array(rows)) for name, rows in splits.items()}
    return FoundLabels.of(stores, state, task)


def named(*labels: str, known=(), **settings: Any) -> LabelNames:
    """Number the labels of the data, as `prepare` does."""
    rename = settings.get("rename", {})
    names = LabelNames(known_names(known, rename, settings.get("order", ())), rename)
    for label in labels:
        names.number(label)
    return names


def test_rows_with_labels_that_the_parent_has_not_seen_are_counted(tmp_path):
    state = parent(["circle", "star"], [0])  # star was declared, but no row had it
    labels = found(tmp_path, state, train=[0, 2, 1, 2, -100], val=[3, 0], test=[2])
    names = named("cross", "odd", known=["circle", "star"])
    figures = labels.figures(names)
    assert figures == {"new": {"star": 1, "cross": 3, "odd": 0}, "new_rows": 4}
    (line,) = LabelFigures(**figures).lines()
    assert line == (
        "new labels, with training and test rows: cross (3), star (1), odd (only validation data)"
    )


@pytest.mark.parametrize("is_ragged", [True, False])
def test_row_of_tokens_counts_once_for_each_new_label(tmp_path, is_ragged):
    rows = [np.array([0, 1, 1]), np.array([0, 0, 0]), np.array([1, -100, 2])]
    train = stored(tmp_path / "train", Ragged.of(rows) if is_ragged else np.stack(rows))
    labels = FoundLabels.of({"train": train}, parent(["O"]), "tokens")
    figures = labels.figures(named("city", "name", known=["O"]))
    assert figures == {"new": {"city": 2, "name": 1}, "new_rows": 2}


@pytest.mark.parametrize(
    ("state", "task", "expected"),
    [
        (parent(classes=[0, 1]), "classification", {"new": {"4": 1}, "new_rows": 1}),
        (parent(), "classification", {}),  # an imported model, whose labels are unknown
        (None, "classification", {}),  # all labels are new and have no names
        (parent(), "regression", {"new": {}, "new_rows": 0}),
    ],
)
def test_numbers_are_new_labels_only_where_the_parents_labels_are_known(
    tmp_path, state, task, expected
):
    assert found(tmp_path, state, task, train=[0, 1, 4]).figures(named()) == expected


def test_imported_model_has_seen_the_declared_labels():
    assert seen_by(parent(["a", "b"], [0], kind="init")) == {0, 1}
    assert seen_by(parent(["a", "b"], [0])) == {0}
    assert seen_by(parent(has_model=False)) == frozenset()


def test_new_label_that_differs_only_in_case_spaces_or_form_is_named_with_the_other(tmp_path):
    new = ["Fraud", "fraud", "CIRCLE", "two  words", "cafe\u0301", "cross"]
    known = ["circle", "Two words", "caf\u00e9"]
    alike = {**dict(zip(new[2:5], known, strict=True)), "fraud": "Fraud"}
    assert lookalikes(new, known) == alike
    labels = found(tmp_path, parent(["circle"], [0]), train=[1, 1, 2, 3, 3, 3], test=[1])
    figures = labels.figures(named("Circle", "Fraud", "fraud", known=["circle"]))
    assert figures["differ_only_in_case"] == {"Circle": "circle", "Fraud": "fraud"}
    lines = LabelFigures(**figures).lines()
    assert "label 'Circle' (3 rows) looks like 'circle'" in lines[1]
    assert "map 'Fraud' to 'fraud' in data.labels.rename" in lines[2]


def lines_on(folder, settings: dict, state: State | None, *labels: str, known=()) -> list[str]:
    names = named(*labels, known=known, **settings)
    train = [names.number(label) for label in labels]
    return found(folder, state, train=train).unused(LabelParams(**settings), names, state)


def test_declared_label_without_rows_is_named(tmp_path):
    order = {"order": ["circel", "square", "later"]}
    lines = lines_on(tmp_path / "1", order, None, "square", "circle", "arrow")
    what = "data.labels.order: no row so far has"
    assert lines == [f"{what} 'circel', did you mean 'circle'?", f"{what} 'later'"]
    state = parent(["circel", "square"], [0, 1])
    lines = lines_on(tmp_path / "2", order, state, "later", known=["circel", "square"])
    assert lines == [], "earlier updates had rows"


def test_rename_that_matches_no_label_is_named(tmp_path):
    rename = {"rename": {"circel": "round", "Circl": "circle", "old": "new", "dot": "point"}}
    state = parent(["circle", "old"], [0, 1])
    lines = lines_on(tmp_path, rename, state, "circle", "dot", known=["circle", "old"])
    what = "data.labels.rename: no label of this data or of earlier updates is"
    assert lines == [f"{what} '{name}', did you mean 'circle'?" for name in ("circel", "Circl")]
