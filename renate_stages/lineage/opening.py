"""Close an update and open the next: tag, `parent.dvc`, number, commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from renate_stages.errors import MalformedFileError, NextRefusedError, UnknownUpdateError
from renate_stages.files import typed, yaml_file
from renate_stages.lineage.commands import dvc, git
from renate_stages.lineage.content import special_files
from renate_stages.lineage.intent import Changed, Pointer
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
from renate_stages.lineage.transaction import Change, changing
from renate_stages.memory.forget_list import ForgetList
from renate_stages.params import Params
from renate_stages.project import Project

CHAMPION: Final = "champion.dvc"
DATA: Final = "data/incoming.dvc"
NOT_RUN: Final = "the pipeline has not run; run `dvc repro`"
FORGET_LIST: Final = "forget.yaml"
PARAMS: Final = "params.yaml"
POINTER: Final = "parent.dvc"


def open_next(project: Project, say: Callable[[str], None] = print) -> int:
    """Close the finished update and open the next one: tag, pointer, number, commit, checkout.

    Returns:
        The number of the new update.

    Raises:
        NextRefusedError: If the update is not finished or not committed; nothing is changed.
        RenateStagesError: If a step fails; all changes are undone.
    """
    return _close(project, "renate-stages next", say)


def _close(
    project: Project, command: str, say: Callable[[str], None], forget: ForgetList | None = None
) -> int:
    """Close the finished update and open the next one; with a forget list, it only forgets."""
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
    """Return the next number; if that is in use, the first one above all numbers in use."""
    in_use = numbers_in_use(project)
    if number + 1 not in in_use:
        return number + 1
    new = max(in_use) + 1
    say(f"the number {number + 1} is in use ({in_use[number + 1]}); opening update {new} instead")
    return new


def open_from(project: Project, parent: int) -> int:
    """Open a new update that starts from an earlier one, on a new branch.

    Returns:
        The number of the new update: one above all numbers in use.

    Raises:
        UnknownUpdateError: If the parent has no tag.
        NextRefusedError: If there are changes that are not committed or not tracked by DVC.
        RenateStagesError: If a step fails, for example because neither cache nor remote has the
            state or its data; all changes are undone.
    """
    known = tags(project)
    if parent not in known:
        raise UnknownUpdateError(parent, known)
    number = max(*numbers_in_use(project), Params.load(project.params).update.number) + 1
    branch = f"{TAG}{number}-from-{parent}"
    reasons = uncommitted(project) + _unsaved(project)
    if git(project, "branch", "--list", branch):
        reasons.append(
            f"the branch {branch} exists already; rename it: `git branch -m {branch} ANOTHER-NAME`"
        )
    state = state_entry(at_tag(project, parent, "dvc.lock"))
    if state is None:
        reasons.append(f"the dvc.lock of {TAG}{parent} has no state")
    if reasons or state is None:
        raise NextRefusedError(number, reasons, "opened")
    # The new branch keeps the present forget list and champion: forgotten examples stay forgotten
    # whatever the parent is, and the serving model goes on serving.
    forget = ForgetList.read(project.forget_list)
    pointer = project.champion_pointer
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
    """Open an update of kind `forget` and commit it.

    If the open update has not run yet, it becomes the forget update; otherwise the next one does.

    Returns:
        The number of the forget update.

    Raises:
        NextRefusedError: If the open update has run but is not finished or not committed.
        RenateStagesError: If a step fails; all changes are undone.
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
    """Return the reasons why an update cannot be closed yet; empty if it can."""
    reasons = outdated(project, number)
    if reasons == [NOT_RUN]:
        return reasons
    return reasons + unsettled(project, number)


def unsettled(project: Project, number: int) -> list[str]:
    """Return reasons in Git why an update cannot be closed: a newer one, uncommitted changes."""
    return _overtaken(project, number) + uncommitted(project)


def outdated(project: Project, number: int) -> list[str]:
    """Return the reasons why results of an update are not those of its inputs."""
    if not project.lock_file.is_file():
        return [NOT_RUN]
    reasons = []
    if number in tags(project):
        reasons.append(f"the tag {TAG}{number} exists, so this update is closed already")
    reasons += untracked_data(project)
    if state_entry(lock_text(project)) is None:
        reasons.append("`train` has not finished; run `dvc repro`")
    elif special := _special(project):
        reasons += special
    elif changed := changed_stages(project):
        folders = {POINTER: project.parent, project.champion_pointer.name: project.champion}
        damaged = [
            f"{project.relative(folder)}/ does not match the hash in {pointer}; run "
            "`renate-stages verify --repair`"
            for pointer, folder in folders.items()
            if any(word in str(changed.get(pointer)) for word in ("'modified'", "'not in cache'"))
        ]
        stale = f"the pipeline is not up to date ({', '.join(sorted(changed))}); run `dvc repro`"
        reasons += damaged or [stale]
    return reasons


def untracked_data(project: Project) -> list[str]:
    """Return a reason if DVC does not track the open update's data; otherwise an empty list."""
    pointer, data = project.root / DATA, project.incoming
    if pointer.is_file() or not data.is_dir() or not any(data.iterdir()):
        return []
    name = project.relative(data)
    return [f"DVC does not track {name} yet; run `dvc add {name}`"]


def changed_data(project: Project) -> list[str]:
    """Return a reason if the data is not what was added to DVC; otherwise an empty list."""
    if not ((project.root / DATA).is_file() and project.incoming.is_dir()):
        return []
    if not json.loads(dvc(project, "status", "--json", DATA) or "{}"):
        return []
    name = project.relative(project.incoming)
    return [f"{name} has changed since it was added; run `dvc add {name}` and `dvc repro`"]


def _overtaken(project: Project, number: int) -> list[str]:
    """Return a reason if the upstream branch has a later update open, so another clone closed it."""
    command = ("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    upstream = git(project, *command, check=False)
    latest = number_at(project, upstream) if upstream else None
    if latest is None or latest <= number:
        return []
    return [f"update {latest} is already open on {upstream}; run `git pull`"]


def changed_stages(project: Project) -> dict[str, Any]:
    """Return what `dvc status` reports as not up to date, by stage.

    `export` is left out if only the champion has changed: its verdict compares with the champion of
    that time, and the next update is compared with the new one.
    """
    tuned = project.tuned
    # DVC's own message for this file is empty.
    if tuned.is_file() and not isinstance(yaml_file.read(tuned), dict):
        raise MalformedFileError(
            tuned, "the values that tune chose", "it is not a mapping", typed.RUN_AGAIN
        )
    changed = json.loads(dvc(project, "status", "--json") or "{}")
    if changed.get("export") == [{"changed deps": {project.champion.name: "modified"}}]:
        del changed["export"]
    return changed


def _special(project: Project) -> list[str]:
    """Return a reason if special files, such as named pipes, are in the place of tracked files.

    DVC would wait forever when it reads them.
    """
    lock = lock_text(project)
    tracked = {path for key in ("deps", "outs") for _, path, _ in entries(lock, key)}
    special = sorted(map(project.relative, special_files(project.root / path for path in tracked)))
    if not special:
        return []
    return [f"not a regular file: {', '.join(special[:5])}; remove it, then run `dvc checkout`"]


def uncommitted(project: Project) -> list[str]:
    """Return a reason if the working tree has uncommitted changes; otherwise an empty list."""
    dirty = git(project, "status", "--porcelain").splitlines()
    listed = ", ".join(line[3:] for line in dirty[:5])
    return [f"uncommitted changes: {listed}; run `git add -A && git commit`"] if dirty else []


def _unsaved(project: Project) -> list[str]:
    """Return a reason for each of data and parent that has changes which would be overwritten."""
    pairs = {DATA: project.incoming, POINTER: project.parent}
    pointers = [
        pointer
        for pointer, path in pairs.items()
        if path.exists() and (project.root / pointer).is_file()
    ]
    if not pointers:
        return []
    changed = json.loads(dvc(project, "status", "--json", *pointers) or "{}")
    # Nobody changes a parent on purpose, so only the data can be kept.
    keep = {DATA: "to keep it, run `dvc add data/incoming` and commit; "}
    return [
        f"{project.relative(path)} does not match the hash in {pointer}; {keep.get(pointer, '')}"
        f"to restore it, run `dvc checkout --force {pointer}`"
        for pointer, path in pairs.items()
        if pointer in changed
    ]


def _start_from(
    change: Change, state: dict[str, Any], *, parent: int, number: int, kind: str | None = None
) -> None:
    """Point `parent.dvc` at a state, and write the numbers of the update and its parent."""
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
