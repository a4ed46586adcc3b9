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

    Checked are:

    - `parent.dvc` of each update has the hash of the state in its parent's `dvc.lock`;
    - each `dvc.lock` is consistent in itself and with the `parent.dvc` of the same commit;
    - each `champion.dvc` has the hash of the export in the `dvc.lock` of a committed update;
    - the files of the present champion are in the cache or in the remote.

    Args:
        project: The project to check.
        say: Function that prints a line, for example about tags that are skipped.

    Returns:
        The number of tagged updates, and a line for each problem.
    """
    problems: list[str] = []
    known = tags(project)
    if foreign := foreign_tags(project):
        say(f"skipped tags that do not name an update: {', '.join(foreign)}")
    first = None  # hash of the first state: the same for all updates that have no parent
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
                        f"{where}: parent.dvc has the hash {start}, but the first state is {first}"
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
    if not problems and project.parent_pointer.is_file():  # the problems above are more precise
        problems = [
            f"the working tree: {pointer.name} has uncommitted changes; to undo them: "
            f"`git checkout HEAD -- {pointer.name}`"
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
    """Return the contradictions between an update's lock, its pointer and its parent's lock."""
    problems = []
    start = read_pointer(pointer, "parent.dvc")["md5"]
    if parent and parent not in known:
        problems.append(f"{where}: its parent {TAG}{parent} {_not_here(project)}")
    elif parent:
        try:
            state = state_entry(at_tag(project, parent, "dvc.lock"))
        except CommandError:
            problems.append(f"{where}: its parent {TAG}{parent} {_not_here(project)}")
            return problems
        if state is None or state["md5"] != start:
            problems.append(
                f"{where}: parent.dvc has the hash {start}, but {TAG}{parent} wrote "
                f"{state['md5'] if state else 'no state'}"
            )
    written = {path: md5 for _, path, md5 in entries(lock, "outs")}
    for stage, path, md5 in entries(lock, "deps"):
        if path in written and md5 != written[path]:
            problems.append(
                f"{where}: {stage} read {path} as {md5}, but it was written as {written[path]}"
            )
        elif path == project.parent.name and has_run and md5 != start:
            problems.append(
                f"{where}: {stage} read {path} as {md5}, but parent.dvc has the hash {start}"
            )
    return problems


def _not_here(project: Project) -> str:
    shallow = git(project, "rev-parse", "--is-shallow-repository", check=False) == "true"
    if shallow:
        return "is not in this shallow clone; run `git fetch --unshallow --tags`"
    return "has no tag in this clone; run `git fetch --tags`"
