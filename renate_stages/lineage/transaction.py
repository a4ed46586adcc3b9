"""Change pointers, parameters, tags and branches in one transaction.

    .renate/intent.json     what a command changes; exists from before its first step until its end

A command that fails undoes its changes. A command that is killed leaves its intent file, and the next
command recovers: it completes the change if it is committed, and undoes it otherwise. Until then stages
refuse to run.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from renate_stages import files
from renate_stages.errors import (
    CommandError,
    GitNotReadyError,
    HalfDoneError,
    MissingObjectsError,
)
from renate_stages.files import yaml_file
from renate_stages.lineage.checkout import drop_index, fetch
from renate_stages.lineage.commands import dvc, git, run
from renate_stages.lineage.content import is_cached
from renate_stages.lineage.git_locks import clear_git_locks
from renate_stages.lineage.intent import Changed, Intent, Pointer, read_intent
from renate_stages.lineage.records import read_pointer
from renate_stages.project import Project

EMPTY_TREE = ("hash-object", "-t", "tree", "-w", "/dev/null")


class Change:
    """The steps of a command between its intent and its commit.

    Args:
        project: The project to change.
        intent: The intent, which is already written to its file.
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
        """Fetch the folder of one of the intent's pointers into DVC's cache, to check it out later.

        Raises:
            CommandError: If the remote cannot be reached.
            MissingObjectsError: If neither cache nor remote has all files of the folder.
        """
        entry = read_pointer(yaml_file.text(self.project.root / pointer), pointer)
        if is_cached(self.project, entry["md5"]):
            return
        dvc(self.project, "fetch", pointer)
        if not is_cached(self.project, entry["md5"]):
            drop_index(self.project)  # a killed DVC process may have left it broken
            dvc(self.project, "fetch", pointer)
        if not is_cached(self.project, entry["md5"]):
            raise MissingObjectsError(entry["path"], pointer)

    def commit(self, message: str) -> None:
        """Commit the intent's files and no others.

        Raises:
            CommandError: If Git refuses the commit, for example because of a hook, whose output is
                part of the message; or if DVC's settings are invalid.
        """
        if self.intent.pointers:
            # DVC checks out folders after the commit; find invalid settings before it.
            dvc(self.project, "config", "--list")
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
    """Run a block as one transaction: either all of its changes are made, or all are undone.

    Folders are checked out after the commit, so that Git alone can undo the changes.

    Args:
        project: The project; the caller holds its lock, and no interrupted command is left.
        command: The command as the user typed it.
        changes: Relative paths of the files that the block writes and commits; they must have no
            uncommitted changes.
        pointers: `.dvc` files whose folders the block secures; they are checked out at the end.
        tag: A tag to set on the commit that is checked out.
        branch: A branch to make and check out.
        start: The commit that the branch starts from.

    Yields:
        The change; the block must end with its `commit`.

    Raises:
        GitNotReadyError: If Git cannot make a commit or a signed tag; nothing is changed.
        RenateStagesError: The error of the block; all changes are undone.
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
        recover(project)  # all is committed, so this checks out the folders
    except BaseException as error:
        _recover_or_say(project, error)
        raise


def _recover_or_say(project: Project, error: BaseException) -> None:
    """Recover from a failed block; if that fails too, keep the intent and report both errors."""
    try:
        if done := recover(project):  # print it, because the error does not say what was undone
            print(done, file=sys.stderr)
    except Exception as second:  # noqa: BLE001 -- the error reports both, whatever the second is
        raise HalfDoneError(str(error), str(second)) from error


@dataclass(frozen=True)
class Recovered:
    """The result of recovering an interrupted command.

    Args:
        command: The command as the user typed it.
        completed: Whether it was completed; otherwise it was undone.
    """

    command: str
    completed: bool

    def __str__(self) -> str:
        if self.completed:
            return f"completed: `{self.command}`, which was interrupted"
        return f"undone: `{self.command}`; nothing has changed"


def recover(project: Project) -> Recovered | None:
    """Complete or undo an interrupted command. Safe to repeat.

    Returns:
        The result; None if no command was interrupted, or if the command has to be run again.

    Raises:
        RenateStagesError: If recovery is not possible yet; the intent file is kept.
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
    """Return whether the checked-out commit has the files that the command wrote."""
    return bool(intent.written) and all(
        _digest(git(project, "show", f"HEAD:./{name}", check=False)) == digest
        for name, digest in intent.written.items()
    )


def _leave_branch(project: Project, intent: Intent) -> None:
    """Return to the branch that was checked out before, and delete the new branch."""
    assert intent.branch is not None and intent.start is not None
    # A checkout that was killed halfway is completed first, so that the next one removes all of it.
    git(project, "checkout", "--quiet", "--force", intent.start)
    git(project, "checkout", "--quiet", "--force", intent.place)
    if git(project, "branch", "--list", intent.branch):
        git(project, "branch", "--quiet", "-D", intent.branch)


def _put_back(project: Project, name: str) -> None:
    """Restore the committed version of a file in the working tree and the index."""
    if git(project, "ls-tree", "HEAD", "--", name):
        git(project, "checkout", "--quiet", "HEAD", "--", name)
    else:
        git(project, "rm", "--quiet", "--cached", "--ignore-unmatch", "--", name)
        (project.root / name).unlink(missing_ok=True)


def _remove_tag(project: Project, tag: str, commit: str) -> None:
    if git(project, "rev-parse", "--verify", "--quiet", f"{tag}^{{commit}}", check=False) == commit:
        git(project, "tag", "--delete", tag)


def make_tag(project: Project, tag: str, commit: str, *, move: bool = False) -> None:
    """Tag a commit; a signed tag also gets the message that Git requires.

    Args:
        project: The project.
        tag: Name of the tag.
        commit: The commit to tag.
        move: Whether to move the tag if it exists.

    Raises:
        CommandError: If Git refuses.
    """
    options = ["--force"] if move else []
    if _signs(project, "tag.gpgSign"):
        options += ["-m", f"Close {tag}"]
    git(project, "tag", *options, tag, commit)


def check_git(project: Project) -> None:
    """Check, before a command changes anything, that Git can commit and, if configured, sign.

    A trial commit is made that nothing refers to; Git's garbage collection removes it.

    Raises:
        GitNotReadyError: If Git fails; with Git's message.
    """
    signs = any(_signs(project, name) for name in ("commit.gpgSign", "tag.gpgSign"))
    try:
        git(project, "var", "GIT_COMMITTER_IDENT")
        if not git(project, "rev-parse", "--git-dir", check=False):
            return  # `init` has not created the repository yet
        tree = git(project, *EMPTY_TREE)
        sign = ["-S"] if signs else []
        git(project, "commit-tree", *sign, "-m", "Can commits be made?", tree)
    except CommandError as error:
        raise GitNotReadyError(error.output, signs) from error


def _signs(project: Project, setting: str) -> bool:
    return git(project, "config", "--type=bool", "--get", setting, check=False) == "true"


def _digest(text: str) -> str:
    return hashlib.sha256(text.rstrip().encode()).hexdigest()
