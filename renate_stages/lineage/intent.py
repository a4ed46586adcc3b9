"""What a command is about to change, kept in `.renate/intent.json` until it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.lineage.git_locks import clear_git_locks
from renate_stages.project import Project

Changed = Literal["champion.dvc", "forget.yaml", "params.yaml", "parent.dvc"]
Pointer = Literal["champion.dvc", "data/incoming.dvc", "parent.dvc"]
Revision = Annotated[str, Field(pattern="^[0-9a-f]{40,64}$")]
UpdateName = Annotated[str, Field(pattern="^update-[0-9]+(-from-[0-9]+)?$")]


class Intent(BaseModel):
    """The changes that a command is about to make.

    Args:
        command: The command as the user typed it, such as `renate-stages next`.
        head: The commit before the change.
        place: The branch that was checked out, or the commit of a detached HEAD.
        files: Relative paths of the files to change; none has uncommitted changes before.
        pointers: `.dvc` files whose folders are checked out after the commit.
        tag: A tag to set on `head`.
        branch: A new branch for the commit.
        start: The commit that the branch starts from.
        written: SHA-256 of the new text of each file; empty until all are written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str
    head: Revision
    place: Annotated[str, Field(pattern=r"^[^-\s][^\s]*$")]
    files: tuple[Changed, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    tag: UpdateName | None = None
    branch: UpdateName | None = None
    start: Revision | None = None
    written: dict[Changed, str] = {}

    def write(self, project: Project) -> None:
        """Write it to the intent file."""
        _write(project, self)


class Repeatable(BaseModel):
    """A command that is safe to repeat; after an interruption it is run again.

    Args:
        command: The command as the user typed it, such as `renate-stages init`.
        arguments: Its arguments by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str
    arguments: dict[str, str]

    @contextmanager
    def kept(self, project: Project) -> Iterator[None]:
        """Keep the intent file while a block runs, so that it remains if the process is killed.

        Args:
            project: A project without an interrupted command, other than this same command.
        """
        if project.intent.is_file():
            clear_git_locks(project, since=project.intent.stat().st_mtime)
        _write(project, self)
        yield
        project.intent.unlink()


def _write(project: Project, intent: BaseModel) -> None:
    project.scratch.mkdir(exist_ok=True)
    files.write_text(project.intent, f"{intent.model_dump_json(indent=1)}\n")


def read_intent(project: Project) -> Intent | Repeatable | None:
    """Return the intent of an interrupted command, or None if no command was interrupted.

    Raises:
        MalformedFileError: If the intent file cannot be read.
    """
    if not project.intent.is_file():
        return None
    try:
        return _INTENTS.validate_json(project.intent.read_bytes())
    except ValidationError as error:
        cure = "check `git status`, revert changes that are not yours, and remove this file"
        reason = str(error.errors()[0]["msg"])
        raise MalformedFileError(
            project.intent, "the record of an interrupted command", reason, cure
        ) from error


_INTENTS: TypeAdapter[Intent | Repeatable] = TypeAdapter(Intent | Repeatable)
