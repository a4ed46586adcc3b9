"""What an update is made from: the values that `tune` chose, and a key of all inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renate_stages import files, yaml_file
from renate_stages.errors import MissingFileError
from renate_stages.params import Params
from renate_stages.prepared import PreparedData
from renate_stages.project import Project
from renate_stages.state import State

HEADING = "# Written by `renate-stages tune`, read by `train`: edit params.yaml instead.\n"


@dataclass(frozen=True)
class Tuned:
    """The content of `tuned.yaml`.

    Args:
        hyperparameters: Constants for the learner, the optimizer and the user's functions.
        learner: Where it was searched; None: as `params.yaml` says.
        max_epochs: Likewise.
    """

    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    learner: str | None = None
    max_epochs: int | None = None

    @classmethod
    def of(cls, configuration: Mapping[str, Any]) -> Tuned:
        """Return a trial's configuration, `learner` and `max_epochs` apart."""
        values = dict(configuration)
        learner, max_epochs = values.pop("learner", None), values.pop("max_epochs", None)
        return cls(values, learner, max_epochs)

    @classmethod
    def read(cls, path: Path) -> Tuned:
        """Read what `write` wrote.

        Raises:
            MissingFileError: If `tune` has not run.
        """
        if not path.is_file():
            raise MissingFileError(path, "`tune` has not run", "run `dvc repro`")
        content = yaml_file.read(path)
        return cls(
            content["hyperparameters"] or {}, content.get("learner"), content.get("max_epochs")
        )

    def write(self, path: Path) -> None:
        """Write it; keys that were not searched are not there."""
        content: dict[str, Any] = {"hyperparameters": dict(sorted(self.hyperparameters.items()))}
        if self.learner is not None:
            content["learner"] = self.learner
        if self.max_epochs is not None:
            content["max_epochs"] = self.max_epochs
        files.write_text(path, HEADING + yaml_file.dump(content))

    def applied_to(self, params: Params) -> Params:
        """Return parameters with the chosen learner and epochs."""
        changed: dict[str, Any] = {}
        if self.learner is not None:
            changed["learner"] = self.learner
        if self.max_epochs is not None:
            own = {"max_epochs": self.max_epochs}
            changed["trainer"] = params.trainer.model_copy(update=own)
        return params.model_copy(update=changed)


def inputs_key(
    project: Project,
    params: Params,
    hyperparameters: Mapping[str, Any],
    parent: State,
    data: PreparedData,
) -> str:
    """Return a digest of all that the result depends on: equal inputs have the same key."""
    own = {"evaluation", "learner", "retention", "seed", "trainer", "update"}
    return files.digest(
        {
            "data": data.digest,
            "forget": files.sha256(forget) if (forget := project.forget_list).is_file() else None,
            "hyperparameters": dict(hyperparameters),
            "params": params.model_dump(mode="json", include=own),
            "parent": parent.identity,
            "user_config": files.sha256(project.user_config),
        }
    )
