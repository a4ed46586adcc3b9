"""Closing an update and opening the next: tag, `parent.dvc`, number, commit."""

from __future__ import annotations

import json
from typing import Any

from renate_stages import files, yaml_file
from renate_stages.errors import CommandError, NextRefusedError, UnknownUpdateError
from renate_stages.forget_list import ForgetList
from renate_stages.lineage.commands import dvc, fetch, git
from renate_stages.lineage.records import TAG, at_tag, is_fresh, state_entry, tags
from renate_stages.params import Params
from renate_stages.project import Project


def open_next(project: Project) -> int:
    """Close the finished update and open the next one: tag, pointer, number, checkout, commit.

    Returns:
        The number of the update that is open now.

    Raises:
        NextRefusedError: If the update is not finished or not committed; nothing is changed then.
    """
    number = Params.load(project.params).update.number
    if reasons := unfinished(project, number):
        raise NextRefusedError(number, reasons)
    state = state_entry(project.lock_file.read_text(encoding="utf-8"))
    assert state is not None
    finished = git(project, "rev-parse", "HEAD")
    _start_from(project, state, parent=number, number=number + 1)
    git(project, "tag", f"{TAG}{number}", finished)
    return number + 1


def open_from(project: Project, parent: int) -> int:
    """Open a new update that starts from an earlier one, on a branch of its own.

    Returns:
        The number of the update that is open now: above every tagged one and the one open here.

    Raises:
        UnknownUpdateError: If there is no such tag.
        NextRefusedError: If something is not committed, or not in DVC.
        CommandError: If neither cache nor remote has the state or its data; no branch is made then.
    """
    known = tags(project)
    if parent not in known:
        raise UnknownUpdateError(parent, known)
    number = max(*known, Params.load(project.params).update.number) + 1
    if reasons := uncommitted(project) + _unsaved(project):
        raise NextRefusedError(number, reasons, "opened")
    state = state_entry(at_tag(project, parent, "dvc.lock"))
    assert state is not None
    branch = f"{TAG}{number}-from-{parent}"
    forget = ForgetList.read(project.forget_list)  # what is forgotten stays so, wherever one starts
    pointer = project.champion_pointer  # and what serves goes on serving
    champion = pointer.read_text("utf-8") if pointer.is_file() else None
    git(project, "checkout", "--quiet", "-b", branch, f"{TAG}{parent}")
    try:
        fetch(project, "data/incoming.dvc")
        if forget:
            forget.write(project.forget_list)
            git(project, "add", "--", project.forget_list.name)
        if champion is not None:
            files.write_text(pointer, champion)
            git(project, "add", "--", pointer.name)
            fetch(project, pointer.name)
        _start_from(project, state, parent=parent, number=number)
    except CommandError:
        git(project, "checkout", "--quiet", "--force", "-")
        git(project, "branch", "--quiet", "-D", branch)
        raise
    return number


def open_forget(project: Project, forget: ForgetList) -> int:
    """Open an update of kind `forget`: the open one if it is fresh, else the next; commit.

    Returns:
        Its number.

    Raises:
        NextRefusedError: If the open update has run and is not finished, or is not committed.
    """
    if is_fresh(project):
        number = Params.load(project.params).update.number
        if reasons := uncommitted(project):
            raise NextRefusedError(number, reasons, "opened")
    else:
        number = open_next(project)
    forget.write(project.forget_list)

    def set_kind(content: Any) -> None:
        content["update"]["kind"] = "forget"

    yaml_file.edit(project.params, set_kind)
    git(project, "add", "--", project.forget_list.name, "params.yaml")
    git(project, "commit", "--quiet", "-m", f"Update {number} forgets examples")
    return number


def unfinished(project: Project, number: int) -> list[str]:
    """Return why an update cannot be closed yet; empty when it can."""
    if not project.lock_file.is_file():
        return ["the pipeline has not run: `dvc repro`"]
    reasons = []
    if number in tags(project):
        reasons.append(f"the tag {TAG}{number} exists: this update is closed already")
    if state_entry(project.lock_file.read_text(encoding="utf-8")) is None:
        reasons.append("`train` has not finished: `dvc repro`")
    elif changed := _changed_stages(project):
        reasons.append(f"the pipeline is not up to date ({', '.join(changed)}): `dvc repro`")
    return reasons + uncommitted(project)


def _changed_stages(project: Project) -> list[str]:
    """Return what is not up to date, but not `export` if only the champion is another since.

    Its verdict is on the champion of its time; the next update is measured against the new one.
    """
    changed = json.loads(dvc(project, "status", "--json") or "{}")
    if changed.get("export") == [{"changed deps": {project.champion.name: "modified"}}]:
        del changed["export"]
    return sorted(changed)


def uncommitted(project: Project) -> list[str]:
    """Return what in the working tree is not committed, as a reason; empty where all is."""
    dirty = git(project, "status", "--porcelain").splitlines()
    listed = ", ".join(line[3:] for line in dirty[:5])
    return [f"not committed: {listed}: `git add -A && git commit`"] if dirty else []


def _unsaved(project: Project) -> list[str]:
    """Return what of the data and the parent differs from its pointer, and would be replaced."""
    pairs = {"data/incoming.dvc": project.incoming, "parent.dvc": project.parent}
    pointers = [
        pointer
        for pointer, path in pairs.items()
        if path.exists() and (project.root / pointer).is_file()
    ]
    if not pointers:
        return []
    changed = json.loads(dvc(project, "status", "--json", *pointers) or "{}")
    keep = {"data/incoming.dvc": "`dvc add data/incoming` and commit to keep it, or "}
    return [
        f"{project.relative(path)} is not what {pointer} names: {keep.get(pointer, '')}"
        f"`dvc checkout --force {pointer}`"  # nobody changes a parent on purpose
        for pointer, path in pairs.items()
        if pointer in changed
    ]


def _start_from(project: Project, state: dict[str, Any], *, parent: int, number: int) -> None:
    """Point `parent.dvc` at a state, raise the update's number, and commit both."""
    out = {"md5": state["md5"], "size": state["size"], "nfiles": state["nfiles"]}
    pointer = {"outs": [{**out, "hash": "md5", "path": project.parent.name}]}
    files.write_text(project.parent_pointer, yaml_file.dump(pointer))

    def raise_number(content: Any) -> None:
        content["update"]["number"] = number
        content["update"]["parent"] = parent
        content["update"].pop("kind", None)

    yaml_file.edit(project.params, raise_number)
    try:
        fetch(project, "parent.dvc")
    except CommandError:
        git(project, "checkout", "--", "parent.dvc", "params.yaml")
        raise
    git(project, "add", "parent.dvc", "params.yaml")
    git(project, "commit", "--quiet", "-m", f"Open update {number}, from update {parent}")
