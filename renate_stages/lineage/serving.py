"""Check that `champion.dvc` points to the export of a committed update, and that it is available."""

from __future__ import annotations

import json

from renate_stages.errors import CommandError, MalformedFileError
from renate_stages.errors.wording import counted
from renate_stages.files import yaml_file
from renate_stages.lineage.champion import POINTER, ChampionPointer, export_entry
from renate_stages.lineage.commands import dvc, git, has_remote
from renate_stages.lineage.records import TAG
from renate_stages.params import Params
from renate_stages.project import Project

TREE = "the working tree"


def champion_problems(project: Project, known: list[int]) -> list[str]:
    """Return the problems of the champion of each tagged update and of the working tree.

    Args:
        project: The project; versions without `champion.dvc` are skipped.
        known: Numbers of the tagged updates.
    """
    texts = {
        f"{TAG}{number}": git(project, "show", f"{TAG}{number}:{POINTER}", check=False)
        for number in known
    }
    here = project.champion_pointer
    texts[TREE] = yaml_file.text(here) if here.is_file() else ""
    problems = []
    for where, text in texts.items():
        try:
            pointer = ChampionPointer.parse(text) if text else None
        except MalformedFileError as error:
            problems.append(f"{where}: {error}")
            continue
        if pointer is None or not pointer.update:  # there is no champion
            continue
        problem = _origin_problem(project, pointer)
        if not problem and where == TREE:
            problem = _storage_problem(project)
        if problem:
            problems.append(f"{where}: {problem}")
    return problems


def _origin_problem(project: Project, pointer: ChampionPointer) -> str | None:
    """Return a problem if the update that the champion belongs to did not write its export."""
    claim = f"{POINTER} says that the export {pointer.out['md5']} is of {pointer.label}"
    origin = _origin(project, pointer)
    if origin is None:
        shallow = git(project, "rev-parse", "--is-shallow-repository", check=False) == "true"
        cure = f"`git checkout HEAD -- {POINTER}`, or `renate-stages promote update-K`"
        return (
            f"{claim}, but no dvc.lock in the history of this clone has this export; run "
            f"{'`git fetch --unshallow --tags`' if shallow else cure}"
        )
    if origin != pointer.update:
        return f"{claim}, but it is the export of update {origin}"
    return None


def _origin(project: Project, pointer: ChampionPointer) -> int | None:
    """Return the number of the committed update that wrote a champion's export, or None.

    The update need not be tagged: the open update may be champion, and may have been run again
    since. Commits of DVC experiments are not searched.
    """
    md5 = pointer.out["md5"]
    refs = ("HEAD", "--branches", "--tags", "--remotes")
    search = ("log", *refs, "--format=%H", f"-S{md5}", "--", "dvc.lock")
    for commit in [f"{TAG}{pointer.update}", *git(project, *search, check=False).split()]:
        lock = git(project, "show", f"{commit}:dvc.lock", check=False)
        entry = export_entry(lock) if lock else None
        if entry and entry["md5"] == md5:
            params = git(project, "show", f"{commit}:params.yaml")
            return Params.parse(yaml_file.parse(params, "params.yaml")).update.number
    return None


def _storage_problem(project: Project) -> str | None:
    """Return a problem if files of the champion are neither in the cache nor in the remote."""
    name = project.champion.name
    command = ("data", "status", "--granular", "--json")
    try:
        git(project, "ls-files", "--", name)  # fails if Git's index is damaged; DVC would hang
        status = json.loads(dvc(project, *command, name) or "{}")
        missing = set(status.get("not_in_cache", ()))
        if not missing or "uncommitted" not in status:  # champion/ itself has all files
            return None
        if not has_remote(project):
            return f"{_count(missing)} not in DVC's cache, and the project has no DVC remote"
        status = json.loads(dvc(project, *command, "--not-in-remote", name) or "{}")
    except CommandError as error:
        return f"{POINTER}: cannot check whether its files are available: {error}"
    if missing := missing & set(status.get("not_in_remote", ())):
        return (
            f"{_count(missing)} neither in DVC's cache nor in the remote; run `dvc push` in a clone "
            "that has them, or promote another update with `renate-stages promote`"
        )
    return None


def _count(missing: set[str]) -> str:
    files = sorted(name for name in missing if not name.endswith("/")) or sorted(missing)
    verb = "is" if len(files) == 1 else "are"
    return f"{counted(len(files), 'file')} of {POINTER} ({', '.join(files[:3])}) {verb}"
