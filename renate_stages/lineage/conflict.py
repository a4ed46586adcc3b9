"""Resolve merge conflicts between two clones that opened the same update.

All files that commands and stages write are taken from one side: a mix of two updates is not a valid
update. Files that users write are merged by Git.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from renate_stages import files
from renate_stages.errors import CommandError, MergeError, NoConflictError
from renate_stages.files import yaml_file
from renate_stages.lineage.commands import git
from renate_stages.lineage.records import TAG, entries, lock_text, number_at, tags
from renate_stages.lineage.transaction import make_tag
from renate_stages.memory.forget_list import NAME as FORGET_LIST
from renate_stages.memory.forget_list import ForgetList
from renate_stages.project import Project

Side = Literal["ours", "theirs"]

WRITTEN = (  # written by commands and stages, so all of them are taken from one side
    "champion.dvc",
    "data/incoming.dvc",
    "dvc.lock",
    "metrics",
    "parent.dvc",
    "plots",
    "reports",
    "tuned.yaml",
)
PARAMS = "params.yaml"
OTHERS = {  # operations that can stop with conflicts but are not a merge, and the ref each one sets
    "rebase": "REBASE_HEAD",
    "cherry-pick": "CHERRY_PICK_HEAD",
    "revert": "REVERT_HEAD",
}


@dataclass(frozen=True)
class Commit:
    """One side of a merge.

    Args:
        revision: Hash of the commit.
        number: Number of the update that is open in it; None if it cannot be read.
        label: Description for messages.
    """

    revision: str
    number: int | None
    label: str


@dataclass(frozen=True)
class Conflict:
    """A merge that has stopped with conflicts.

    Args:
        ours: The commit that was checked out.
        theirs: The commit that is being merged into it.
        unmerged: Relative paths of the files in conflict.
    """

    ours: Commit
    theirs: Commit
    unmerged: tuple[str, ...]

    def side(self, which: Side) -> Commit:
        """Return the commit of one side."""
        return self.ours if which == "ours" else self.theirs


def find_conflict(project: Project) -> Conflict | None:
    """Return the merge in progress, or None without one.

    Raises:
        MergeError: If another operation, such as a rebase, has left files in conflict.
    """
    unmerged = _unmerged(project)
    theirs = _revision(project, "MERGE_HEAD")
    if theirs is None:
        if not unmerged:
            return None
        running = [name for name, head in OTHERS.items() if _revision(project, head)]
        raise MergeError(running[0] if running else None)
    ours = git(project, "rev-parse", "HEAD")
    return Conflict(_commit(project, ours), _commit(project, theirs), unmerged)


def check_conflict(project: Project) -> Conflict:
    """Return the merge in progress.

    Raises:
        NoConflictError: If no merge is in progress.
        MergeError: If another operation, such as a rebase, has left files in conflict.
    """
    conflict = find_conflict(project)
    if conflict is None:
        raise NoConflictError
    return conflict


def _unmerged(project: Project) -> tuple[str, ...]:
    command = ("diff", "--name-only", "--diff-filter=U", "--relative")
    return tuple(git(project, *command, check=False).splitlines())  # empty without a repository


def _revision(project: Project, name: str) -> str | None:
    return git(project, "rev-parse", "--verify", "--quiet", name, check=False) or None


def _commit(project: Project, revision: str) -> Commit:
    number = number_at(project, revision)
    name = git(project, "name-rev", "--name-only", "--exclude=HEAD", revision, check=False)
    when = git(project, "show", "--no-patch", "--format=%an, %cs", revision)
    return Commit(revision, number, f"{revision[:8]} ({name}; {when}), update {number or '?'} open")


def take_side(project: Project, which: Side, say: Callable[[str], None] = print) -> list[str]:
    """Take the files that commands and stages wrote from one side of a merge; merge the others.

    The block `update` in params.yaml and the tags are taken from that side too. Examples that either
    side forgets stay forgotten.

    Args:
        project: A project with a merge in progress.
        which: `ours`, the branch that was checked out, or `theirs`, the branch being merged.
        say: Function that prints a line about each step.

    Returns:
        The files that are still in conflict, for the user to resolve.

    Raises:
        NoConflictError: If no merge is in progress.
        MergeError: If another operation, such as a rebase, has left files in conflict.
    """
    conflict = check_conflict(project)
    side = conflict.side(which)
    for name in WRITTEN:
        _take(project, side.revision, name)
    _merge_params(project, conflict, which)
    _join_forget_lists(project, conflict)
    say(f"taken from {side.label}: {', '.join(WRITTEN)}, and `update` in {PARAMS}")
    for line in _move_tags(project, side.revision):
        say(line)
    if others := _other_inputs(project, side.revision):
        names = " ".join(others)
        say(
            f"merged, so different from {side.label}: {names}. `dvc repro` will rerun the stages "
            f"that read these files. To take them from that side too: `git checkout "
            f"{side.revision[:8]} -- {names}`"
        )
    return sorted(_unmerged(project))


def _other_inputs(project: Project, revision: str) -> list[str]:
    """Return the files that stages read and that differ from the chosen side."""
    read = {PARAMS, *(path for _, path, _ in entries(lock_text(project), "deps"))}
    differ = git(project, "diff", "--name-only", revision, "--", *sorted(read)).splitlines()
    return [name for name in differ if name not in _unmerged(project)]


def _take(project: Project, revision: str, name: str) -> None:
    """Make a file or folder in the working tree and the index equal to that of a commit.

    It is removed if the commit does not have it.
    """
    git(project, "rm", "-r", "--quiet", "--cached", "--ignore-unmatch", "--", name)
    committed = git(project, "ls-tree", "-r", "--name-only", revision, "--", name).splitlines()
    path = project.root / name
    present = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    ignored = git(project, "ls-files", "--others", "--ignored", "--exclude-standard", "--", name)
    for file in present:
        if project.relative(file) not in (*committed, *ignored.splitlines()):
            file.unlink()
    if committed:
        git(project, "checkout", "--quiet", revision, "--", name)


def _merge_params(project: Project, conflict: Conflict, which: Side) -> None:
    """Merge `params.yaml` line by line, with the chosen side's block `update` in all versions."""
    base = git(project, "merge-base", conflict.ours.revision, conflict.theirs.revision, check=False)
    chosen = _update_block(_text_at(project, conflict.side(which).revision, PARAMS))
    with TemporaryDirectory() as scratch:
        paths = []
        for name, revision in (
            ("ours", conflict.ours.revision),
            ("base", base),
            ("theirs", conflict.theirs.revision),
        ):
            path = Path(scratch) / name
            path.write_text(_text_at(project, revision, PARAMS) if revision else "", "utf-8")
            _set_update_block(path, chosen)
            paths.append(str(path))
        labels = [word for name in ("ours", "base", "theirs") for word in ("-L", name)]
        # Git writes the result into the first of the three files.
        clean = _succeeds(project, "merge-file", "--quiet", *labels, *paths)
        files.write_text(project.root / PARAMS, Path(paths[0]).read_text("utf-8"))
    if clean:
        git(project, "add", "--", PARAMS)


def _text_at(project: Project, revision: str, name: str) -> str:
    text = git(project, "show", f"{revision}:./{name}", check=False)
    return f"{text}\n" if text else ""


def _update_block(text: str) -> Any:
    content = yaml_file.parse(text, PARAMS)
    return content.get("update") if isinstance(content, dict) else None


def _set_update_block(path: Path, chosen: Any) -> None:
    def change(content: Any) -> None:
        block = content["update"]
        for name in [name for name in block if name not in chosen]:
            del block[name]
        block.update(chosen)

    if isinstance(chosen, dict) and isinstance(_update_block(path.read_text("utf-8")), dict):
        yaml_file.edit(path, change)


def _join_forget_lists(project: Project, conflict: Conflict) -> None:
    """Write a `forget.yaml` with the entries of both sides."""
    lists = []
    with TemporaryDirectory() as scratch:
        for commit in (conflict.ours, conflict.theirs):
            path = Path(scratch) / FORGET_LIST
            path.write_text(_text_at(project, commit.revision, FORGET_LIST), "utf-8")
            lists.append(ForgetList.read(path))
    if not any(lists) and FORGET_LIST not in conflict.unmerged:
        return
    ours, theirs = lists
    ForgetList(ours.ids | theirs.ids, (*ours.where, *theirs.where)).write(project.forget_list)
    git(project, "add", "--", FORGET_LIST)


def _move_tags(project: Project, revision: str) -> Iterable[str]:
    """Move the tag of each closed update to the commit at which the chosen side closed it."""
    closed = _closed_updates(project, revision)
    for number in sorted(closed.keys() & set(tags(project))):
        tag = f"{TAG}{number}"
        now = git(project, "rev-parse", f"{tag}^{{commit}}")
        if now != closed[number] and not _is_ancestor(project, now, revision):
            make_tag(project, tag, closed[number], move=True)
            yield f"moved the tag {tag} from {now[:8]} to {closed[number][:8]}"


def _closed_updates(project: Project, revision: str) -> dict[int, str]:
    """Return, by number, the last commit of each update that was closed in a history."""
    closed: dict[int, str] = {}
    history = git(project, "log", "--first-parent", "--format=%H", revision, "--", PARAMS)
    opened = [(commit, number_at(project, commit)) for commit in history.splitlines()]
    for later, earlier in itertools.pairwise(opened):
        if earlier[1] is not None and later[1] is not None and later[1] != earlier[1]:
            parent = git(project, "rev-parse", "--verify", "--quiet", f"{later[0]}^", check=False)
            closed.setdefault(earlier[1], parent)
    return closed


def _is_ancestor(project: Project, commit: str, revision: str) -> bool:
    return _succeeds(project, "merge-base", "--is-ancestor", commit, revision)


def _succeeds(project: Project, *arguments: str) -> bool:
    """Return whether a Git command whose exit code is an answer ends with 0."""
    try:
        git(project, *arguments)
    except CommandError:
        return False
    return True
