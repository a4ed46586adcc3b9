"""Find the MLflow store: MLFLOW_TRACKING_URI, or mlflow.db and mlartifacts/ in the project."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from renate_stages.errors import TrackingUriError
from renate_stages.errors.redaction import hide_secrets

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https", "databricks")


@dataclass(frozen=True)
class Store:
    """An MLflow tracking store.

    Args:
        uri: The tracking URI for MLflow.
        root: The project's folder; in a temporary DVC workspace, the folder of the real project.
        database: The file of an SQLite store; otherwise `None`.
        keeps_artifacts: Whether the store chooses the location of artifacts, as a server does.
    """

    uri: str
    root: Path
    database: Path | None
    keeps_artifacts: bool

    @property
    def lock(self) -> Path:
        """The file to lock while the store is opened."""
        return self.root / ".renate" / "mlflow.lock"

    @property
    def is_empty(self) -> bool:
        """Whether the store certainly has no runs; checked without importing MLflow."""
        if self.database is None:
            return False
        return not self.database.is_file() or self.database.stat().st_size == 0

    @property
    def shown(self) -> str:
        """The URI without its secrets."""
        return hide_secrets(self.uri)

    def artifact_location(self, experiment: str) -> str | None:
        """Return the file URI for a new experiment's artifacts; `None`: the store chooses it."""
        if self.keeps_artifacts:
            return None
        folder = re.sub(r"[^\w.-]", "-", experiment).lstrip(".") or "-"
        return (self.root / "mlartifacts" / folder).as_uri()

    def described(self, experiment: str) -> dict[str, str | None]:
        """Return the store's details for the process that writes to it."""
        return {
            "uri": self.uri,
            "database": str(self.database) if self.database else None,
            "lock": str(self.lock),
            "artifact_location": self.artifact_location(experiment),
        }


def tracking_uri(project_root: Path) -> str:
    """Return the URI of the store with this project's runs.

    It is `MLFLOW_TRACKING_URI` (the path of an SQLite file may be relative to the root), or
    `mlflow.db` in the root. The root is `DVC_ROOT`, which `dvc exp run --temp` sets to the real
    repository, or `project_root`.

    Raises:
        TrackingUriError: If MLflow cannot use the store in `MLFLOW_TRACKING_URI`.
    """
    return store_of(project_root).uri


def store_of(project_root: Path) -> Store:
    """Return the store at `tracking_uri`.

    Raises:
        TrackingUriError: See `tracking_uri`.
    """
    root = Path(os.environ.get("DVC_ROOT") or project_root).resolve()
    given = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not given:
        return _sqlite_store("sqlite", str(root / "mlflow.db"), "", root)

    scheme = "databricks" if given == "databricks" else _scheme(given)
    dialect = scheme.partition("+")[0]
    if dialect == "sqlite":
        path, mark, query = given.partition(":///")[2].partition("?")
        return _sqlite_store(scheme, path, mark + query, root)
    if dialect in DATABASES:
        return Store(given, root, database=None, keeps_artifacts=False)
    if scheme in SERVERS or scheme in _plugin_schemes():
        return Store(given, root, database=None, keeps_artifacts=True)
    if scheme in ("", "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() == "true":
        return Store(given, root, database=None, keeps_artifacts=False)
    if scheme in ("", "file"):
        raise TrackingUriError(given, "is a folder, but MLflow no longer stores runs in folders")
    raise TrackingUriError(given, f"has the scheme '{scheme}', which MLflow does not support")


def _sqlite_store(scheme: str, path: str, query: str, root: Path) -> Store:
    if not path or path == ":memory:":
        raise TrackingUriError(f"{scheme}:///{path}", "is in memory, so all runs would be lost")
    database = Path(os.path.abspath(root / path))  # noqa: PTH100 - keeps symbolic links
    if "%" in str(database) or "?" in str(database):
        raise TrackingUriError(
            f"{scheme}:///{database}",
            "has '%' or '?' in its path, which is not possible in an SQLite URI",
        )
    return Store(f"{scheme}:///{database}{query}", root, database, keeps_artifacts=False)


def _scheme(uri: str) -> str:
    try:
        return urlsplit(uri).scheme
    except ValueError as error:  # such as a bracket that is not closed
        raise TrackingUriError(uri, f"is not a valid URL ({error})") from error


def _plugin_schemes() -> set[str]:
    return {entry.name for entry in entry_points(group="mlflow.tracking_store")}
