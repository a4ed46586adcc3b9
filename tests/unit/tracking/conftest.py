"""Fixtures: a project with an empty MLflow store, and a tracker that needs no side process."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renate_stages.tracking import RunIdentity, runs, writer


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a database with MLflow's tables and no runs, once, because it takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations in MLflow's many dependencies
        import mlflow  # noqa: F401
        from mlflow.store.tracking import sqlalchemy_store  # noqa: F401

        database = tmp_path_factory.mktemp("store") / "mlflow.db"
        writer._make_database(database)
    return database


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "DVC_ROOT",
        "DVC_EXP_NAME",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_ALLOW_FILE_STORE",
        *writer.PATIENCE,
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in writer.TELEMETRY_OFF.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> Path:
    folder = tmp_path / "my próject"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def identity() -> RunIdentity:
    return RunIdentity("digits", "update 3", key="ab" * 32, tags={"update.number": "3"})


class InProcess:
    """Stand-in for `SideProcess` that executes commands immediately and in this process."""

    def __init__(self, folder: Path) -> None:
        self.problems: list[str] = []
        self.answers: dict[str, Any] = {}
        self.writer = writer.Writer(self.receive)
        self.ended = False

    def receive(self, answer: dict[str, Any]) -> None:
        if "problem" in answer:
            self.problems.append(answer["problem"])
        else:
            self.answers.update(answer)

    def send(self, command: dict[str, Any]) -> None:
        if not self.ended:
            self.ended = not self.writer.carry_out(json.loads(json.dumps(command)))

    def wait_for(self, answer: str) -> Any:
        return self.answers.get(answer)

    close = send


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    monkeypatch.setattr(runs, "SideProcess", InProcess)


class Store:
    """Reader of the runs in a project's store, using MLflow's own client."""

    def __init__(self, database: Path) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=f"sqlite:///{database}")

    def runs(self, experiment: str = "digits") -> list[Any]:
        """Return all runs of an experiment, oldest attempt first."""
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            return []
        runs = self.client.search_runs([found.experiment_id])
        return sorted(runs, key=lambda run: int(run.data.tags.get("renate.attempt", 0)))

    def run(self) -> Any:
        (run,) = self.runs()
        return run


@pytest.fixture
def store_in(empty_store: Path) -> Callable[[Path], Store]:
    return lambda folder: Store(folder / "mlflow.db")


@pytest.fixture
def store(project: Path, store_in: Callable[[Path], Store]) -> Store:
    return store_in(project)
