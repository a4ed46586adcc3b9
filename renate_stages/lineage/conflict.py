"""Resolve a merge of two clones that opened the same update.

Files that commands and stages write come from one side as a whole: half of one update and half of the
other is neither. What users write is merged by Git.
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

WRITTEN = (  # by commands and stages, and so of one side as a whole
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
OTHERS = {  # what Git does that is not a merge, and the commit that it names then
    "rebase": "REBASE_HEAD",
    "cherry-pick": "CHERRY_PICK_HEAD",
    "revert": "REVERT_HEAD",
}


@dataclass(frozen=True)
class Commit:
    """One side of a merge.

    Args:
        revision: Its commit.
        number: Of the update that is open there; None where that cannot be read.
        label: How a user speaks of it.
    """

    revision: str
    number: int | None
    label: str


@dataclass(frozen=True)
class Conflict:
    """A merge that Git could not finish.

    Args:
        ours: What was checked out.
        theirs: What is merged into it.
        unmerged: Files in conflict, by relative path.
    """

    ours: Commit
    theirs: Commit
    unmerged: tuple[str, ...]

    def side(self, which: Side) -> Commit:
        """Return one of the two."""
        return self.ours if which == "ours" else self.theirs


def find_conflict(project: Project) -> Conflict | None:
    """Return the merge that Git could not finish; None where there is no such merge.

    Raises:
        MergeError: If files are in conflict for another reason than a merge.
    """
    unmerged = _unmerged(project)
    theirs = _revision(project, "MERGE_HEAD")
    if theirs is None:
        if not unmerged:
            return None
        found = [name for name, head in OTHERS.items() if _revision(project, head)]
        raise MergeError(found[0] if found else None)
    ours = git(project, "rev-parse", "HEAD")
    return Conflict(_commit(project, ours), _commit(project, theirs), unmerged)


def check_conflict(project: Project) -> Conflict:
    """Return the merge that Git could not finish.

    Raises:
        NoConflictError: If no merge is to be finished.
        MergeError: If Git has stopped in something else than a merge.
    """
    conflict = find_conflict(project)
    if conflict is None:
        raise NoConflictError
    return conflict


def _unmerged(project: Project) -> tuple[str, ...]:
    asked = ("diff", "--name-only", "--diff-filter=U", "--relative")
    return tuple(git(project, *asked, check=False).splitlines())  # none without a repository


def _revision(project: Project, name: str) -> str | None:
    return git(project, "rev-parse", "--verify", "--quiet", name, check=False) or None


def _commit(project: Project, revision: str) -> Commit:
    number = number_at(project, revision)
    name = git(project, "name-rev", "--name-only", "--exclude=HEAD", revision, check=False)
    when = git(project, "show", "--no-patch", "--format=%an, %cs", revision)
    return Commit(revision, number, f"{revision[:8]} ({name}; {when}), update {number or '?'} open")


def take_side(project: Project, which: Side, say: Callable[[str], None] = print) -> list[str]:
    """Take what commands and stages wrote from one side of a merge; merge what users wrote.

    Also the parameters of the update and the tags are those of that side. What either side forgets
    stays forgotten.

    Args:
        project: In which Git has stopped in a merge.
        which: `ours`, what was checked out, or `theirs`, what is merged into it.
        say: Is told what was done, line by line.

    Returns:
        The files that are still in conflict, for the user to settle.

    Raises:
        NoConflictError: If no merge is to be finished.
        MergeError: If Git has stopped in something else than a merge.
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
            f"merged, and not as in {side.label}: {names}. `dvc repro` will run the stages that read "
            f"this; `git checkout {side.revision[:8]} -- {names}` takes it from that side too"
        )
    return sorted(_unmerged(project))


def _other_inputs(project: Project, revision: str) -> list[str]:
    """Return files that stages read, and that differ from those of the side that was taken."""
    read = {PARAMS, *(path for _, path, _ in entries(lock_text(project), "deps"))}
    differ = git(project, "diff", "--name-only", revision, "--", *sorted(read)).splitlines()
    return [name for name in differ if name not in _unmerged(project)]


def _take(project: Project, revision: str, name: str) -> None:
    """Make a file or folder, here and in the index, what it is in a commit; absent if it is there."""
    git(project, "rm", "-r", "--quiet", "--cached", "--ignore-unmatch", "--", name)
    there = git(project, "ls-tree", "-r", "--name-only", revision, "--", name).splitlines()
    place = project.root / name
    here = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    ignored = git(project, "ls-files", "--others", "--ignored", "--exclude-standard", "--", name)
    for path in here:
        if project.relative(path) not in (*there, *ignored.splitlines()):
            path.unlink()
    if there:
        git(project, "checkout", "--quiet", revision, "--", name)


def _merge_params(project: Project, conflict: Conflict, which: Side) -> None:
    """Merge `params.yaml` line by line, after making its block `update` the same in all versions."""
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
        labels = [each for name in ("ours", "base", "theirs") for each in ("-L", name)]
        clean = _succeeds(project, "merge-file", "--quiet", *labels, *paths)  # into the first
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
    """Forget what either side forgets."""
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
    """Make the tag of each closed update name the commit that the side's history closed it at."""
    closed = _closed_updates(project, revision)
    for number in sorted(closed.keys() & set(tags(project))):
        tag = f"{TAG}{number}"
        now = git(project, "rev-parse", f"{tag}^{{commit}}")
        if now != closed[number] and not _is_ancestor(project, now, revision):
            make_tag(project, tag, closed[number], move=True)
            yield f"{tag} names {closed[number][:8]} now, and no longer {now[:8]}"


def _closed_updates(project: Project, revision: str) -> dict[int, str]:
    """Return the last commit of each update that was closed in a history, by its number."""
    found: dict[int, str] = {}
    history = git(project, "log", "--first-parent", "--format=%H", revision, "--", PARAMS)
    opened = [(each, number_at(project, each)) for each in history.splitlines()]
    for later, earlier in itertools.pairwise(opened):
        if earlier[1] is not None and later[1] is not None and later[1] != earlier[1]:
            parent = git(project, "rev-parse", "--verify", "--quiet", f"{later[0]}^", check=False)
            found.setdefault(earlier[1], parent)
    return found


def _is_ancestor(project: Project, commit: str, revision: str) -> bool:
    return _succeeds(project, "merge-base", "--is-ancestor", commit, revision)


def _succeeds(project: Project, *arguments: str) -> bool:
    """Return whether git ends with exit code 0, where another one is an answer too."""
    try:
        git(project, *arguments)
    except CommandError:
        return False
    return True
