"""`renate-stages publish`: MLflow runs and model versions, and how to load and serve them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from published_updates import EXPERIMENT, Published
from servers import run_mlflow

from renate_stages import errors, files
from renate_stages.actions import publish
from renate_stages.files import yaml_file
from renate_stages.models import MLP
from renate_stages.project import Project


def approx(expected: Any) -> Any:
    """Compare with the precision of the curves' CSV file."""
    return pytest.approx(expected, rel=1e-6)


@pytest.fixture(autouse=True)
def environment(
    published: Published, mlflow_in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", published.uri)
    monkeypatch.delenv("DVC_ROOT", raising=False)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((5, 8, 8), dtype=np.float32)


def expected_outputs(project: Project, images: np.ndarray) -> np.ndarray:
    """Return the outputs of the update's own model, loaded as a user loads it."""
    model = MLP.from_state_dict(torch.load(project.export / "model.ckpt")).eval()
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def run_of(client: MlflowClient, name: str) -> Any:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    (run,) = [each for each in found if each.info.run_name == name]
    return run


def artifacts_of(run: Any) -> dict[str, bytes]:
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def version_of(client: MlflowClient, update: int) -> Any:
    where = f"name = '{EXPERIMENT}' and tags.`update.number` = '{update}'"
    (version,) = client.search_model_versions(where)
    return version


def test_run_published_from_files_equals_the_run_logged_by_stages(published, tmp_path, monkeypatch):
    copy = Project(tmp_path / "clone")
    shutil.copytree(published.project(3).root, copy.root)
    other_store = f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other_store)
    messages: list[str] = []
    publish.publish(copy, published.params(3), messages.append)
    assert messages == ["run update-3: published", "model-updates, version 1: published"]

    clients = MlflowClient(published.uri), MlflowClient(other_store)
    logged, rebuilt = (run_of(client, "update-3") for client in clients)
    assert rebuilt.data.params == logged.data.params
    metrics = {n: each for n, each in logged.data.metrics.items() if not n.startswith("cost.")}
    assert len(metrics) < len(logged.data.metrics), "costs are in no file"
    assert rebuilt.data.metrics == approx(metrics)
    assert rebuilt.data.tags["mlflow.note.content"] == logged.data.tags["mlflow.note.content"]
    for name in ("renate.state", "renate.key", "renate.complete", "update.number", "learner"):
        assert rebuilt.data.tags[name] == logged.data.tags[name], name
    for metric in metrics:
        one, other = [
            [
                (point.step, point.value)
                for point in client.get_metric_history(run.info.run_id, metric)
            ]
            for client, run in zip(clients, (logged, rebuilt), strict=True)
        ]
        assert [step for step, _ in one] == [step for step, _ in other], metric
        assert [value for _, value in one] == approx([value for _, value in other]), metric
    assert artifacts_of(rebuilt) == artifacts_of(logged)
    assert {"reports/update.md", "plots/matrix_accuracy.png"} <= artifacts_of(logged).keys()


def test_second_publish_adds_nothing(published):
    def content() -> list[str]:
        with closing(sqlite3.connect(published.uri.removeprefix("sqlite:///"))) as store:
            return sorted(store.iterdump())

    before, messages = content(), []
    for number in (1, 2, 3):
        publish.publish(published.project(number), published.params(number), messages.append)
    assert content() == before
    assert all(line.endswith("already published") for line in messages) and len(messages) == 6


def test_model_version_has_signature_requirements_and_source_run(published):
    client = MlflowClient(published.uri)
    for number in (1, 2, 3):
        version = version_of(client, number)
        assert version.tags["renate.state"] == published.identity(number)
        assert client.get_run(version.run_id).info.run_name == f"update-{number}"
        assert version.description.splitlines()[0] in published.project(number).report.read_text()
    assert client.get_registered_model(EXPERIMENT).aliases == {
        "champion": int(version_of(client, 2).version),
        "challenger": int(version_of(client, 3).version),
    }
    model = client.get_logged_model(version_of(client, 3).source.rpartition("/")[2])
    folder = Path(model.artifact_location.removeprefix("file://"))
    description = yaml_file.read(folder / "MLmodel")
    (given,) = json.loads(description["signature"]["inputs"])
    assert given["tensor-spec"] == {"dtype": "float32", "shape": [-1, 8, 8]}
    required = (folder / "requirements.txt").read_text().split()
    assert [each.partition("==")[0] for each in required] == ["mlflow", "numpy", "torch"]
    example = json.loads((folder / "serving_input_example.json").read_text())["inputs"]
    assert np.shape(example) == (2, 8, 8) and not np.any(example)  # no example of the data


def test_champion_predicts_in_a_process_without_this_library(published, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    program = f"""
import sys, numpy, mlflow
model = mlflow.pyfunc.load_model("models:/{EXPERIMENT}@champion")
numpy.save("outputs.npy", model.predict(numpy.load("images.npy")))
loaded = {{"renate_stages", "renate_config", "pytorch_lightning", "syne_tune"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    given = np.load(tmp_path / "outputs.npy")
    np.testing.assert_allclose(given, expected_outputs(published.project(2), images), atol=1e-5)


def test_mlflow_serves_the_champion_over_http(published, images, tmp_path):
    arguments = (
        "models",
        "serve",
        "-m",
        f"models:/{EXPERIMENT}@champion",
        "--env-manager",
        "local",
    )
    with run_mlflow(tmp_path, "/ping", *arguments) as address:
        body = json.dumps({"inputs": images.tolist()}).encode()
        request = Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=120) as answer:
            given = json.load(answer)["predictions"]
    np.testing.assert_allclose(given, expected_outputs(published.project(2), images), atol=1e-5)


def test_alias_is_moved_and_removed(published, capsys):
    client = MlflowClient(published.uri)
    project, params = published.project(3), published.params(3)

    def current_aliases() -> dict[str, int]:
        return client.get_registered_model(EXPERIMENT).aliases

    before = current_aliases()
    publish.point(project, params, "canary", published.identity(1))
    assert current_aliases()["canary"] == int(version_of(client, 1).version)
    publish.point(project, params, "canary", published.identity(3))
    assert current_aliases()["canary"] == int(version_of(client, 3).version)
    publish.point(project, params, "canary", None)
    publish.point(project, params, "canary", None)
    assert current_aliases() == before and capsys.readouterr() == ("", "")

    publish.point(project, params, "canary", "f" * 64)
    assert "no version for the state ffffffff" in capsys.readouterr().err
    off = params.model_copy(
        update={"tracking": params.tracking.model_copy(update={"enabled": False})}
    )
    publish.point(project, off, "canary", published.identity(1))
    assert capsys.readouterr().out == f"{publish.OFF}\n"
    assert current_aliases() == before


def test_update_without_exported_program_gets_a_run_but_no_model_version(
    published, tmp_path, monkeypatch
):
    copy = Project(tmp_path / "clone")
    shutil.copytree(published.project(1).root, copy.root)
    described = files.read_json(copy.export / "program.json")
    files.write_json(
        copy.export / "program.json", {**described, "program": None, "reason": "it branches"}
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    messages: list[str] = []
    publish.publish(copy, published.params(1), messages.append)
    assert messages == [
        "run update-1: published",
        "no model version was made: export/model.pt2 does not exist (it branches)",
    ]


def test_publish_refuses_results_of_another_update(published):
    with pytest.raises(errors.OtherUpdateError, match="git checkout update-2 && dvc checkout"):
        publish.publish(published.project(2), published.params(3))


def test_unreachable_store_is_an_error_for_publish_and_a_warning_for_an_alias(
    published, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(errors.PublishError, match="then run the command again") as caught:
        publish.publish(published.project(1), published.params(1))
    assert "secret" not in str(caught.value)
    publish.point(published.project(1), published.params(1), "champion", "a" * 64)
    assert "was not moved" in capsys.readouterr().err
