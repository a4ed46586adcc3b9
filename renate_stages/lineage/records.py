"""What `dvc.lock`, the `.dvc` files and the tags say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from renate_stages import yaml_file
from renate_stages.lineage.commands import dvc, git
from renate_stages.params import Params
from renate_stages.project import Project

TAG = "update-"


def pointer_hash(project: Project) -> str | None:
    """Return the hash in `parent.dvc`, or None where there is none."""
    path = project.parent_pointer
    return read_pointer(path.read_text(encoding="utf-8"))["md5"] if path.is_file() else None


def read_pointer(text: str) -> dict[str, Any]:
    """Return what the text of a `.dvc` file says of its one output."""
    return yaml_file.parse(text, "a .dvc file")["outs"][0]


def entries(lock: str, key: str) -> Iterator[tuple[str, str, str]]:
    """Yield stage, path and hash of every dependency or output in a `dvc.lock`."""
    for stage, content in yaml_file.parse(lock, "dvc.lock").get("stages", {}).items():
        for entry in content.get(key, []):
            yield stage, entry["path"], entry["md5"]


def state_entry(lock: str) -> dict[str, Any] | None:
    """Return what a `dvc.lock` says of the state, or None where `train` has not finished."""
    return stage_entry(lock, "train", "outs", "state")


def stage_entry(lock: str, stage: str, key: str, path: str) -> dict[str, Any] | None:
    """Return what a `dvc.lock` says of one path among the `deps` or `outs` of a stage, or None."""
    stages = yaml_file.parse(lock, "dvc.lock").get("stages", {})
    for entry in stages.get(stage, {}).get(key, []):
        if entry["path"] == path:
            return entry
    return None


def tags(project: Project) -> list[int]:
    """Return the numbers of all tagged updates, ascending."""
    names = git(project, "tag", "--list", f"{TAG}*").split()
    return sorted(int(name[len(TAG) :]) for name in names if name[len(TAG) :].isdigit())


def at_tag(project: Project, number: int, name: str) -> str:
    """Return the text of a file at an update's tag."""
    return git(project, "show", f"{TAG}{number}:{name}")


def committed_at(project: Project, number: int) -> int | None:
    """Return when an update was committed, in Unix seconds; None where its tag is not here."""
    found = git(project, "log", "-1", "--format=%ct", f"{TAG}{number}", check=False)
    return int(found) if found else None


def older_versions(project: Project) -> dict[str, list[str]]:
    """Return by tag which outputs and data of that update lie in DVC's cache, and are not today's.

    Only data and outputs that hold examples or a model are looked for: what Git has, Git keeps.
    """
    cache = Path(dvc(project, "cache", "dir")) / "files" / "md5"

    def cached(md5: str) -> bool:
        return (cache / md5[:2] / md5[2:]).is_file()

    lock = project.lock_file.read_text("utf-8") if project.lock_file.is_file() else "{}"
    present = {md5 for _, _, md5 in (*entries(lock, "outs"), *entries(lock, "deps"))}
    present |= {pointer_hash(project) or ""}
    if project.champion_pointer.is_file():
        present |= {read_pointer(project.champion_pointer.read_text("utf-8"))["md5"]}
    found = {}
    for number in tags(project):
        at = at_tag(project, number, "dvc.lock")
        by_path = {path: md5 for key in ("deps", "outs") for _, path, md5 in entries(at, key)}
        older = {path for path, md5 in by_path.items() if md5 not in present and cached(md5)}
        if older:
            found[f"{TAG}{number}"] = sorted(older)
    return found


def is_fresh(project: Project) -> bool:
    """Return whether the open update has not run: `dvc.lock` is still its parent's."""
    parent = Params.load(project.params).update.parent
    if not project.lock_file.is_file():
        return True
    if parent not in tags(project):
        return False
    return project.lock_file.read_text("utf-8").rstrip() == at_tag(project, parent, "dvc.lock")


def state_hash(project: Project) -> str | None:
    """Return DVC's hash of the state that `dvc.lock` names, or None where there is none."""
    if not project.lock_file.is_file():
        return None
    entry = state_entry(project.lock_file.read_text(encoding="utf-8"))
    return None if entry is None else entry["md5"]
