"""Read and write the chosen hyperparameters, and compute a digest of an update's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from renate_stages import files
from renate_stages.errors import ChangedInputsError, MalformedFileError, MissingFileError
from renate_stages.files import typed, yaml_file
from renate_stages.files.typed import Content
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.state.prepared import PreparedData
from renate_stages.state.state import State
from renate_stages.user.config import UserConfig
from renate_stages.user.declared_files import DeclaredFiles, hashes_of, values_of
from renate_stages.user.file_watch import CODE

HEADING = "# Written by `renate-stages tune`, read by `train`: edit params.yaml instead.\n"
SEARCHED_BESIDE = ("learner", "max_epochs")  # in a configuration, but not hyperparameters


class _Tuned(Content):
    hyperparameters: dict[str, Any] | None
    learner: Annotated[str, Field(min_length=1)] = "ER"  # in the file if it was searched
    max_epochs: Annotated[int, Field(ge=1, lt=2**31)] = 1


def read_tuned(path: Path) -> dict[str, Any]:
    """Return the configuration that `tune` chose, for `Params.fixed`.

    Raises:
        MissingFileError: If `tune` has not run.
        MalformedFileError: If the file is not one that `write_tuned` writes.
    """
    if not path.is_file():
        raise MissingFileError(path, "`tune` has not run", "run `dvc repro`")
    content = yaml_file.read(path)
    found = typed.checked(_Tuned, content, path, "the values that tune chose", typed.RUN_AGAIN)
    chosen = {name: content[name] for name in SEARCHED_BESIDE if name in content}
    return {**(found.hyperparameters or {}), **chosen}


def write_tuned(path: Path, configuration: Mapping[str, Any]) -> None:
    """Write a configuration; store `learner` and `max_epochs`, if present, as separate keys."""
    values = dict(sorted(configuration.items()))
    beside = {name: values.pop(name) for name in SEARCHED_BESIDE if name in values}
    files.write_text(path, HEADING + yaml_file.dump({"hyperparameters": values, **beside}))


@dataclass(frozen=True)
class Inputs:
    """Everything that a result depends on, by content: equal inputs have the same key.

    Args:
        values: Parameters and digests of the data, without the user's code.
        files: SHA-256 of `renate_config.py` and of the user's other files, by path.
    """

    values: Mapping[str, Any]
    files: Mapping[str, str]

    @property
    def key(self) -> str:
        """Return a digest of all inputs."""
        files_beside = {name: each for name, each in self.files.items() if name != CODE}
        beside = {"user_files": files_beside} if files_beside else {}
        return files.digest({**self.values, "user_config": self.files[CODE], **beside})

    @property
    def base(self) -> str:
        """Return a digest of all inputs except the user's files."""
        return files.digest(self.values)


def update_inputs(project: Project, params: Params, parent: State, data: PreparedData) -> Inputs:
    """Return everything that an update's result depends on, the same in a trial and in `train`.

    Args:
        project: The project, with its forget list and the files that `train` depends on.
        params: Parameters without search spaces, as `Params.fixed` returns them.
        parent: The state to start from.
        data: The new examples.
    """
    own = {"evaluation", "learner", "retention", "seed", "trainer", "update"}
    values = {
        "data": data.digest,
        "forget": files.sha256(forget) if (forget := project.forget_list).is_file() else None,
        "hyperparameters": dict(params.hyperparameters),
        "params": params.model_dump(mode="json", include=own),
        "parent": parent.identity,
    }
    return Inputs(values, user_files(project, "train"))


def user_files(project: Project, stage: str) -> dict[str, str]:
    """Return the SHA-256 of `renate_config.py` and of the user's other files, by path.

    These are the files that `dvc.yaml` lists as dependencies of the stage, even if nothing has read
    them yet. For `run_training_job`, they are the files that importing `renate_config.py` uses.
    """
    declared, found = DeclaredFiles.read(project.root), {}
    if declared is not None:
        found = hashes_of(declared.user_files(stage), project.hashes)
    elif project.outside is not None:
        found = dict(project.outside.user_files)
    own = found.pop(project.user_config.name, None)
    return {CODE: own or files.sha256(project.user_config), **found}


@dataclass(frozen=True)
class StageInputs:
    """The inputs of a stage that a user can edit, as they were when the stage began.

    DVC computes the hashes that it records after a stage has ended. So a stage must fail if its
    inputs were edited while it ran: otherwise DVC would attribute its result to files that it never
    read.

    Args:
        project: The project of the stage.
        stage: Name of the stage.
        found: The inputs by name: hashes of the user's files and values of parameters; for data and
            outputs of other stages, their inode, size and modification time.
    """

    project: Project
    stage: str
    found: Mapping[str, Any]

    @classmethod
    def read(cls, project: Project, stage: str) -> StageInputs:
        """Record the inputs; call this before the stage reads any of them."""
        return cls(project, stage, cls._found(project, stage))

    def check(self, user: UserConfig | None = None) -> None:
        """Check that no input was edited since the stage began.

        Args:
            user: The user's functions, which recorded the files as they used them.

        Raises:
            ChangedInputsError: If an input was edited.
        """
        now = self._found(self.project, self.stage)
        names = {name for name in {*now, *self.found} if now.get(name) != self.found.get(name)}
        if user is not None:
            names |= {*user.files.changed(), *user.files.unlike(self.found)}
        if names:
            raise ChangedInputsError(self.stage, names)

    @staticmethod
    def _found(project: Project, stage: str) -> dict[str, Any]:
        declared = DeclaredFiles.read(project.root)
        if declared is None:
            return dict(project.outside.user_files) if project.outside is not None else {}
        wanted = declared.user_files(stage)
        if project.forget_list.is_file() and declared.allows(stage, project.forget_list.name):
            wanted[project.forget_list.name] = project.forget_list
        found: dict[str, Any] = dict(hashes_of(wanted, project.hashes))
        for name, keys in declared.params.get(stage, {}).items():
            with suppress(MalformedFileError, OSError):  # missing, or incomplete while being edited
                found |= values_of(project.root, {name: keys})
        for name, path in declared.products(stage).items():
            with suppress(FileNotFoundError):  # it may be removed at this moment
                status = path.stat()
                found.setdefault(name, (status.st_ino, status.st_size, status.st_mtime_ns))
        return found
