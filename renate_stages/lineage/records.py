"""Read `dvc.lock`, `.dvc` files and the tags of updates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from renate_stages.errors import MalformedFileError, RenateStagesError
from renate_stages.files import yaml_file
from renate_stages.lineage.commands import dvc, git
from renate_stages.params import Params
from renate_stages.project import Project

TAG = "update-"
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
LOCK_CURE = "run `git checkout HEAD -- dvc.lock`, then `dvc repro`"
HASH = re.compile(r"[0-9a-f]{32}(\.dir)?")


def pointer_hash(project: Project) -> str | None:
    """Return the hash in `parent.dvc`, or None if the file does not exist."""
    path = project.parent_pointer
    return read_pointer(yaml_file.text(path), path.name)["md5"] if path.is_file() else None


def read_pointer(text: str, name: str) -> dict[str, Any]:
    """Return the entry of the only output in the text of a `.dvc` file.

    Args:
        text: Text of the file.
        name: Name of the file, for the error.

    Raises:
        MalformedFileError: If the file does not have exactly one output with a hash.
    """
    content = yaml_file.parse(text, name)
    outs = content.get("outs") if isinstance(content, dict) else None
    found = outs if isinstance(outs, list) else []
    problem = _entry_problem(found[0]) if len(found) == 1 else "expected one entry in `outs`"
    if problem:
        cure = f"run `git checkout HEAD -- {name}`"
        raise MalformedFileError(name, "a DVC file", problem, cure)
    return found[0]


def _entry_problem(entry: Any) -> str | None:
    """Return the problem of an entry of a `.dvc` file or of `dvc.lock`, or None."""
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        return f"an entry is {entry!r:.80}, expected path, md5 and size"
    path, md5 = entry["path"], entry.get("md5")
    if not (isinstance(md5, str) and HASH.fullmatch(md5)):
        return f"md5 of {path!r:.80} is {md5!r:.80}, expected 32 hexadecimal digits"
    for name in ("size", "nfiles"):
        if name in entry and not (type(entry[name]) is int and entry[name] >= 0):
            return f"{name} of {path!r:.80} is {entry[name]!r:.80}, expected a whole number"
    return None


def read_lock(text: str) -> Mapping[str, Any]:
    """Return the stages of a `dvc.lock` by name.

    Raises:
        MalformedFileError: If it does not have DVC's format.
    """
    content = yaml_file.parse(text, "dvc.lock")
    stages = content.get("stages", {}) if isinstance(content, dict) else None
    if content is None:
        stages = {}
    problem = None if isinstance(stages, dict) else "expected `stages`"
    if isinstance(content, dict) and content and "stages" not in content:
        problem = "it has no `stages`"
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        lists = [
            stage.get(key, []) if isinstance(stage, dict) else None for key in ("deps", "outs")
        ]
        if not all(isinstance(each, list) for each in lists):
            problem = f"stage {name!r:.80} has no lists `deps` and `outs`"
            break
        wrong = (_entry_problem(entry) for each in lists for entry in each or ())
        problem = next((f"stage {name!r:.80}: {each}" for each in wrong if each), None)
        if problem:
            break
    if problem:
        raise MalformedFileError("dvc.lock", "DVC's record of the pipeline", problem, LOCK_CURE)
    return stages or {}


def entries(lock: str, key: str) -> Iterator[tuple[str, str, str]]:
    """Yield stage, path and hash of every dependency or output in a `dvc.lock`."""
    for stage, content in read_lock(lock).items():
        for entry in content.get(key, []):
            yield stage, entry["path"], entry["md5"]


def state_entry(lock: str) -> dict[str, Any] | None:
    """Return the entry of the state in a `dvc.lock`, or None if `train` has not finished."""
    return folder_entry(lock, "train", "state")


def folder_entry(lock: str, stage: str, path: str) -> dict[str, Any] | None:
    """Return the entry of a folder that a stage wrote, with its size; None if there is no entry.

    Raises:
        MalformedFileError: If the `dvc.lock` does not have DVC's format.
    """
    entry = stage_entry(lock, stage, "outs", path)
    if entry is not None and not {"size", "nfiles"} <= entry.keys():
        problem = f"stage {stage!r}: {path!r} has no size or nfiles"
        raise MalformedFileError("dvc.lock", "DVC's record of the pipeline", problem, LOCK_CURE)
    return entry


def stage_entry(lock: str, stage: str, key: str, path: str) -> dict[str, Any] | None:
    """Return the entry of one path among the `deps` or `outs` of a stage, or None."""
    for entry in read_lock(lock).get(stage, {}).get(key, []):
        if entry["path"] == path:
            return entry
    return None


def lock_text(project: Project) -> str:
    """Return the text of `dvc.lock`, or an empty string if nothing has run yet."""
    return yaml_file.text(project.lock_file) if project.lock_file.is_file() else ""


def tags(project: Project) -> list[int]:
    """Return the numbers of all tagged updates, ascending."""
    return sorted(int(name[len(TAG) :]) for name in _tag_names(project) if _is_ours(name))


def foreign_tags(project: Project) -> list[str]:
    """Return tags that look like an update's but are not valid names, such as `update-007`."""
    return [name for name in _tag_names(project) if not _is_ours(name)]


def _tag_names(project: Project) -> list[str]:
    return git(project, "tag", "--list", f"{TAG}*").splitlines()


def _is_ours(name: str) -> bool:
    return NUMBER.fullmatch(name[len(TAG) :]) is not None


def numbers_in_use(project: Project) -> dict[int, str]:
    """Return the number of every tagged or open update, with one tag or branch that has it.

    Tags and the `params.yaml` of every branch are read, remote branches included.
    """
    used = {number: f"{TAG}{number}" for number in tags(project)}
    heads = ("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes")
    seen: dict[str, int | None] = {}
    for ref in git(project, *heads).splitlines():
        blob = git(project, "rev-parse", "--verify", "--quiet", f"{ref}:./params.yaml", check=False)
        if blob and blob not in seen:
            seen[blob] = number_at(project, ref)
        if blob and (number := seen[blob]):
            used.setdefault(number, ref)
    return used


def number_at(project: Project, revision: str) -> int | None:
    """Return the number of the update that is open at a commit.

    The commit's `params.yaml` may be of another version of renate-stages, so the rest of it is not
    checked.

    Returns:
        None if the commit has no `params.yaml`, or if it has no number.
    """
    text = git(project, "show", f"{revision}:./params.yaml", check=False)
    with suppress(RenateStagesError, AttributeError, KeyError, TypeError):
        number = yaml_file.parse(text, "params.yaml")["update"]["number"]
        return number if type(number) is int else None
    return None


def at_tag(project: Project, number: int, name: str) -> str:
    """Return the text of a file at an update's tag."""
    return git(project, "show", f"{TAG}{number}:{name}")


def has_at_tag(project: Project, number: int, name: str) -> bool:
    """Return whether a file exists at an update's tag."""
    return bool(git(project, "ls-tree", f"{TAG}{number}", "--", name))


def committed_at(project: Project, number: int) -> int | None:
    """Return when an update was committed, in Unix seconds; None if this clone lacks its tag."""
    seconds = git(project, "log", "-1", "--format=%ct", f"{TAG}{number}", check=False)
    return int(seconds) if seconds else None


def older_versions(project: Project) -> dict[str, list[str]]:
    """Return, by tag, the paths whose version in that update is old and still in DVC's cache.

    Files that are stored in Git are not looked for.
    """
    cache = Path(dvc(project, "cache", "dir")) / "files" / "md5"

    def cached(md5: str) -> bool:
        return (cache / md5[:2] / md5[2:]).is_file()

    lock = lock_text(project)
    present = {md5 for _, _, md5 in (*entries(lock, "outs"), *entries(lock, "deps"))}
    present |= {pointer_hash(project) or ""}
    if project.champion_pointer.is_file():
        text = yaml_file.text(project.champion_pointer)
        present |= {read_pointer(text, project.champion_pointer.name)["md5"]}
    older = {}
    for number in tags(project):
        tagged = at_tag(project, number, "dvc.lock")
        by_path = {path: md5 for key in ("deps", "outs") for _, path, md5 in entries(tagged, key)}
        paths = {path for path, md5 in by_path.items() if md5 not in present and cached(md5)}
        if paths:
            older[f"{TAG}{number}"] = sorted(paths)
    return older


def is_fresh(project: Project) -> bool:
    """Return whether the open update has not run yet, so that `dvc.lock` is still its parent's."""
    parent = Params.load(project.params).update.parent
    if not project.lock_file.is_file():
        return True
    if parent not in tags(project):
        return False
    return lock_text(project).rstrip() == at_tag(project, parent, "dvc.lock")


def state_hash(project: Project) -> str | None:
    """Return DVC's hash of the state in `dvc.lock`, or None if it has no state."""
    entry = state_entry(lock_text(project))
    return None if entry is None else entry["md5"]
