"""The tracker with a real MLflow server, which stores runs and artifacts itself."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from servers import mlflow_server

from renate_stages.tracking import RunIdentity, new_run, reopened_run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of an MLflow server on this machine."""
    folder = tmp_path_factory.mktemp("server")
    options = ("--artifacts-destination", str(folder / "artifacts"))
    with mlflow_server(folder, f"sqlite:///{folder}/server.db", *options) as address:
        yield address


@pytest.fixture(autouse=True)
def environment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.delenv("DVC_ROOT", raising=False)


def ask(address: str, what: str, **query: Any) -> dict[str, Any]:
    with urlopen(f"{address}/api/2.0/mlflow/{what}?{urlencode(query)}", timeout=30) as answer:
        return json.load(answer)


def post(address: str, what: str, **body: Any) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    request = Request(f"{address}/api/2.0/mlflow/{what}", json.dumps(body).encode(), headers)
    with urlopen(request, timeout=30) as answer:
        return json.load(answer)


def pairs(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["key"]: entry["value"] for entry in entries}


def test_update_is_recorded_reopened_and_readable(server, tmp_path, capsys):
    project = tmp_path / "project"
    project.mkdir()
    report = tmp_path / "update.md"
    report.write_text("# Update 1")
    identity = RunIdentity("digits", "update 1", "ab" * 32, {"update.number": "1"})

    with new_run(project, identity) as tracker:
        tracker.log_parameters({"learner": {"name": "ER"}, "empty": "", "long": "x" * 7000})
        for epoch in range(3):
            tracker.log_metrics({"train/loss": 1 / (1 + epoch)}, epoch)
        tracker.log_metrics({"diverged": math.inf})
    with reopened_run(project, identity) as reopened:
        assert reopened.run_id == tracker.run_id
        reopened.log_artifact(report, "reports")
    assert capsys.readouterr().err == ""

    run = ask(server, "runs/get", run_id=tracker.run_id)["run"]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == "update 1"
    assert run["info"]["artifact_uri"].startswith("mlflow-artifacts:")
    tags = pairs(run["data"]["tags"])
    assert tags["renate.attempt"] == "1"
    assert tags["update.number"] == "1"
    parameters = pairs(run["data"]["params"])
    assert parameters == {"learner.name": "ER", "empty": "", "long": "x" * 6000}
    metrics = pairs(run["data"]["metrics"])
    assert math.isnan(float(metrics["diverged"]))
    history = ask(server, "metrics/get-history", run_id=tracker.run_id, metric_key="train/loss")
    assert [point["value"] for point in history["metrics"]] == [1.0, 0.5, 1 / 3]
    top = ask(server, "artifacts/list", run_id=tracker.run_id)["files"]
    assert {file["path"] for file in top} == {"parameters.json", "reports"}
    assert list(project.iterdir()) == []
