"""Close an update and open the next: tag, `parent.dvc`, number, commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from renate_stages.errors import MalformedFileError, NextRefusedError, UnknownUpdateError
from renate_stages.files import typed, yaml_file
from renate_stages.lineage.commands import dvc, git
from renate_stages.lineage.content import special_files
from renate_stages.lineage.records import (
    TAG,
    at_tag,
    entries,
    has_at_tag,
    is_fresh,
    lock_text,
    number_at,
    numbers_in_use,
    state_entry,
    tags,
)
from renate_stages.lineage.transaction import Change, Changed, Pointer, changing
from renate_stages.memory.forget_list import ForgetList
from renate_stages.params import Params
from renate_stages.project import Project

CHAMPION: Final = "champion.dvc"
DATA: Final = "data/incoming.dvc"
FORGET_LIST: Final = "forget.yaml"
PARAMS: Final = "params.yaml"
POINTER: Final = "parent.dvc"


def open_next(project: Project, say: Callable[[str], None] = print) -> int:
    """Close the finished update and open the next one: tag, pointer, number, commit, checkout.

    Returns:
        The number of the update that is open now.

    Raises:
        NextRefusedError: If the update is not finished or not committed; nothing is changed then.
        RenateStagesError: If a step fails; nothing is changed then either.
    """
    return _close(project, "renate-stages next", say)


def _close(
    project: Project, command: str, say: Callable[[str], None], forget: ForgetList | None = None
) -> int:
    """Close the finished update and open the next one; with a list, as one that forgets."""
    number = Params.load(project.params).update.number
    if reasons := unfinished(project, number):
        raise NextRefusedError(number, reasons)
    state = state_entry(lock_text(project))
    assert state is not None
    new = _next_number(project, number, say)
    changes: list[Changed] = [POINTER, PARAMS, *([FORGET_LIST] if forget else [])]
    tag = f"{TAG}{number}"
    with changing(project, command, changes=changes, pointers=[POINTER], tag=tag) as change:
        if forget:
            change.write(FORGET_LIST, forget.text())
        _start_from(change, state, parent=number, number=new, kind="forget" if forget else None)
        message = f"Open update {new}, from update {number}"
        change.commit(f"Update {new} forgets examples" if forget else message)
    return new


def _next_number(project: Project, number: int, say: Callable[[str], None]) -> int:
    """Return the number after one, or, where that is in use, the first above all."""
    in_use = numbers_in_use(project)
    if number + 1 not in in_use:
        return number + 1
    new = max(in_use) + 1
    say(f"update {number + 1} is in use ({in_use[number + 1]}), so this is update {new}")
    return new


def open_from(project: Project, parent: int) -> int:
    """Open a new update that starts from an earlier one, on a branch of its own.

    Returns:
        The number of the update that is open now: above all that are in use.

    Raises:
        UnknownUpdateError: If there is no such tag.
        NextRefusedError: If something is not committed, or not in DVC.
        RenateStagesError: If a step fails, as where neither cache nor remote has the state or its
            data; nothing is changed then.
    """
    known = tags(project)
    if parent not in known:
        raise UnknownUpdateError(parent, known)
    number = max(*numbers_in_use(project), Params.load(project.params).update.number) + 1
    branch = f"{TAG}{number}-from-{parent}"
    reasons = uncommitted(project) + _unsaved(project)
    if git(project, "branch", "--list", branch):
        reasons.append(f"the branch {branch} exists: `git branch -m {branch} ANOTHER-NAME`")
    state = state_entry(at_tag(project, parent, "dvc.lock"))
    if state is None:
        reasons.append(f"{TAG}{parent} has no state in its dvc.lock")
    if reasons or state is None:
        raise NextRefusedError(number, reasons, "opened")
    forget = ForgetList.read(project.forget_list)  # what is forgotten stays so, wherever one starts
    pointer = project.champion_pointer  # and what serves goes on serving
    champion = yaml_file.text(pointer) if pointer.is_file() else None
    changes: list[Changed] = [POINTER, PARAMS, *([FORGET_LIST] if forget else [])]
    has_data = has_at_tag(project, parent, DATA)
    pointers: list[Pointer] = [*([DATA] if has_data else []), POINTER]
    if champion is not None:
        changes.append(CHAMPION)
        pointers.append(CHAMPION)
    with changing(
        project,
        f"renate-stages next --from {TAG}{parent}",
        changes=changes,
        pointers=pointers,
        branch=branch,
        start=git(project, "rev-parse", f"{TAG}{parent}^{{commit}}"),
    ) as change:
        if has_data:
            change.secure(DATA)
        if forget:
            change.write(FORGET_LIST, forget.text())
        if champion is not None:
            change.write(CHAMPION, champion)
            change.secure(CHAMPION)
        _start_from(change, state, parent=parent, number=number)
        change.commit(f"Open update {number}, from update {parent}")
    return number


def open_forget(project: Project, forget: ForgetList, say: Callable[[str], None] = print) -> int:
    """Open an update of kind `forget`: the open one if it is fresh, else the next; commit.

    Returns:
        Its number.

    Raises:
        NextRefusedError: If the open update has run and is not finished, or is not committed.
        RenateStagesError: If a step fails; nothing is changed then.
    """
    command = "renate-stages forget"
    if not is_fresh(project):
        return _close(project, command, say, forget)
    number = Params.load(project.params).update.number
    if reasons := uncommitted(project):
        raise NextRefusedError(number, reasons, "opened")

    def set_kind(content: Any) -> None:
        content["update"]["kind"] = "forget"

    with changing(project, command, changes=[FORGET_LIST, PARAMS]) as change:
        change.write(FORGET_LIST, forget.text())
        change.write(PARAMS, yaml_file.edited(project.params, set_kind))
        change.commit(f"Update {number} forgets examples")
    return number


def unfinished(project: Project, number: int) -> list[str]:
    """Return why an update cannot be closed yet; empty when it can."""
    if not project.lock_file.is_file():
        return ["the pipeline has not run: `dvc repro`"]
    reasons = []
    if number in tags(project):
        reasons.append(f"the tag {TAG}{number} exists: this update is closed already")
    reasons += untracked_data(project)
    if state_entry(lock_text(project)) is None:
        reasons.append("`train` has not finished: `dvc repro`")
    elif special := _special(project):
        reasons += special
    elif changed := _changed_stages(project):
        folders = {POINTER: project.parent, project.champion_pointer.name: project.champion}
        damaged = [
            f"{project.relative(folder)}/ is not what {pointer} names: `renate-stages verify --repair`"
            for pointer, folder in folders.items()
            if any(each in str(changed.get(pointer)) for each in ("'modified'", "'not in cache'"))
        ]
        stale = f"the pipeline is not up to date ({', '.join(sorted(changed))}): `dvc repro`"
        reasons += damaged or [stale]
    return reasons + _overtaken(project, number) + uncommitted(project)


def untracked_data(project: Project) -> list[str]:
    """Return that the data of the open update is in no version, as a reason; empty where it is."""
    pointer, data = project.root / DATA, project.incoming
    if pointer.is_file() or not data.is_dir() or not any(data.iterdir()):
        return []
    return [f"{project.relative(data)} is not under DVC: `dvc add {project.relative(data)}`"]


def _overtaken(project: Project, number: int) -> list[str]:
    """Return that another clone has closed the update already, as a reason, where that is known."""
    asked = ("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    upstream = git(project, *asked, check=False)
    there = number_at(project, upstream) if upstream else None
    if there is None or there <= number:
        return []
    return [f"{upstream} has update {there} open already: `git pull`"]


def _changed_stages(project: Project) -> dict[str, Any]:
    """Return what is not up to date, and how, but not `export` if only the champion is another since.

    Its verdict is on the champion of its time; the next update is measured against the new one.
    """
    tuned = project.tuned
    if tuned.is_file() and not isinstance(
        yaml_file.read(tuned), dict
    ):  # DVC's message says nothing
        raise MalformedFileError(
            tuned, "the values that tune chose", "it is not a mapping", typed.RUN_AGAIN
        )
    changed = json.loads(dvc(project, "status", "--json") or "{}")
    if changed.get("export") == [{"changed deps": {project.champion.name: "modified"}}]:
        del changed["export"]
    return changed


def _special(project: Project) -> list[str]:
    """Return what is in the place of a file and is none, as a reason: DVC would read it without end."""
    lock = lock_text(project)
    named = {path for key in ("deps", "outs") for _, path, _ in entries(lock, key)}
    found = sorted(map(project.relative, special_files(project.root / each for each in named)))
    return [f"not a file: {', '.join(found[:5])}: remove it, then `dvc checkout`"] if found else []


def uncommitted(project: Project) -> list[str]:
    """Return what in the working tree is not committed, as a reason; empty where all is."""
    dirty = git(project, "status", "--porcelain").splitlines()
    listed = ", ".join(line[3:] for line in dirty[:5])
    return [f"not committed: {listed}: `git add -A && git commit`"] if dirty else []


def _unsaved(project: Project) -> list[str]:
    """Return what of the data and the parent differs from its pointer, and would be replaced."""
    pairs = {DATA: project.incoming, POINTER: project.parent}
    pointers = [
        pointer
        for pointer, path in pairs.items()
        if path.exists() and (project.root / pointer).is_file()
    ]
    if not pointers:
        return []
    changed = json.loads(dvc(project, "status", "--json", *pointers) or "{}")
    keep = {DATA: "`dvc add data/incoming` and commit to keep it, or "}
    return [
        f"{project.relative(path)} is not what {pointer} names: {keep.get(pointer, '')}"
        f"`dvc checkout --force {pointer}`"  # nobody changes a parent on purpose
        for pointer, path in pairs.items()
        if pointer in changed
    ]


def _start_from(
    change: Change, state: dict[str, Any], *, parent: int, number: int, kind: str | None = None
) -> None:
    """Point `parent.dvc` at a state, and write the update's number."""
    project = change.project
    out = {"md5": state["md5"], "size": state["size"], "nfiles": state["nfiles"]}
    pointer = {"outs": [{**out, "hash": "md5", "path": project.parent.name}]}
    change.write(POINTER, yaml_file.dump(pointer))
    change.secure(POINTER)

    def set_update(content: Any) -> None:
        content["update"]["number"] = number
        content["update"]["parent"] = parent
        content["update"].pop("kind", None)
        if kind is not None:
            content["update"]["kind"] = kind

    change.write(PARAMS, yaml_file.edited(project.params, set_update))
