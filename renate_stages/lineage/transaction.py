"""Change pointers, parameters, tags and branches completely or not at all.

    .renate/intent.json     what a command changes, from before its first step until after its commit

A command that fails takes back what it did. One that is killed leaves its intent: the next command
takes back what is not committed, and completes what is. Stages refuse to work until then.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from renate_stages import files
from renate_stages.errors import (
    CommandError,
    GitNotReadyError,
    HalfDoneError,
    MalformedFileError,
    MissingObjectsError,
)
from renate_stages.files import yaml_file
from renate_stages.lineage.checkout import drop_index, fetch
from renate_stages.lineage.commands import dvc, git, run
from renate_stages.lineage.content import is_cached
from renate_stages.lineage.git_locks import clear_git_locks
from renate_stages.lineage.records import read_pointer
from renate_stages.project import Project

Changed = Literal["champion.dvc", "forget.yaml", "params.yaml", "parent.dvc"]
Pointer = Literal["champion.dvc", "data/incoming.dvc", "parent.dvc"]
Revision = Annotated[str, Field(pattern="^[0-9a-f]{40,64}$")]
UpdateName = Annotated[str, Field(pattern="^update-[0-9]+(-from-[0-9]+)?$")]
EMPTY_TREE = ("hash-object", "-t", "tree", "-w", "/dev/null")


class Intent(BaseModel):
    """What a command is about to change.

    Args:
        command: As its user calls it, such as `renate-stages next`.
        head: The commit before.
        place: The branch that was checked out; where none was, the commit.
        files: Relative paths of those that change; before, they are as committed.
        pointers: Files of DVC whose folders are put in place after the commit.
        tag: A tag that `head` gets.
        branch: A new branch, on which all of this happens.
        start: The commit that the branch starts from.
        written: SHA-256 of the new text of each file, as soon as all are written.
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
        """Keep it until the command has ended."""
        _write(project, self)


class Repeatable(BaseModel):
    """What a command was asked that is safe to repeat: interrupted, it is given again.

    Args:
        command: As its user calls it, such as `renate-stages init`.
        arguments: By name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str
    arguments: dict[str, str]

    @contextmanager
    def kept(self, project: Project) -> Iterator[None]:
        """Keep it while a block does it, so that a kill leaves it.

        Args:
            project: Recovered from an earlier interrupted command, unless that was this very one.
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
    """Return what an interrupted command has left; None where there is nothing.

    Raises:
        MalformedFileError: If it is something else.
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


class Change:
    """The steps of a command between its intent and its commit.

    Args:
        project: What is changed.
        intent: It was written.
    """

    def __init__(self, project: Project, intent: Intent) -> None:
        self.project = project
        self.intent = intent
        self.texts: dict[Changed, str] = {}

    def write(self, name: Changed, text: str) -> None:
        """Write one of the intent's files."""
        files.write_text(self.project.root / name, text)
        self.texts[name] = text

    def secure(self, pointer: Pointer) -> None:
        """Have the folder of one of the intent's pointers in DVC's cache, to be put in place later.

        Raises:
            CommandError: If the remote cannot be asked.
            MissingObjectsError: If neither cache nor remote has all of it.
        """
        named = read_pointer(yaml_file.text(self.project.root / pointer), pointer)
        if is_cached(self.project, named["md5"]):
            return
        dvc(self.project, "fetch", pointer)
        if not is_cached(self.project, named["md5"]):
            drop_index(self.project)  # a killed DVC may have left it broken
            dvc(self.project, "fetch", pointer)
        if not is_cached(self.project, named["md5"]):
            raise MissingObjectsError(named["path"], pointer)

    def commit(self, message: str) -> None:
        """Commit the intent's files, and nothing else.

        Raises:
            CommandError: If Git refuses, as for a hook of the project's, with what that printed; or
                DVC, whose settings are wrong.
        """
        if self.intent.pointers:
            dvc(self.project, "config", "--list")  # it puts folders in place after the commit
        written = {name: _digest(text) for name, text in self.texts.items()}
        self.intent.model_copy(update={"written": written}).write(self.project)
        git(self.project, "add", "--", *self.texts)
        root = self.project.root
        run(["git", "commit", "--quiet", "-m", message, "--", *self.texts], root, True, say=True)


@contextmanager
def changing(
    project: Project,
    command: str,
    *,
    changes: Iterable[Changed],
    pointers: Iterable[Pointer] = (),
    tag: str | None = None,
    branch: str | None = None,
    start: str | None = None,
) -> Iterator[Change]:
    """Make a block one change: all of it is done, or taken back.

    Folders are put in place after the commit, so that taking back needs nothing but Git.

    Args:
        project: Held alone while it changes, and recovered from an earlier interrupted command.
        command: As its user calls it.
        changes: Relative paths of the files that the block writes and commits; they are as committed.
        pointers: Files of DVC whose folders the block secures, and that are put in place in the end.
        tag: Given to the commit that is checked out.
        branch: Made and checked out.
        start: The commit that the branch starts from.

    Yields:
        What takes the steps; the block ends with `commit`.

    Raises:
        GitNotReadyError: If Git cannot make a commit or a signed tag; nothing is changed then.
        RenateStagesError: What the block raised; nothing is changed then either.
    """
    check_git(project)
    intent = Intent(
        command=command,
        head=git(project, "rev-parse", "HEAD"),
        place=git(project, "symbolic-ref", "--quiet", "--short", "HEAD", check=False)
        or git(project, "rev-parse", "HEAD"),
        files=tuple(changes),
        pointers=tuple(pointers),
        tag=tag,
        branch=branch,
        start=start,
    )
    intent.write(project)
    change = Change(project, intent)
    try:
        if tag is not None:
            make_tag(project, tag, intent.head)
        if branch is not None and start is not None:
            git(project, "checkout", "--quiet", "-b", branch, start)
        yield change
        recover(project)  # all is committed: this puts the folders in place
    except BaseException as error:
        _recover_or_say(project, error)
        raise


def _recover_or_say(project: Project, error: BaseException) -> None:
    """Recover from a failed block; where that fails too, say what to do, and keep the intent."""
    try:
        if done := recover(project):  # the error does not say what it led to
            print(done, file=sys.stderr)
    except Exception as second:  # noqa: BLE001 -- whatever it is, both are said
        raise HalfDoneError(str(error), str(second)) from error


@dataclass(frozen=True)
class Recovered:
    """What became of an interrupted command.

    Args:
        command: As its user called it.
        completed: Whether it was completed; else it was taken back.
    """

    command: str
    completed: bool

    def __str__(self) -> str:
        if self.completed:
            return f"completed: `{self.command}`, which was interrupted"
        return f"taken back: `{self.command}`; nothing has changed"


def recover(project: Project) -> Recovered | None:
    """Take back or complete what an interrupted command has left. Safe to repeat.

    Returns:
        What was done; None where nothing was left, or a command that is given again.

    Raises:
        RenateStagesError: If it cannot be done yet; what is left stays as it is.
    """
    intent = read_intent(project)
    if not isinstance(intent, Intent):
        return None
    clear_git_locks(project, since=project.intent.stat().st_mtime)
    files.clear_abandoned(project.root)
    done = _is_committed(project, intent)
    if not done and intent.branch is not None:
        _leave_branch(project, intent)
    for name in intent.files:
        _put_back(project, name)
    for pointer in intent.pointers if done else ():
        fetch(project, pointer, force=True)
    if not done and intent.tag is not None:
        _remove_tag(project, intent.tag, intent.head)
    project.intent.unlink()
    return Recovered(intent.command, done)


def _is_committed(project: Project, intent: Intent) -> bool:
    """Return whether the commit that is checked out has what the command wrote."""
    return bool(intent.written) and all(
        _digest(git(project, "show", f"HEAD:./{name}", check=False)) == digest
        for name, digest in intent.written.items()
    )


def _leave_branch(project: Project, intent: Intent) -> None:
    """Go back from the new branch, or from halfway to it, and remove it."""
    assert intent.branch is not None and intent.start is not None
    git(
        project, "checkout", "--quiet", "--force", intent.start
    )  # all of it, so that all of it goes
    git(project, "checkout", "--quiet", "--force", intent.place)
    if git(project, "branch", "--list", intent.branch):
        git(project, "branch", "--quiet", "-D", intent.branch)


def _put_back(project: Project, name: str) -> None:
    """Make a file as it is committed, in the index too."""
    if git(project, "ls-tree", "HEAD", "--", name):
        git(project, "checkout", "--quiet", "HEAD", "--", name)
    else:
        git(project, "rm", "--quiet", "--cached", "--ignore-unmatch", "--", name)
        (project.root / name).unlink(missing_ok=True)


def _remove_tag(project: Project, tag: str, commit: str) -> None:
    if git(project, "rev-parse", "--verify", "--quiet", f"{tag}^{{commit}}", check=False) == commit:
        git(project, "tag", "--delete", tag)


def make_tag(project: Project, tag: str, commit: str, *, move: bool = False) -> None:
    """Tag a commit; with a message where Git's settings ask for signed tags, which need one.

    Raises:
        CommandError: If Git refuses.
    """
    options = ["--force"] if move else []
    if _signs(project, "tag.gpgSign"):
        options += ["-m", f"Close {tag}"]
    git(project, "tag", *options, tag, commit)


def check_git(project: Project) -> None:
    """Refuse a command, before it changes anything, if Git cannot commit, or not sign as it should.

    A commit that nothing refers to is made for that; Git removes it in time.

    Raises:
        GitNotReadyError: With what Git says.
    """
    signs = any(_signs(project, name) for name in ("commit.gpgSign", "tag.gpgSign"))
    try:
        git(project, "var", "GIT_COMMITTER_IDENT")
        if not git(project, "rev-parse", "--git-dir", check=False):
            return  # `init` has not made the repository yet
        tree = git(project, *EMPTY_TREE)
        sign = ["-S"] if signs else []
        git(project, "commit-tree", *sign, "-m", "Can commits be made?", tree)
    except CommandError as error:
        raise GitNotReadyError(error.output, signs) from error


def _signs(project: Project, setting: str) -> bool:
    return git(project, "config", "--type=bool", "--get", setting, check=False) == "true"


def _digest(text: str) -> str:
    return hashlib.sha256(text.rstrip().encode()).hexdigest()
