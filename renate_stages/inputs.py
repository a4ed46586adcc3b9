"""What an update is made from: the values that `tune` chose, and a key of all inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from renate_stages import files, yaml_file
from renate_stages.errors import MissingFileError
from renate_stages.params import Params
from renate_stages.prepared import PreparedData
from renate_stages.project import Project
from renate_stages.state import State

HEADING = "# Written by `renate-stages tune`, read by `train`: edit params.yaml instead.\n"
SEARCHED_BESIDE = ("learner", "max_epochs")  # in a configuration, and no hyperparameters


def read_tuned(path: Path) -> dict[str, Any]:
    """Return the configuration that `tune` chose, for `Params.fixed`.

    Raises:
        MissingFileError: If it has not run.
    """
    if not path.is_file():
        raise MissingFileError(path, "`tune` has not run", "run `dvc repro`")
    content = yaml_file.read(path)
    chosen = {name: content[name] for name in SEARCHED_BESIDE if name in content}
    return {**(content["hyperparameters"] or {}), **chosen}


def write_tuned(path: Path, configuration: Mapping[str, Any]) -> None:
    """Write a configuration; `learner` and `max_epochs`, where it has them, are keys of their own."""
    values = dict(sorted(configuration.items()))
    beside = {name: values.pop(name) for name in SEARCHED_BESIDE if name in values}
    files.write_text(path, HEADING + yaml_file.dump({"hyperparameters": values, **beside}))


def inputs_key(project: Project, params: Params, parent: State, data: PreparedData) -> str:
    """Return a digest of all that the result depends on: equal inputs have the same key.

    Args:
        project: Whose `renate_config.py` and list of examples to forget count.
        params: Without spaces, as `Params.fixed` returns them.
        parent: The state to start from.
        data: The new examples.
    """
    own = {"evaluation", "learner", "retention", "seed", "trainer", "update"}
    return files.digest(
        {
            "data": data.digest,
            "forget": files.sha256(forget) if (forget := project.forget_list).is_file() else None,
            "hyperparameters": dict(params.hyperparameters),
            "params": params.model_dump(mode="json", include=own),
            "parent": parent.identity,
            "user_config": files.sha256(project.user_config),
        }
    )
