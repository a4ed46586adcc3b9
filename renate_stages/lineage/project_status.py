"""The status of a project, and what to run next."""

from __future__ import annotations

from renate_stages.files import yaml_file
from renate_stages.lineage.champion import ChampionPointer
from renate_stages.lineage.commands import git
from renate_stages.lineage.conflict import Conflict, find_conflict
from renate_stages.lineage.opening import DATA, unfinished, untracked_data
from renate_stages.lineage.records import (
    at_tag,
    foreign_tags,
    has_at_tag,
    is_fresh,
    pointer_hash,
    tags,
)
from renate_stages.lineage.settings import unsettled_remote
from renate_stages.params import Params
from renate_stages.project import Project


def status(project: Project) -> dict[str, str]:
    """Return where the project stands and what to run next, a line each."""
    if conflict := find_conflict(project):
        return _of_conflict(conflict)
    update = Params.load(project.params).update
    parent = f"update {update.parent}" if update.parent else "the first state"
    found = {"update": str(update.number), "parent": f"{parent} ({pointer_hash(project)})"}
    if not project.parent.is_dir():
        in_place = "not here: `renate-stages init` in a new project, else `dvc pull parent.dvc`"
        return {**found, "state": in_place}
    if project.champion_pointer.is_file():
        found["champion"] = ChampionPointer.read(project).label
    dirty = git(project, "status", "--porcelain", check=False).splitlines()
    found["dirty"] = ", ".join(line[3:] for line in dirty) or "nothing"
    if foreign := foreign_tags(project):
        found["tags"] = f"not of updates, and left out: {', '.join(foreign)}"
    if unsettled := unsettled_remote(project):
        found["remote"] = unsettled
    if update.number in tags(project):
        found["next"] = "this update is closed and tagged: `git switch` to the open one's branch"
    elif update.kind == "forget" and is_fresh(project):
        found["next"] = "this update forgets examples and needs no data: `dvc repro`"
    elif untracked := untracked_data(project):
        found["next"] = "; ".join(untracked)
    elif not (project.root / DATA).is_file():
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


def _of_conflict(conflict: Conflict) -> dict[str, str]:
    settled = "none: all that was in conflict is settled"
    return {
        "merge": "Git has stopped in it: two clones changed the same",
        "ours": conflict.ours.label,
        "theirs": conflict.theirs.label,
        "conflict": ", ".join(conflict.unmerged) or settled,
        "next": "`renate-stages resolve --ours` or `--theirs` takes what commands and stages wrote "
        "from one side; then settle what is left, `git commit`, `dvc pull`"
        if conflict.unmerged
        else "`git commit`, then `dvc pull`",
    }


def _same_data_as(project: Project, parent: int) -> bool:
    pointer = project.root / DATA
    if (
        parent not in tags(project)
        or not pointer.is_file()
        or not has_at_tag(project, parent, DATA)
    ):
        return False
    before = yaml_file.parse(at_tag(project, parent, DATA), pointer)
    return before == yaml_file.read(pointer)
