from __future__ import annotations

from pathlib import Path

import pytest

from renate_stages.errors import TrackingUriError
from renate_stages.tracking import tracking_uri
from renate_stages.tracking.location import store_of


def test_default_uri_is_a_database_in_the_project(tmp_path):
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_default_uri_is_a_database_in_dvc_root(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert tracking_uri(tmp_path / ".dvc/tmp/exps/x") == f"sqlite:///{tmp_path}/mlflow.db"


def test_relative_database_path_is_resolved_from_the_project_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///../runs.db?timeout=30")
    project = tmp_path / "project"
    assert tracking_uri(project) == f"sqlite:///{tmp_path}/runs.db?timeout=30"
    assert store_of(project).database == tmp_path / "runs.db"


@pytest.mark.parametrize(
    ("uri", "keeps_artifacts"),
    [
        ("http://127.0.0.1:5000", True),
        ("https://mlflow.example.org/path", True),
        ("databricks", True),
        ("databricks://profile", True),
        ("postgresql+psycopg2://user:secret@host/runs", False),
    ],
)
def test_server_and_remote_database_uris_are_kept_unchanged(
    tmp_path, monkeypatch, uri, keeps_artifacts
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri(tmp_path) == uri
    location = store_of(tmp_path).artifact_location("digits")
    assert (location is None) == keeps_artifacts


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file:///tmp/mlruns", "is a folder"),
        ("./mlruns", "is a folder"),
        ("http://[::1/secret", "is not a valid URL"),
        ("sqlite://", "is in memory"),
        ("sqlite:///a%20b/mlflow.db", "has '%' or"),
        ("postgres://user:secret@host/runs", "has the scheme 'postgres'"),
    ],
)
def test_tracking_uri_that_mlflow_cannot_use_is_refused(tmp_path, monkeypatch, uri, reason):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingUriError) as raised:
        tracking_uri(tmp_path)
    assert reason in str(raised.value)
    assert "unset it" in str(raised.value)
    assert "secret@" not in str(raised.value) and ":secret" not in str(raised.value)


def test_file_store_is_allowed_with_mlflow_allow_file_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///runs")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert tracking_uri(tmp_path) == "file:///runs"


def test_artifact_location_is_a_file_uri_below_mlartifacts(tmp_path):
    location = store_of(tmp_path).artifact_location("../my digits")
    assert location == (tmp_path / "mlartifacts" / "-my-digits").as_uri()


def test_displayed_store_address_hides_secrets(tmp_path, monkeypatch):
    uri = "postgresql://me:my p/a@ss@host/runs?password=other&sslmode=require"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = store_of(tmp_path)
    assert store.uri == uri
    assert store.shown == "postgresql://***@host/runs?password=***&sslmode=require"


def test_empty_store_is_detected_without_mlflow(tmp_path: Path, monkeypatch):
    assert store_of(tmp_path).is_empty
    (tmp_path / "mlflow.db").touch()
    assert store_of(tmp_path).is_empty
    (tmp_path / "mlflow.db").write_bytes(b"x")
    assert not store_of(tmp_path).is_empty
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert not store_of(tmp_path).is_empty
