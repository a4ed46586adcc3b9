"""Targets of named data modules: several columns keep their order, and labels make a model."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from small_project import edit_params, move_on, quiet, run, snapshot

from renate_stages.data import ColumnDataset, ingest
from renate_stages.errors import (
    ChangedPreprocessingError,
    TextEncodingError,
    UnusableLabelsError,
)
from renate_stages.export import load
from renate_stages.memory.identity import given_ids, stored_ids
from renate_stages.preprocessing import read_preprocessing
from renate_stages.project import Project
from renate_stages.stages import export, prepare
from renate_stages.state.fitted import outputs_of

WORDS = ("bill", "login", "late", "parcel")
TARGETS = ["is_bill", "is_login"]


def named(project: Project, kind: str, model: str, task: str = "auto", **module) -> Project:
    """Let params.yaml name the data module and the model; no code of the user remains."""
    project.user_config.write_text('"""This project has no functions of its own."""\n')
    values = {"optimizer": "AdamW", "learning_rate": 0.05, "batch_size": 32, "memory_size": 60}
    edit_params(
        project,
        task=task,
        model=model,
        data__module={"name": kind, **module},
        hyperparameters={**values, "memory_batch_size": 32},
        trainer__max_epochs=10,
        shift__enabled=False,
    )
    return project


def write(project: Project, number: int, rows: int = 160, **targets) -> pd.DataFrame:
    """Replace the data of the update; the words of a text tell its targets."""
    rng = np.random.default_rng(number)
    words = rng.choice(WORDS, (rows, 3))
    frame = pd.DataFrame({"key": [f"{number}-{row}" for row in range(rows)]})
    frame["text"] = [" ".join(row) for row in words]
    frame["x"] = rng.normal(size=rows)
    frame["is_bill"] = (words == "bill").any(axis=1).astype(int)
    frame["is_login"] = (words == "login").any(axis=1).astype(int)
    frame = frame.assign(**targets)
    for path in project.incoming.iterdir():
        path.unlink()
    frame.to_csv(project.incoming / "rows.csv", index=False)
    return frame


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("kind", "task"), [("text", "multilabel"), ("table", "regression")])
def test_columns_of_targets_keep_their_order_and_name_predictions(project, kind, task):
    text = {"text": "text"} if kind == "text" else {"exclude": ["text"]}
    settings = {"id": "key", **text}
    model = "TextCNN" if kind == "text" else "TabularMLP"
    named(project, kind, model, task, target=TARGETS, **settings)
    if task == "regression":
        edit_params(project, evaluation__metric="mae", evaluation__mode="min")
    frame = write(project, 1)
    state = run(project)
    found = read_preprocessing(project.state)
    assert found is not None and list(found.targets) == TARGETS
    export.run(project, quiet)
    held_out = {bytes(each) for each in stored_ids(state.split("holdouts")[1])}
    rows = frame[[bytes(each) in held_out for each in given_ids(frame["key"])]]
    predicted = load(project.export).predict(rows["text"].tolist() if kind == "text" else rows)
    columns = [f"prediction_{name}" for name in TARGETS]
    assert [each for each in predicted if each.startswith("prediction")] == columns
    right = predicted[columns].to_numpy() - rows[TARGETS].to_numpy()
    evaluated = json.loads(project.update_metrics.read_text())
    if task == "regression":
        assert evaluated["mae"]["holdout"]["1"] == pytest.approx(np.abs(right).mean(), abs=1e-4)
    else:
        assert evaluated["accuracy"]["holdout"]["1"] == pytest.approx((right == 0).mean(), abs=1e-6)

    move_on(project)
    write(project, 2, other=0)
    for target in (TARGETS[::-1], ["is_login", "other"]):
        edit_params(project, data__module={"name": kind, "target": target, **settings})
        before = snapshot(project)
        with pytest.raises(ChangedPreprocessingError) as refused:
            prepare.run(project, quiet)
        wrong = f"target lists {', '.join(target)}; in earlier updates, it was is_bill, is_login"
        assert wrong in str(refused.value) and snapshot(project) == before
    renamed = {"name": kind, "target": ["billing", "is_login"], **settings}
    edit_params(project, data__module=renamed)
    write(project, 2, billing=1)
    if kind == "table":
        edit_params(project, data__module={**renamed, "exclude": ["text", "is_bill"]})
    prepare.run(project, quiet)
    assert list(read_preprocessing(project.prepared).targets) == ["billing", "is_login"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["x"] * 160, "all rows of the first update have the label 'x', and a model needs two"),
        ([7] * 160, "all rows of the first update have the label '7'"),
    ],
)
@pytest.mark.parametrize("kind", ["text", "table"])
@pytest.mark.parametrize("task", ["auto", "classification"])
def test_data_with_one_label_makes_no_model(project, kind, task, labels, message):
    model, text = ("TextCNN", {}) if kind == "text" else ("TabularMLP", {"exclude": ["text"]})
    named(project, kind, model, task, target="label", id="key", **text)
    write(project, 1, label=labels)
    before = snapshot(project)
    with pytest.raises(UnusableLabelsError, match=message):
        prepare.run(project, quiet)
    assert snapshot(project) == before
    edit_params(project, data__labels={"order": [str(labels[0]), "other"]})
    prepare.run(project, quiet)


def test_texts_without_labels_make_no_model(project):
    named(project, "text", "TextCNN", target=None)
    write(project, 1)
    with pytest.raises(UnusableLabelsError, match="no row of the first update has a label"):
        prepare.run(project, quiet)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 400_125], r"3 labels from 0 to 400125 would make a model with 400126 outputs"),
        ([0, 1, -3], "the label -3 is below 0"),
        ([0, 0, -100], "have the label '0', and a model needs two"),
        ([-100, -100], "no row of the first update has a label"),
    ],
)
def test_numbered_labels_that_make_no_model_are_refused(tmp_path, labels, message):
    data = ColumnDataset(np.zeros((len(labels), 2)), np.array(labels), {})
    stores = {"train": ingest(data, tmp_path / "store", 1, "train")}
    with pytest.raises(UnusableLabelsError, match=message):
        outputs_of(stores, (), "auto")


@pytest.mark.parametrize(
    ("targets", "task", "expected"),
    [
        (np.array([0, 4, -100]), "auto", 5),
        (np.array([0, 1]), "binary", 1),
        (np.array([7, 3]), "regression", 1),
        (np.array([0.5, 1.5]), "auto", 1),
        (np.zeros((2, 3)), "regression", 3),
        (np.arange(1200), "classification", 1200),
        (np.array([-3, 4000]), "counts:Task", 4001),
    ],
)
def test_outputs_of_a_new_model_are_those_that_the_targets_need(tmp_path, targets, task, expected):
    data = ColumnDataset(np.zeros((len(targets), 2)), targets, {})
    stores = {"train": ingest(data, tmp_path / "store", 1, "train")}
    assert outputs_of(stores, (), task) == expected


def test_texts_of_a_pair_keep_their_order(project):
    named(project, "text", "TextCNN", text=["text", "key"], target="is_bill")
    write(project, 1)
    run(project)
    move_on(project)
    write(project, 2)
    edit_params(
        project, data__module={"name": "text", "text": ["key", "text"], "target": "is_bill"}
    )
    with pytest.raises(
        TextEncodingError, match="columns of earlier updates, text and key, in another order"
    ):
        prepare.run(project, quiet)
