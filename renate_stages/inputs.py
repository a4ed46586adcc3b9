"""What an update is made from: the values that `tune` chose, and a key of all inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from renate_stages import files, typed, yaml_file
from renate_stages.errors import MissingFileError
from renate_stages.params import Params
from renate_stages.prepared import PreparedData
from renate_stages.project import Project
from renate_stages.state import State
from renate_stages.typed import Content

HEADING = "# Written by `renate-stages tune`, read by `train`: edit params.yaml instead.\n"
SEARCHED_BESIDE = ("learner", "max_epochs")  # in a configuration, and no hyperparameters


class _Tuned(Content):
    hyperparameters: dict[str, Any] | None
    learner: Annotated[str, Field(min_length=1)] = "ER"  # where it was searched
    max_epochs: Annotated[int, Field(ge=1, lt=2**31)] = 1


def read_tuned(path: Path) -> dict[str, Any]:
    """Return the configuration that `tune` chose, for `Params.fixed`.

    Raises:
        MissingFileError: If it has not run.
        MalformedFileError: If it is not what `write_tuned` writes.
    """
    if not path.is_file():
        raise MissingFileError(path, "`tune` has not run", "run `dvc repro`")
    content = yaml_file.read(path)
    found = typed.checked(_Tuned, content, path, "the values that tune chose", typed.RUN_AGAIN)
    chosen = {name: content[name] for name in SEARCHED_BESIDE if name in content}
    return {**(found.hyperparameters or {}), **chosen}


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
