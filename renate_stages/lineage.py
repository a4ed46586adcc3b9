"""How updates follow each other: the parent pointer, the tags, `next` and `verify`.

The only module that reads `dvc.lock` or writes a `.dvc` file. A pipeline is a graph without
cycles, and an update needs the state that the one before it wrote: the edge is `parent.dvc`, whose
content hash is that of `state` in the parent's `dvc.lock`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from renate_stages import files, yaml_file
from renate_stages.errors import CommandError, NextRefusedError, UnknownUpdateError
from renate_stages.forget_list import ForgetList
from renate_stages.params import Params
from renate_stages.project import Project

TAG = "update-"


def git(project: Project, *arguments: str, check: bool = True) -> str:
    """Run git in the project and return what it prints, without surrounding white space.

    Raises:
        CommandError: If it fails; with `check=False` an empty string is returned instead.
    """
    return _run(["git", *arguments], project.root, check)


def dvc(project: Project, *arguments: str) -> str:
    """Run DVC in the project and return what it prints.

    Raises:
        CommandError: If it fails.
    """
    return _run([sys.executable, "-m", "dvc", *arguments], project.root, check=True)


def _run(command: list[str], folder: Path, check: bool) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode and check:
        shown = ["dvc", *command[3:]] if command[0] == sys.executable else command
        raise CommandError(shown, done.stderr or done.stdout)
    return "" if done.returncode else done.stdout.rstrip()


def fetch(project: Project, target: str) -> None:
    """Put what a `.dvc` file names in place, from the cache or else from the remote.

    Raises:
        CommandError: If neither has it, or a changed file is in its place.
    """
    try:
        dvc(project, "checkout", target)
    except CommandError:
        dvc(project, "pull", target)


def track(project: Project, path: Path) -> None:
    """Put a folder under DVC: into the cache, its hash into the `.dvc` file beside it."""
    dvc(project, "add", "--quiet", project.relative(path))


# -- what the files say ----------------------------------------------------------------------------


def pointer_hash(project: Project) -> str | None:
    """Return the hash in `parent.dvc`, or None where there is none."""
    path = project.parent_pointer
    return _pointer(path.read_text(encoding="utf-8"))["md5"] if path.is_file() else None


def _pointer(text: str) -> dict[str, Any]:
    return yaml_file.parse(text, "parent.dvc")["outs"][0]


def _entries(lock: str, key: str) -> Iterator[tuple[str, str, str]]:
    """Yield stage, path and hash of every dependency or output in a `dvc.lock`."""
    for stage, content in yaml_file.parse(lock, "dvc.lock").get("stages", {}).items():
        for entry in content.get(key, []):
            yield stage, entry["path"], entry["md5"]


def _state_entry(lock: str) -> dict[str, Any] | None:
    stages = yaml_file.parse(lock, "dvc.lock").get("stages", {})
    for entry in stages.get("train", {}).get("outs", []):
        if entry["path"] == "state":
            return entry
    return None


def tags(project: Project) -> list[int]:
    """Return the numbers of all tagged updates, ascending."""
    names = git(project, "tag", "--list", f"{TAG}*").split()
    return sorted(int(name[len(TAG) :]) for name in names if name[len(TAG) :].isdigit())


def at_tag(project: Project, number: int, name: str) -> str:
    """Return the text of a file at an update's tag."""
    return git(project, "show", f"{TAG}{number}:{name}")


# -- next ------------------------------------------------------------------------------------------


def unfinished(project: Project, number: int) -> list[str]:
    """Return why an update cannot be closed yet; empty when it can."""
    if not project.lock_file.is_file():
        return ["the pipeline has not run: `dvc repro`"]
    reasons = []
    if number in tags(project):
        reasons.append(f"the tag {TAG}{number} exists: this update is closed already")
    if _state_entry(project.lock_file.read_text(encoding="utf-8")) is None:
        reasons.append("`train` has not finished: `dvc repro`")
    elif changed := _changed_stages(project):
        reasons.append(f"the pipeline is not up to date ({', '.join(changed)}): `dvc repro`")
    return reasons + _uncommitted(project)


def _changed_stages(project: Project) -> list[str]:
    return sorted(json.loads(dvc(project, "status", "--json") or "{}"))


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
    state = _state_entry(project.lock_file.read_text(encoding="utf-8"))
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
    if reasons := _uncommitted(project) + _unsaved(project):
        raise NextRefusedError(number, reasons, "opened")
    state = _state_entry(at_tag(project, parent, "dvc.lock"))
    assert state is not None
    branch = f"{TAG}{number}-from-{parent}"
    forget = ForgetList.read(project.forget_list)  # what is forgotten stays so, wherever one starts
    git(project, "checkout", "--quiet", "-b", branch, f"{TAG}{parent}")
    try:
        fetch(project, "data/incoming.dvc")
        if forget:
            forget.write(project.forget_list)
            git(project, "add", "--", project.forget_list.name)
        _start_from(project, state, parent=parent, number=number)
    except CommandError:
        git(project, "checkout", "--quiet", "--force", "-")
        git(project, "branch", "--quiet", "-D", branch)
        raise
    return number


def is_fresh(project: Project) -> bool:
    """Return whether the open update has not run: `dvc.lock` is still its parent's."""
    parent = Params.load(project.params).update.parent
    if not project.lock_file.is_file():
        return True
    if parent not in tags(project):
        return False
    return project.lock_file.read_text("utf-8").rstrip() == at_tag(project, parent, "dvc.lock")


def open_forget(project: Project, forget: ForgetList) -> int:
    """Open an update of kind `forget`: the open one if it is fresh, else the next; commit.

    Returns:
        Its number.

    Raises:
        NextRefusedError: If the open update has run and is not finished, or is not committed.
    """
    if is_fresh(project):
        number = Params.load(project.params).update.number
        if reasons := _uncommitted(project):
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


def has_remote(project: Project) -> bool:
    """Return whether DVC has a default remote."""
    return bool(_run([sys.executable, "-m", "dvc", "config", "core.remote"], project.root, False))


def _uncommitted(project: Project) -> list[str]:
    dirty = git(project, "status", "--porcelain").splitlines()
    listed = ", ".join(line[3:] for line in dirty[:5])
    return [f"not committed: {listed}: `git add -A && git commit`"] if dirty else []


def _unsaved(project: Project) -> list[str]:
    """Return what of the data and the parent differs from its pointer, and would be replaced."""
    pointers = [
        f"{project.relative(path)}.dvc"
        for path in (project.incoming, project.parent)
        if path.exists() and path.with_name(f"{path.name}.dvc").is_file()
    ]
    if not pointers:
        return []
    changed = json.loads(dvc(project, "status", "--json", *pointers) or "{}")
    cures = {
        "data/incoming": "`dvc add data/incoming` and commit to keep it, or ",
        "parent": "",  # nobody changes a parent on purpose
    }
    return [
        f"{name} is not what {name}.dvc names: {cure}`dvc checkout --force {name}.dvc`"
        for name, cure in cures.items()
        if f"{name}.dvc" in changed
    ]


def _start_from(project: Project, state: dict[str, Any], *, parent: int, number: int) -> None:
    """Point `parent.dvc` at a state, raise the update's number, and commit both."""
    out = {"md5": state["md5"], "size": state["size"], "nfiles": state["nfiles"]}
    pointer = {"outs": [{**out, "hash": "md5", "path": "parent"}]}
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


# -- verify ----------------------------------------------------------------------------------------


def verify(project: Project) -> tuple[int, list[str]]:
    """Check the chain of hashes over all tagged updates and the open one; needs no data.

    Each update's `parent.dvc` must name the state in its parent's `dvc.lock`, and each `dvc.lock`
    must agree with itself and with the pointer beside it.

    Returns:
        How many updates were checked, and every break of the chain.
    """
    problems = []
    known = tags(project)
    first = None  # the state before any update: all that start from it start from the same
    for number in known:
        lock, pointer, params = (
            at_tag(project, number, name) for name in ("dvc.lock", "parent.dvc", "params.yaml")
        )
        update = Params.parse(yaml_file.parse(params, "params.yaml")).update
        where = f"{TAG}{number}"
        if update.number != number:
            problems.append(f"{where}: params.yaml says it is update {update.number}")
        if not update.parent:
            start = _pointer(pointer)["md5"]
            first = first or start
            if start != first:
                problems.append(
                    f"{where}: parent.dvc names {start}, but the first state is {first}"
                )
        problems += _broken_links(project, where, lock, pointer, update.parent, known)
    if project.parent_pointer.is_file():
        lock = project.lock_file.read_text("utf-8") if project.lock_file.is_file() else "{}"
        pointer = project.parent_pointer.read_text("utf-8")
        parent = Params.load(project.params).update.parent
        # Until the open update has run, dvc.lock is still its parent's.
        has_run = parent not in known or lock.rstrip() != at_tag(project, parent, "dvc.lock")
        problems += _broken_links(
            project, "the working tree", lock, pointer, parent, known, has_run=has_run
        )
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
    start = _pointer(pointer)["md5"]
    if parent and parent not in known:
        problems.append(f"{where}: its parent {TAG}{parent} is not tagged")
    elif parent:
        state = _state_entry(at_tag(project, parent, "dvc.lock"))
        if state is None or state["md5"] != start:
            problems.append(
                f"{where}: parent.dvc names {start}, but {TAG}{parent} wrote "
                f"{state['md5'] if state else 'no state'}"
            )
    written = {path: md5 for _, path, md5 in _entries(lock, "outs")}
    for stage, path, md5 in _entries(lock, "deps"):
        if path in written and md5 != written[path]:
            problems.append(
                f"{where}: {stage} read {path} as {md5}, but it was written as {written[path]}"
            )
        elif path == "parent" and has_run and md5 != start:
            problems.append(f"{where}: {stage} read parent as {md5}, but parent.dvc names {start}")
    return problems


# -- status ----------------------------------------------------------------------------------------


def status(project: Project) -> dict[str, str]:
    """Return where the project stands and what to run next, a line each."""
    update = Params.load(project.params).update
    parent = f"update {update.parent}" if update.parent else "the first state"
    found = {"update": str(update.number), "parent": f"{parent} ({pointer_hash(project)})"}
    if not project.parent.is_dir():
        in_place = "not here: `renate-stages init` in a new project, else `dvc pull parent.dvc`"
        return {**found, "state": in_place}
    dirty = git(project, "status", "--porcelain", check=False).splitlines()
    found["dirty"] = ", ".join(line[3:] for line in dirty) or "nothing"
    if update.number in tags(project):
        found["next"] = "this update is closed and tagged: `git switch` to the open one's branch"
    elif update.kind == "forget" and is_fresh(project):
        found["next"] = "this update forgets examples and needs no data: `dvc repro`"
    elif not project.incoming.with_name("incoming.dvc").is_file():
        found["next"] = "there is no data yet: put it in data/incoming, `dvc add data/incoming`"
    elif update.kind == "update" and _same_data_as(project, update.parent):
        found["next"] = (
            f"data/incoming is still that of update {update.parent}: put the new data there, "
            "`dvc add data/incoming`, `dvc repro`"
        )
    elif reasons := unfinished(project, update.number):
        found["next"] = "; ".join(reasons)
    else:
        found["next"] = f"update {update.number} is finished and committed: `renate-stages next`"
    return found


def _same_data_as(project: Project, parent: int) -> bool:
    pointer = project.incoming.with_name("incoming.dvc")
    if parent not in tags(project) or not pointer.is_file():
        return False
    before = yaml_file.parse(at_tag(project, parent, "data/incoming.dvc"), pointer)
    return before == yaml_file.read(pointer)
