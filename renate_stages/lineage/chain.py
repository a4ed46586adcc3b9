"""Check the chain of hashes over all updates."""

from __future__ import annotations

from collections.abc import Callable

from renate_stages.errors import CommandError, RenateStagesError
from renate_stages.files import yaml_file
from renate_stages.lineage.anchor import changed_pointers
from renate_stages.lineage.commands import git
from renate_stages.lineage.records import (
    TAG,
    at_tag,
    entries,
    foreign_tags,
    lock_text,
    read_pointer,
    state_entry,
    tags,
)
from renate_stages.lineage.serving import champion_problems
from renate_stages.params import Params
from renate_stages.project import Project


def verify(project: Project, say: Callable[[str], None] = print) -> tuple[int, list[str]]:
    """Check the chain of hashes over all tagged updates and the open one; needs no data.

    Each update's `parent.dvc` must name the state in its parent's `dvc.lock`, and each `dvc.lock`
    must agree with itself and with the pointer next to it. Each `champion.dvc` must name the export
    in the `dvc.lock` of a committed update, and today's must name one that is here or in the remote.

    Returns:
        How many updates were checked, and every break of the chain.
    """
    problems: list[str] = []
    known = tags(project)
    if foreign := foreign_tags(project):
        say(f"not tags of updates, and left out: {', '.join(foreign)}")
    first = None  # the state before any update: all that start from it start from the same
    for number in known:
        where = f"{TAG}{number}"
        try:
            lock, pointer, params = (
                at_tag(project, number, name) for name in ("dvc.lock", "parent.dvc", "params.yaml")
            )
            update = Params.parse(yaml_file.parse(params, "params.yaml")).update
            start = read_pointer(pointer, "parent.dvc")["md5"]
            if update.number != number:
                problems.append(f"{where}: params.yaml says it is update {update.number}")
            if not update.parent:
                first = first or start
                if start != first:
                    problems.append(
                        f"{where}: parent.dvc names {start}, but the first state is {first}"
                    )
            problems += _broken_links(project, where, lock, pointer, update.parent, known)
        except RenateStagesError as error:
            problems.append(f"{where}: {error}")
    if project.parent_pointer.is_file():
        where = "the working tree"
        lock, pointer = lock_text(project), yaml_file.text(project.parent_pointer)
        parent = Params.load(project.params).update.parent
        # Until the open update has run, dvc.lock is still its parent's.
        has_run = parent not in known or lock.rstrip() != at_tag(project, parent, "dvc.lock")
        problems += _broken_links(project, where, lock, pointer, parent, known, has_run=has_run)
    problems += champion_problems(project, known)
    if not problems and project.parent_pointer.is_file():  # nothing says it more closely
        problems = [
            f"the working tree: {pointer.name} is not as it is committed: `git checkout HEAD -- "
            f"{pointer.name}`"
            for pointer in changed_pointers(project)
        ]
    return len(known), problems


def _broken_links(
    project: Project,
    where: str,
    lock: str,
    pointer: str,
    parent: int,
    known: list[int],
    has_run: bool = True,
) -> list[str]:
    """Return what does not fit among one update's lock, pointer and its parent's lock."""
    problems = []
    start = read_pointer(pointer, "parent.dvc")["md5"]
    if parent and parent not in known:
        problems.append(f"{where}: its parent {TAG}{parent} {_lacks(project)}")
    elif parent:
        try:
            state = state_entry(at_tag(project, parent, "dvc.lock"))
        except CommandError:
            problems.append(f"{where}: its parent {TAG}{parent} {_lacks(project)}")
            return problems
        if state is None or state["md5"] != start:
            problems.append(
                f"{where}: parent.dvc names {start}, but {TAG}{parent} wrote "
                f"{state['md5'] if state else 'no state'}"
            )
    written = {path: md5 for _, path, md5 in entries(lock, "outs")}
    for stage, path, md5 in entries(lock, "deps"):
        if path in written and md5 != written[path]:
            problems.append(
                f"{where}: {stage} read {path} as {md5}, but it was written as {written[path]}"
            )
        elif path == project.parent.name and has_run and md5 != start:
            problems.append(f"{where}: {stage} read {path} as {md5}, but parent.dvc names {start}")
    return problems


def _lacks(project: Project) -> str:
    shallow = git(project, "rev-parse", "--is-shallow-repository", check=False) == "true"
    if shallow:
        return "is not in this shallow clone: `git fetch --unshallow --tags`"
    return "is not tagged here: `git fetch --tags`"
