"""Read the definition of a stage from `dvc.yaml`: dependencies, parameters, outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from renate_stages.errors import MissingFileError, StageDefinitionError
from renate_stages.files import typed, yaml_file
from renate_stages.files.typed import Content
from renate_stages.project import Project

PARAMS_FILE = "params.yaml"
WRITTEN = ("outs", "metrics", "plots")


@dataclass(frozen=True)
class StageDefinition:
    """One stage of the pipeline; all paths are relative to the project.

    Args:
        name: Name of the stage.
        reads: Files and folders that it depends on.
        params: Keys that it reads, by parameter file; no keys: the whole file.
        writes: Files and folders that it writes.
    """

    name: str
    reads: tuple[str, ...]
    params: Mapping[str, tuple[str, ...]]
    writes: tuple[str, ...]

    @classmethod
    def read(cls, project: Project, name: str) -> StageDefinition:
        """Read a stage from `dvc.yaml`.

        Raises:
            MissingFileError: If there is no `dvc.yaml`.
            StageDefinitionError: If the stage is not defined, or a path is absolute, leaves the
                project or has a `${...}` expression.
        """
        path = project.pipeline
        if not path.is_file():
            raise MissingFileError(
                path, "this file defines the pipeline", "run the command in a project folder"
            )
        content = yaml_file.read(path)
        stages = content.get("stages") if isinstance(content, dict) else None
        stage = stages.get(name) if isinstance(stages, dict) else None
        if not isinstance(stage, dict):
            raise StageDefinitionError(path, name, "this stage is not defined")
        try:
            stage = TypeAdapter(_Stage).validate_python(stage)
        except ValidationError as error:
            raise StageDefinitionError(path, name, typed.described(error)) from error
        definition = cls(
            name=name,
            reads=tuple(_names(stage.deps)),
            params=_params(stage.params),
            writes=tuple(each for key in WRITTEN for each in _names(getattr(stage, key))),
        )
        for each in (*definition.reads, *definition.params, *definition.writes):
            if "${" in each or each.startswith(("/", "~")) or ".." in each.split("/"):
                problem = f"{each!r} is not a plain relative path inside the project"
                raise StageDefinitionError(path, name, problem)
        return definition


Place = Annotated[str, Field(min_length=1)]
Options = dict[str, Any] | None
Entry = Place | Annotated[dict[Place, Options], Field(min_length=1, max_length=1)]


class _Stage(Content):
    deps: list[Place] | None = None
    params: list[str | dict[Place, list[str] | None]] | None = None
    outs: list[Entry] | None = None
    metrics: list[Entry] | None = None
    plots: list[Entry] | None = None


def _names(entries: Iterable[Entry] | None) -> Iterable[str]:
    """Yield the paths of a list such as `outs`; an entry may be a path or a path with options."""
    for entry in entries or ():
        yield next(iter(entry)) if isinstance(entry, dict) else entry


def _params(
    entries: Iterable[str | dict[str, list[str] | None]] | None,
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries or ():
        if isinstance(entry, dict):
            found |= {name: tuple(keys or ()) for name, keys in entry.items()}
        else:
            found[PARAMS_FILE] = (*found.get(PARAMS_FILE, ()), entry)
    return found
