"""Updates on a table: what `export/` predicts from raw rows is what the update evaluated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from small_project import edit_params, move_on, quiet, snapshot
from small_tables import customers, table_project, three_updates, write_customers

from renate_stages import errors, files
from renate_stages.data import StoredDataset
from renate_stages.export import load
from renate_stages.export.loading import user_of
from renate_stages.files import yaml_file
from renate_stages.memory.forget_list import ForgetList
from renate_stages.memory.identity import given_id, printed, to_array
from renate_stages.project import Project
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import State, state
from renate_stages.user.named import Named

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def updated(tmp_path, monkeypatch, made_once, warm_exports) -> Project:
    """A project after three updates."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return made_once(Project(tmp_path / "project"), three_updates)


def holdout_rows(number: int) -> pd.DataFrame:
    """Return the raw rows of an update's test file."""
    return customers(number, 40)


PREDICT = """
import sys, pandas
from renate_stages.export import load
model = load(sys.argv[1])
for path in sys.argv[2:]:
    model.predict(pandas.read_csv(path)).to_csv(path + ".predicted")
assert not any(each.startswith("mlflow") for each in sys.modules)
"""


def test_fresh_process_predicts_from_raw_rows_what_each_update_evaluated(updated, tmp_path):
    """The export is all that the process has: the project is moved away."""
    shutil.copytree(updated.export, tmp_path / "served")
    evaluated = files.read_json(updated.update_metrics)["accuracy"]["holdout"]
    kept = State.open(updated.state)
    updated.root.rename(tmp_path / "elsewhere")
    for number in (1, 2, 3):
        holdout_rows(number).to_csv(tmp_path / f"{number}.csv", index=False)
    names = ["served", "1.csv", "2.csv", "3.csv"]
    subprocess.run(
        [sys.executable, "-P", "-c", PREDICT, *names],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "Bonn" in set(holdout_rows(3)["city"]), "the category that update 2 added"
    assert not list((tmp_path / "served").rglob("__pycache__"))
    for number in (1, 2, 3):
        found = pd.read_csv(tmp_path / f"{number}.csv.predicted")
        right = found["prediction"] == holdout_rows(number)["label"]
        assert right.mean() == pytest.approx(evaluated[str(number)], abs=1e-9)
    assert kept.provenance.update == 3


def test_outputs_for_raw_rows_are_those_for_the_stored_holdouts(updated):
    served, kept = load(updated.export), State.open(updated.state)
    for number, store in kept.split("holdouts").items():
        user = user_of(updated.export, updated.user_config, Named("TabularMLP", reads_data=False))
        inputs, _ = StoredDataset(store, None, *user.test_transforms({})).__getitems__(range(40))
        with torch.no_grad():
            expected = served.model(inputs)
        rows = holdout_rows(number)
        rows.index = printed(to_array(map(given_id, rows["customer"])))
        rows = rows.loc[printed(store.metadata("id"))]
        torch.testing.assert_close(served.outputs(rows), expected, rtol=1e-6, atol=1e-6)


def test_export_describes_raw_rows_and_names_the_model(updated):
    assert files.read_json(updated.export / "export.json")["model"] == "TabularMLP"
    described = files.read_json(updated.export / "program.json")
    assert described["transforms"] == {
        "preprocessing": "table",
        "test_target_transform": None,
        "test_transform": None,
    }
    card = (updated.export / "MODEL_CARD.md").read_text()
    for line in (
        'model = load_model(".")',
        'load(".").predict(rows)  # a DataFrame',
        "| `age` | number | yes |",
        "| `city` | category | yes |",
        "| `member` | true or false | yes |",
        "| `since` | date or time, ISO 8601 | yes |",
        "| `note` | text | yes |",
        "- apply first: the preprocessing in `preprocessing/`\n",
    ):
        assert line in card
    assert "test_transform" not in card and "customer" not in card


def test_card_names_the_users_transform_after_the_preprocessing(updated):
    code = "\n\ndef halved(batch):\n    return {**batch, 'numeric': batch['numeric'] / 2}\n"
    code += "\n\ndef test_transform():\n    from renate_stages.data import Batched\n"
    code += "    return Batched(halved)\n"
    updated.user_config.write_text('"""Transforms."""\n' + code)
    export.run(updated, quiet)
    described = files.read_json(updated.export / "program.json")["transforms"]
    assert (described["preprocessing"], described["test_transform"]) == ("table", "Batched(halved)")
    card = (updated.export / "MODEL_CARD.md").read_text()
    assert (
        "- apply first: the preprocessing in `preprocessing/`, then the `test_transform` of "
        "`renate_config.py` (`Batched(halved)`)" in card
    )
    one, other = load(updated.export), load(updated.champion)
    rows = holdout_rows(1)
    assert not np.allclose(one.outputs(rows), other.outputs(rows)), "the transform is applied"


@pytest.mark.parametrize("damage", ["other mean", "no file", "not JSON"])
def test_export_whose_preprocessing_is_damaged_is_refused(updated, monkeypatch, damage):
    before = snapshot(updated)
    link = export.link_preprocessing

    def damaged(source, folder):
        link(source, folder)
        path = folder / "preprocessing" / "preprocessing.json"
        content = files.read_json(path)
        path.unlink()
        if damage == "other mean":
            content["values"][0]["mean"] += 5
            files.write_json(path, content)
        elif damage == "not JSON":
            path.write_text("{")

    monkeypatch.setattr(export, "link_preprocessing", damaged)
    with pytest.raises(errors.UnbuildableExportError):
        export.run(updated, quiet)
    assert snapshot(updated) == before, "the previous export is unchanged"


def test_forgetting_keeps_the_preprocessing_and_predictions(updated):
    fitted = (updated.state / "preprocessing" / "preprocessing.json").read_bytes()
    expected = load(updated.export).predict(holdout_rows(3))
    stored = printed(State.open(updated.state).memory().metadata("id"))[:3]
    move_on(updated, update__kind="forget")
    ForgetList().with_more(stored).write(updated.forget_list)
    for stage in (prepare, restore_state, tune, train, export):
        stage.run(updated, quiet)
    state.check(updated.state)
    forgot = State.open(updated.state)
    assert forgot.provenance.left["memory"]["rows"] == 3
    for folder in (updated.prepared, updated.state, updated.export):
        assert (folder / "preprocessing" / "preprocessing.json").read_bytes() == fitted
    pd.testing.assert_frame_equal(load(updated.export).predict(holdout_rows(3)), expected)

    move_on(updated, update__kind="update")  # the update after it has the same codes
    write_customers(updated.incoming, 5)
    prepare.run(updated, quiet)
    categories = files.read_json(updated.prepared / "preprocessing" / "preprocessing.json")
    assert categories["categories"][0]["names"] == ["Oslo", "Rome", "Bonn"]


def declare(project: Project, name: str) -> None:
    def change(content):
        for stage in content["stages"].values():
            stage["deps"].append(name)

    yaml_file.edit(project.pipeline, change)


@pytest.mark.parametrize("use", ["import", "export.files"])
def test_folder_of_the_user_named_preprocessing_is_refused_before_the_training(
    updated, monkeypatch, use
):
    (updated.root / "preprocessing").mkdir()
    (updated.root / "preprocessing" / "__init__.py").write_text("SCALE = 2\n")
    (updated.root / "preprocessing" / "words.txt").write_text("a b")
    declare(updated, "preprocessing")
    if use == "import":
        updated.user_config.write_text("import preprocessing\n")
    else:
        edit_params(updated, export__files=["preprocessing/words.txt"])
    name = "__init__.py" if use == "import" else "words.txt"
    try:
        for stage in (prepare, export):
            with pytest.raises(errors.ExportFileError, match=f"preprocessing/{name}: the model"):
                stage.run(updated, quiet)
    finally:
        sys.modules.pop("preprocessing", None)


def test_own_data_module_function_may_return_a_table(tmp_path, monkeypatch, warm_exports):
    project = Project(tmp_path / "project")
    table_project(project)
    monkeypatch.chdir(project.root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = '"""The data of this project."""\n\nfrom renate_stages.data.modules.table import Table\n'
    code += "\n\ndef data_module_fn(data_path: str, seed: int = 0):\n"
    code += (
        "    rest = {'id': 'customer', 'test_files': 'test-*.csv', 'exclude': ['since', 'note']}\n"
    )
    code += "    return Table(data_path, target='label', seed=seed, **rest)\n"
    project.user_config.write_text(code)
    edit_params(project, data__module=None, trainer__max_epochs=1)
    for stage in (prepare, restore_state, tune, train, export):
        stage.run(project, quiet)
    right = load(project.export).predict(holdout_rows(1))["prediction"] == holdout_rows(1)["label"]
    evaluated = json.loads(project.update_metrics.read_text())["accuracy"]["holdout"]["1"]
    assert right.mean() == pytest.approx(evaluated, abs=1e-9)
