"""Three updates in one MLflow store, shared by the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.state import State

EXPERIMENT = "model-updates"  # and the name of the registered model


@dataclass(frozen=True)
class Published:
    """The projects of three updates, and their MLflow store.

    Update 1 was published from its files alone; update 2 was tuned in three trials. Update 2 is the
    champion, update 3 the challenger.
    """

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def project(self, number: int) -> Project:
        """Return the project as it was after an update."""
        return Project(self.folder / f"update-{number}")

    def params(self, number: int) -> Params:
        return Params.load(self.project(number).params)

    def identity(self, number: int) -> str:
        return State.open(self.project(number).state).identity
