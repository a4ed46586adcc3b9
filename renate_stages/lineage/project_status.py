"""Report the status of a project and what to run next."""

from __future__ import annotations

from renate_stages.files import yaml_file
from renate_stages.lineage.champion import ChampionPointer
from renate_stages.lineage.commands import git
from renate_stages.lineage.conflict import Conflict, find_conflict
from renate_stages.lineage.opening import (
    DATA,
    changed_data,
    changed_stages,
    outdated,
    unsettled,
    untracked_data,
)
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
from renate_stages.params.params import UpdateParams
from renate_stages.project import Project


def status(project: Project) -> dict[str, str]:
    """Return the lines of `renate-stages status`: the value of each row by the row's name."""
    if conflict := find_conflict(project):
        return _of_conflict(conflict)
    update = Params.load(project.params).update
    parent = f"update {update.parent}" if update.parent else "the first state"
    rows = {"update": str(update.number), "parent": f"{parent} ({pointer_hash(project)})"}
    if not project.parent.is_dir():
        missing = (
            "parent-state/ is missing; run `renate-stages init` in a new project, or "
            "`dvc pull parent.dvc` in a clone"
        )
        return {**rows, "state": missing}
    if project.champion_pointer.is_file():
        rows["champion"] = ChampionPointer.read(project).label
    changed = git(project, "status", "--porcelain", check=False).splitlines()
    rows["changes"] = ", ".join(line[3:] for line in changed) or "none (all is committed)"
    if foreign := foreign_tags(project):
        rows["tags"] = f"skipped, because they do not name an update: {', '.join(foreign)}"
    if unsettled := unsettled_remote(project):
        rows["remote"] = unsettled
    rows["next"] = "; ".join(_next_steps(project, update))
    return rows


def _next_steps(project: Project, update: UpdateParams) -> list[str]:
    """Return what to do next; only the first thing that later ones depend on."""
    number = update.number
    if number in tags(project):
        if changed := changed_stages(project):
            return [
                (
                    f"this update is closed and tagged, but files are not those of its commit "
                    f"({', '.join(sorted(changed))}); run `dvc checkout`, or `dvc pull` in a clone"
                )
            ]
        return ["this update is closed and tagged; `git switch` to the branch of the open update"]
    if update.kind == "forget" and is_fresh(project):
        return ["this update forgets examples and needs no data; run `dvc repro`"]
    if untracked := untracked_data(project):
        return untracked
    if not (project.root / DATA).is_file():
        return ["there is no data yet; put it in data/incoming and run `dvc add data/incoming`"]
    if changed := changed_data(project):
        return changed
    if update.kind == "update" and _same_data_as(project, update.parent):
        return [
            (
                f"data/incoming still has the data of update {update.parent}; put the new data there, "
                "then run `dvc add data/incoming` and `dvc repro`"
            )
        ]
    return (
        outdated(project, number)
        or unsettled(project, number)
        or [f"update {number} is finished and committed; run `renate-stages next`"]
    )


def _of_conflict(conflict: Conflict) -> dict[str, str]:
    return {
        "merge": "in progress, with conflicts between two clones",
        "ours": conflict.ours.label,
        "theirs": conflict.theirs.label,
        "conflict": ", ".join(conflict.unmerged) or "none left",
        "next": "`renate-stages resolve --ours` or `--theirs` takes the files that commands and "
        "stages wrote from one side; then resolve the rest, `git commit`, `dvc pull`"
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
