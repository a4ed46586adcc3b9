"""Publish the run of a state and its version of a registered model.

Other than a stage's, these are what the user asked for: where MLflow does not take them, that is an
error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from renate_stages.errors import PublishError
from renate_stages.tracking.location import Store, store_of
from renate_stages.tracking.runs import RunIdentity, Tracker, open_command, run_tags
from renate_stages.tracking.side_process import SideProcess

REGISTRAR = Path(__file__).with_name("registrar.py")


class Publication(Tracker):
    """Records in the run of a state what it lacks, and registers the state's model.

    Args:
        process: A registrar whose first command was `publish`.
        store: Where it writes.
        model: Name of the registered model.
        state: The state's identity.
    """

    def __init__(self, process: SideProcess, store: Store, model: str, state: str) -> None:
        super().__init__(process, store)
        self._registrar, self._where, self._model, self._state = process, store, model, state

    @property
    def lacking(self) -> frozenset[str]:
        """What the run lacks, of `figures` (parameters, curves, metrics) and `results`."""
        found = self._registrar.wait_for("lacking")
        self.check()
        return frozenset(found or ())

    def register(
        self, folder: Path, tags: Mapping[str, str], description: str, about: str
    ) -> tuple[str, bool]:
        """Make a version of the exported program, unless there is one of this state.

        Args:
            folder: An `export/` with a program.
            tags: Of a new version.
            description: Of a new version, Markdown.
            about: Of a new registered model, Markdown.

        Returns:
            The version, and whether it is new.
        """
        own = {"model": self._model, "state": self._state}
        more = {"tags": dict(tags), "description": description, "about": about}
        self._send({"do": "version", "folder": str(folder.absolute()), **own, **more})
        version = self._registrar.wait_for("version")
        self.check()
        return version, self._registrar.answers["new"]

    def point(self, alias: str) -> None:
        """Let an alias name the version of the state."""
        self._send({"do": "alias", "model": self._model, "alias": alias, "state": self._state})

    def check(self) -> None:
        """Raise what MLflow refused.

        Raises:
            PublishError: With the first problem.
        """
        if self._registrar.problems:
            raise PublishError(self._where.shown, self._registrar.problems[0])

    def _warn(self) -> None:
        """Say nothing yet: `check` raises it."""


@contextmanager
def publication(
    project_root: Path, identity: RunIdentity, model: str, state: str
) -> Iterator[Publication]:
    """Open the run that made a state, or, where the store has none, a new one.

    Args:
        project_root: The project's folder.
        identity: What the run is called, and the key of the state's inputs.
        model: Name of the registered model.
        state: The state's identity.

    Raises:
        TrackingUriError: `MLFLOW_TRACKING_URI` is no store that MLflow can use.
        PublishError: MLflow did not take something.
    """
    store = store_of(project_root)
    process = SideProcess(store.root, REGISTRAR)
    found = Publication(process, store, model, state)
    command = open_command(store, identity, run_tags(identity))
    found._send({"do": "publish", "state": state, **command})
    try:
        yield found
    except BaseException:
        found._close("FAILED", {})
        raise
    found._close("FINISHED", {"renate.complete": "true", "renate.exported": "true"})
    found.check()


def move_alias(project_root: Path, model: str, alias: str, state: str | None) -> str | None:
    """Move an alias of a registered model to the version of a state; None removes it.

    Args:
        project_root: The project's folder.
        model: Name of the registered model.
        alias: Such as `champion`.
        state: The state's identity.

    Returns:
        The version, or None where no version is of that state, or the alias was removed.

    Raises:
        TrackingUriError: `MLFLOW_TRACKING_URI` is no store that MLflow can use.
        PublishError: MLflow did not take it.
    """
    store = store_of(project_root)
    process = SideProcess(store.root, REGISTRAR)
    given = {"store": store.described(model), "model": model, "alias": alias, "state": state}
    process.send({"do": "point", **given})
    version = process.wait_for("pointed")
    process.close({"do": "close", "status": "FINISHED", "tags": {}})
    if process.problems:
        raise PublishError(store.shown, process.problems[0])
    return version
