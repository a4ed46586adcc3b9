"""Published models that take raw rows: their version, in a fresh process and over HTTP."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from servers import run_mlflow
from warm_commands import SIDE_PROCESS, WarmSideProcess, folder

from renate_stages._version import __version__
from renate_stages.actions import publish
from renate_stages.export import load
from renate_stages.files import yaml_file
from renate_stages.params import Params
from renate_stages.preprocessing import RawColumn
from renate_stages.project import Project
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import state
from renate_stages.tracking import side_process

REPOSITORY = Path(__file__).parents[2]
SECRET = "Zanzibar"  # a value of the data
TABLE = {"name": "table", "target": "label", "exclude": ["number"], "text": ["message"]}
COLUMNS = ["age", "city", "member", "since", "message"]
TEXT = {"name": "text", "text": "message", "target": "label"}


def examples(rows: int = 60) -> pd.DataFrame:
    """Return rows with an age, a city, a flag, a date and a message, some of them missing."""
    rng = np.random.default_rng(0)
    city = rng.choice(["Oslo", "Rome", SECRET], rows)
    table = pd.DataFrame(
        {
            "number": range(rows),
            "age": rng.integers(18, 80, rows),
            "city": pd.Series(city, dtype=object).where(rng.random(rows) > 0.2, None),
            "member": rng.choice([True, False], rows),
            "since": [f"2026-03-{day:02}" for day in rng.integers(1, 29, rows)],
            "message": [f"the {'bill' if each == 'Rome' else 'parcel'} of {each}" for each in city],
            "label": np.where(city == "Rome", "billing", "delivery"),
        }
    )
    return table


def make_update(root: Path, model: str, module: dict[str, Any], columns: list[str]) -> Project:
    """Run and publish one update on some columns of the examples."""
    project = Project(root)
    project.incoming.mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, root / name)
    project.user_config.write_text('"""The model and the data are in params.yaml."""\n')
    project.parent.mkdir()
    state.write_empty(project.parent)
    examples()[columns].to_csv(project.incoming / "rows.csv", index=False)

    def change(content):
        content["model"], content["data"]["module"] = model, module
        content["hyperparameters"] = {"optimizer": "Adam", "learning_rate": 0.01}
        content["trainer"]["max_epochs"] = 2
        content["tracking"]["experiment"] = model

    yaml_file.edit(project.params, change)
    os.chdir(root)  # as `dvc repro` does
    yaml_file.edit(project.params, lambda content: content["tracking"].update(enabled=False))
    for stage in (prepare, restore_state, tune, train, export):
        stage.run(project, lambda message: None)
    yaml_file.edit(project.params, lambda content: content["tracking"].update(enabled=True))
    messages: list[str] = []
    publish.publish(project, Params.load(project.params), messages.append)
    assert messages[-1] == f"{model}, version 1: published"
    return project


@pytest.fixture(scope="module")
def served(tmp_path_factory, mlflow_in_process) -> Path:
    """Return a folder with one published update on a table, one on texts, and their store."""
    root = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("MLFLOW_TRACKING_URI", uri(root))
        patch.delenv("DVC_ROOT", raising=False)
        patch.chdir(root)
        patch.setattr("renate_stages.stages.export.draw_pictures", lambda *_: [])
        patch.setattr("renate_stages.actions.publish.pictures_at_hand", lambda *_: [])
        patch.setattr(side_process, "subprocess", WarmSideProcess(folder(SIDE_PROCESS)))
        make_update(root / "table", "TabularMLP", TABLE, ["number", *COLUMNS, "label"])
        make_update(root / "text", "TextCNN", TEXT, ["message", "label"])
    return root


def uri(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def store(served, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(served))


def content_of(name: str) -> Path:
    """Return the folder of the published version of a model."""
    client = MlflowClient()
    source = client.get_model_version(name, "1").source
    assert source is not None
    model = client.get_logged_model(source.rpartition("/")[2])
    return Path(model.artifact_location.removeprefix("file://"))


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("TabularMLP", dict.fromkeys(COLUMNS, "any")),
        ("TextCNN", {"message": "string"}),
    ],
)
def test_version_has_the_raw_columns_and_the_export_and_no_example_of_the_data(name, columns):
    place = content_of(name)
    signature = json.loads(yaml_file.read(place / "MLmodel")["signature"]["inputs"])
    assert {each["name"]: each["type"] for each in signature} == columns
    required = (place / "requirements.txt").read_text().split()
    assert required[0] == f"renate-stages=={__version__}"
    names = ["mlflow", "numpy", "pandas", "pyarrow", "torch"]
    assert [each.partition("==")[0] for each in required[1:]] == names
    example = json.loads((place / "serving_input_example.json").read_text())["dataframe_split"]
    assert example["columns"] == list(columns)
    assert not any(cell for cell in example["data"][0] if cell != "2000-01-01")
    kept = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    exported = {each for each in kept if each.startswith("artifacts/")}
    assert "artifacts/export/preprocessing/preprocessing.json" in exported
    for each in kept - exported:
        assert SECRET.encode() not in (place / each).read_bytes(), each


PROGRAM = """
import json, sys, mlflow, pandas
rows = pandas.read_json("rows.json", orient="table").drop(columns="index", errors="ignore")
changed = rows.assign(since=pandas.to_datetime(rows["since"]), age=rows["age"].astype("int32"))
for model, given in (("TabularMLP", rows), ("TabularMLP", changed), ("TextCNN", rows)):
    loaded = mlflow.pyfunc.load_model(f"models:/{model}@challenger")
    found = loaded.predict(given[loaded.metadata.get_input_schema().input_names()])
    print(json.dumps(found.to_dict("list")))
"""


def test_version_predicts_in_a_fresh_process_what_the_export_predicts(served, tmp_path):
    rows = examples()
    rows.to_json(tmp_path / "rows.json", orient="table", index=False)
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    table, text = (load(served / name / "export").predict(rows) for name in ("table", "text"))
    for given, expected in zip(found, (table, table, text), strict=True):
        pd.testing.assert_frame_equal(pd.DataFrame(given), expected)
    assert table["prediction"].nunique() == text["prediction"].nunique() == 2


def test_mlflow_serves_rows_over_http(served, tmp_path):
    rows = examples()[COLUMNS][:7].assign(message=None)
    expected = load(served / "table" / "export").predict(rows)
    records = [
        {name: value for name, value in row.items() if value is not None or name == "message"}
        for row in json.loads(rows.to_json(orient="records"))
    ]
    assert any("city" not in record for record in records), "a missing value may be left out"
    split = json.loads(rows.to_json(orient="split"))
    model = ("-m", "models:/TabularMLP@challenger")
    with run_mlflow(
        tmp_path, "/ping", "models", "serve", *model, "--env-manager", "local"
    ) as address:

        def ask(content: Any) -> Any:
            body = json.dumps(content).encode()
            request = Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
            with urlopen(request, timeout=120) as answer:
                return json.load(answer)["predictions"]

        for content in ({"dataframe_records": records}, {"dataframe_split": split}):
            pd.testing.assert_frame_equal(pd.DataFrame(ask(content)), expected)
        for wrong, problem in (
            ([{**records[0], "age": "old"}], "row 0: age is not a number"),
            ([{"age": 3}], "Model is missing inputs"),
        ):
            with pytest.raises(HTTPError) as refused:
                ask({"dataframe_records": wrong})
            assert refused.value.code == 400 and problem in refused.value.read().decode()


@pytest.mark.filterwarnings("ignore:.*ype hint:UserWarning")  # MLflow's, also of its own classes
def test_images_are_bytes_or_base64_and_never_paths_of_the_server(tmp_path):
    from renate_stages.tracking.served_rows import rows_of

    (tmp_path / "secret.png").write_bytes(b"secret")
    column = (RawColumn("photo", "image"),)
    given = pd.DataFrame({"photo": [b"\x89PNG", base64.b64encode(b"\xff\xd8").decode()]})
    assert rows_of(column, given) == [b"\x89PNG", b"\xff\xd8"]
    for wrong in (str(tmp_path / "secret.png"), None, 3):
        with pytest.raises(ValueError, match="row 0: expected the bytes of an image, or base64"):
            rows_of(column, pd.DataFrame({"photo": [wrong]}))
