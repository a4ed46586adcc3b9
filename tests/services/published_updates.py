"""What the tests of this folder share: three updates in one MLflow store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.state import State

EXPERIMENT = "model-updates"  # and the name of the registered model


@dataclass(frozen=True)
class Published:
    """The projects and the store.

    Update 1 was published from its files alone; in update 2 a search had three trials. Update 2 is
    champion, update 3 the challenger.
    """

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def project(self, number: int) -> Project:
        """The project as it was when an update had finished."""
        return Project(self.folder / f"update-{number}")

    def params(self, number: int) -> Params:
        return Params.load(self.project(number).params)

    def identity(self, number: int) -> str:
        return State.open(self.project(number).state).identity
