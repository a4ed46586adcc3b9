"""Check that `champion.dvc` names the export of a committed update that is available."""

from __future__ import annotations

import json

from renate_stages.errors import CommandError, MalformedFileError
from renate_stages.files import yaml_file
from renate_stages.lineage.champion import POINTER, ChampionPointer, export_entry
from renate_stages.lineage.commands import dvc, git, has_remote
from renate_stages.lineage.records import TAG
from renate_stages.params import Params
from renate_stages.project import Project

TREE = "the working tree"


def champion_problems(project: Project, known: list[int]) -> list[str]:
    """Return what is wrong with the champion of each tagged update, and of the working tree.

    Args:
        project: One without `champion.dvc`, of before there was a gate, has nothing to check.
        known: Numbers of the tagged updates.
    """
    texts = {
        f"{TAG}{number}": git(project, "show", f"{TAG}{number}:{POINTER}", check=False)
        for number in known
    }
    here = project.champion_pointer
    texts[TREE] = yaml_file.text(here) if here.is_file() else ""
    found = []
    for where, text in texts.items():
        try:
            pointer = ChampionPointer.parse(text) if text else None
        except MalformedFileError as error:
            found.append(f"{where}: {error}")
            continue
        if pointer is None or not pointer.update:  # nothing serves
            continue
        problem = _origin_problem(project, pointer)
        if not problem and where == TREE:
            problem = _storage_problem(project)
        if problem:
            found.append(f"{where}: {problem}")
    return found


def _origin_problem(project: Project, pointer: ChampionPointer) -> str | None:
    """Return what is wrong with the update that a champion is said to be of."""
    said = f"{POINTER} names {pointer.out['md5']} as {pointer.label}"
    made = _maker(project, pointer)
    if made is None:
        shallow = git(project, "rev-parse", "--is-shallow-repository", check=False) == "true"
        cure = f"`git checkout HEAD -- {POINTER}`, or `renate-stages promote update-K`"
        return (
            f"{said}, but no commit here has a dvc.lock that wrote it: "
            f"{'`git fetch --unshallow --tags`' if shallow else cure}"
        )
    if made != pointer.update:
        return f"{said}, but it is the export of update {made}"
    return None


def _maker(project: Project, pointer: ChampionPointer) -> int | None:
    """Return the number of the committed update that wrote a champion's export, if there is one.

    It need not be tagged: the open update may be champion, and may have been run again since.
    Commits of experiments do not count.
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
    """Return what is missing of the champion; the remote is asked only for what is not here."""
    name = project.champion.name
    asked = ("data", "status", "--granular", "--json")
    try:
        git(project, "ls-files", "--", name)  # with an index that is damaged, DVC never ends
        status = json.loads(dvc(project, *asked, name) or "{}")
        missing = set(status.get("not_in_cache", ()))
        if not missing or "uncommitted" not in status:  # champion/ is what the pointer names
            return None
        if not has_remote(project):
            return f"{_count(missing)} not in DVC's cache, and there is no remote to ask"
        status = json.loads(dvc(project, *asked, "--not-in-remote", name) or "{}")
    except CommandError as error:
        return f"{POINTER}: whether its files can be had is not known: {error}"
    if missing := missing & set(status.get("not_in_remote", ())):
        return (
            f"{_count(missing)} neither in DVC's cache nor in the remote: `dvc push` where there "
            "is a copy, or `renate-stages promote` another"
        )
    return None


def _count(missing: set[str]) -> str:
    files = sorted(name for name in missing if not name.endswith("/")) or sorted(missing)
    return f"{len(files)} file(s) that {POINTER} names ({', '.join(files[:3])}) are"
