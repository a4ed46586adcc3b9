"""What `dvc.lock`, the `.dvc` files and the tags say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from renate_stages import yaml_file
from renate_stages.lineage.commands import git
from renate_stages.params import Params
from renate_stages.project import Project

TAG = "update-"


def pointer_hash(project: Project) -> str | None:
    """Return the hash in `parent.dvc`, or None where there is none."""
    path = project.parent_pointer
    return read_pointer(path.read_text(encoding="utf-8"))["md5"] if path.is_file() else None


def read_pointer(text: str) -> dict[str, Any]:
    """Return what the text of a `.dvc` file says of its one output."""
    return yaml_file.parse(text, "parent.dvc")["outs"][0]


def entries(lock: str, key: str) -> Iterator[tuple[str, str, str]]:
    """Yield stage, path and hash of every dependency or output in a `dvc.lock`."""
    for stage, content in yaml_file.parse(lock, "dvc.lock").get("stages", {}).items():
        for entry in content.get(key, []):
            yield stage, entry["path"], entry["md5"]


def state_entry(lock: str) -> dict[str, Any] | None:
    """Return what a `dvc.lock` says of the state, or None where `train` has not finished."""
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


def is_fresh(project: Project) -> bool:
    """Return whether the open update has not run: `dvc.lock` is still its parent's."""
    parent = Params.load(project.params).update.parent
    if not project.lock_file.is_file():
        return True
    if parent not in tags(project):
        return False
    return project.lock_file.read_text("utf-8").rstrip() == at_tag(project, parent, "dvc.lock")
