"""Publish the run of a state and its version of a registered model.

Unlike during a stage, a failure of MLflow is an error here, because the user asked to publish.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from renate_stages.errors import PublishError
from renate_stages.tracking.location import Store, store_of
from renate_stages.tracking.runs import RunIdentity, Tracker, open_command, run_tags
from renate_stages.tracking.side_process import SideProcess

if TYPE_CHECKING:
    from renate_stages.preprocessing import Preprocessing

REGISTRAR = Path(__file__).with_name("registrar.py")


class Publication(Tracker):
    """Adds missing data to the run of a state, and registers the state's model.

    Args:
        process: A registrar process whose first command was `publish`.
        store: The store that it writes to.
        model: Name of the registered model.
        state: The state's identity.
    """

    def __init__(self, process: SideProcess, store: Store, model: str, state: str) -> None:
        super().__init__(process, store)
        self._registrar, self._where, self._model, self._state = process, store, model, state

    @property
    def lacking(self) -> frozenset[str]:
        """The missing parts of the run: `figures` (parameters, curves, metrics) and `results`."""
        parts = self._registrar.wait_for("lacking")
        self.check()
        return frozenset(parts or ())

    def register(
        self,
        folder: Path,
        tags: Mapping[str, str],
        description: str,
        about: str,
        preprocessing: Preprocessing | None = None,
    ) -> tuple[str, bool]:
        """Register the exported model as a model version, unless this state has one.

        Args:
            folder: An `export/`; with a program, if there are no columns of raw rows.
            tags: Tags of a new version.
            description: Description of a new version, in Markdown.
            about: Description of a new registered model, in Markdown.
            preprocessing: If it has columns of raw rows, the version takes these.

        Returns:
            The version, and whether it is new.
        """
        own = {"model": self._model, "state": self._state}
        more = {"tags": dict(tags), "description": description, "about": about}
        rows = {"columns": [], "packages": []}
        if preprocessing is not None:
            columns = [asdict(each) for each in preprocessing.raw_columns]
            rows = {"columns": columns, "packages": list(preprocessing.packages)}
        self._send({"do": "version", "folder": str(folder.absolute()), **own, **more, **rows})
        version = self._registrar.wait_for("version")
        self.check()
        return version, self._registrar.answers["new"]

    def point(self, alias: str) -> None:
        """Move an alias to the version of the state."""
        self._send({"do": "alias", "model": self._model, "alias": alias, "state": self._state})

    def check(self) -> None:
        """Raise the first problem of the registrar, if there is one.

        Raises:
            PublishError: If MLflow refused a request or could not be reached.
        """
        if self._registrar.problems:
            raise PublishError(self._where.shown, self._registrar.problems[0])

    def _warn(self) -> None:
        """Print no warning, because `check` raises an error."""


@contextmanager
def publication(
    project_root: Path, identity: RunIdentity, model: str, state: str
) -> Iterator[Publication]:
    """Open the run that made a state, or a new run if the store has none.

    Args:
        project_root: The project's folder.
        identity: Name of the run and key of the state's inputs.
        model: Name of the registered model.
        state: The state's identity.

    Raises:
        TrackingUriError: If MLflow cannot use the store in `MLFLOW_TRACKING_URI`.
        PublishError: If MLflow refuses a request or cannot be reached.
    """
    store = store_of(project_root)
    process = SideProcess(store.root, REGISTRAR)
    opened = Publication(process, store, model, state)
    command = open_command(store, identity, run_tags(identity))
    opened._send({"do": "publish", "state": state, **command})
    try:
        yield opened
    except BaseException:
        opened._close("FAILED", {})
        raise
    opened._close("FINISHED", {"renate.complete": "true", "renate.exported": "true"})
    opened.check()


def move_alias(project_root: Path, model: str, alias: str, state: str | None) -> str | None:
    """Move an alias of a registered model to the version of a state.

    Args:
        project_root: The project's folder.
        model: Name of the registered model.
        alias: Name of the alias, such as `champion`.
        state: The state's identity; None removes the alias.

    Returns:
        The version; None if the state has no version, or if the alias was removed.

    Raises:
        TrackingUriError: If MLflow cannot use the store in `MLFLOW_TRACKING_URI`.
        PublishError: If MLflow refuses the request or cannot be reached.
    """
    store = store_of(project_root)
    process = SideProcess(store.root, REGISTRAR)
    arguments = {"store": store.described(model), "model": model, "alias": alias, "state": state}
    process.send({"do": "point", **arguments})
    version = process.wait_for("pointed")
    process.close({"do": "close", "status": "FINISHED", "tags": {}})
    if process.problems:
        raise PublishError(store.shown, process.problems[0])
    return version
