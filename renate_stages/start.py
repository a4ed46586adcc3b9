"""Making a project ready for its first update: `renate-stages init` and `example-data`."""

from __future__ import annotations

import shutil
from pathlib import Path

from renate_stages import files, lineage, state
from renate_stages.errors import (
    NestedProjectError,
    NotExampleProjectError,
    ParentExistsError,
)
from renate_stages.exported import Exported
from renate_stages.params import Params
from renate_stages.project import Project

REMOTE = "local"


def initialise(
    project: Project, *, model: Path | None = None, memory: Path | None = None
) -> list[str]:
    """Make Git and DVC ready, and write the state that the first update starts from.

    Safe to repeat: what is there already stays. Commits what it made.

    Args:
        project: A generated project, or a clone of one.
        model: A state dict to start from; None for the empty state.
        memory: With `model`, a folder of its old data, as `data_module_fn` reads it.

    Returns:
        What was done, a line each; empty when nothing was left to do.

    Raises:
        RenateStagesError: If the project lies inside another repository, or `model` is given and
            there is a first state already, or does not fit.
    """
    params = Params.load(project.params)
    if model is not None and (project.parent.exists() or project.parent_pointer.exists()):
        raise ParentExistsError(project.parent)
    done = _make_repositories(project)
    made: list[str] = []
    if not project.parent.is_dir():
        made += _make_parent(project, params, model, memory)
    if not project.champion.is_dir():
        made += _make_champion(project)
    if params.example and not project.incoming.is_dir() and params.update.parent == 0:
        write_example(project, params.update.number)
        lineage.track(project, project.incoming)
        made.append(f"data/incoming: {params.example} of update {params.update.number}")
    if _commit(project):
        made.append("committed")
    return done + made


def write_example(project: Project, update: int) -> None:
    """Write the example's data of an update into `data/incoming`.

    Raises:
        NotExampleProjectError: If the project has data of its own.
        RenateStagesError: If there is no such update, or the folder holds something else.
    """
    if Params.load(project.params).example is None:
        raise NotExampleProjectError
    from renate_stages.digits import write_digits

    write_digits(project.incoming, update)


def _make_repositories(project: Project) -> list[str]:
    done = []
    if not (project.root / ".git").exists():
        outer = lineage.git(project, "rev-parse", "--show-toplevel", check=False)
        ignored = lineage.git(project, "check-ignore", str(project.root), check=False)
        if outer and not ignored:
            raise NestedProjectError(project.root, Path(outer))
        lineage.git(project, "init", "--quiet", "--initial-branch", "main")
        done.append("git: a new repository")
    if not (project.root / ".dvc" / "config").is_file():
        lineage.dvc(project, "init", "--quiet")
        storage = f"../{project.root.name}-dvc-remote"
        lineage.dvc(project, "remote", "add", "--quiet", "--default", REMOTE, storage)
        done.append(f"dvc: a new repository, with the remote {storage}")
    return done


def _make_parent(
    project: Project, params: Params, model: Path | None, memory: Path | None
) -> list[str]:
    """Write or fetch the state that the open update starts from."""
    named = lineage.pointer_hash(project)
    if params.update.parent:
        lineage.fetch(project, "parent.dvc")
        return [f"parent: the state of update {params.update.parent}, fetched"]
    with files.whole_directory(project.parent) as folder:
        if model is None:
            state.write_empty(folder)
        else:
            from renate_stages.adopt import write_adopted

            write_adopted(folder, project, params, model, memory)
    pointer = project.parent_pointer.read_text("utf-8") if named is not None else ""
    lineage.track(project, project.parent, project.parent_pointer)
    if named is not None and lineage.pointer_hash(project) != named:
        files.write_text(project.parent_pointer, pointer)  # the project started from a model
        shutil.rmtree(project.parent)
        lineage.fetch(project, "parent.dvc")
        return ["parent: the first state of this project, fetched"]
    return ["parent: the empty state" if model is None else f"parent: the model of {model.name}"]


def _make_champion(project: Project) -> list[str]:
    """Write the champion of a project that has none, or fetch the one that its pointer names."""
    if project.champion_pointer.is_file() and lineage.ChampionPointer.read(project).update:
        lineage.fetch(project, project.champion_pointer.name)
        return [f"champion: {lineage.ChampionPointer.read(project).label}, fetched"]
    with files.whole_directory(project.champion) as folder:
        Exported().write(folder)
    lineage.track(project, project.champion)
    return ["champion: none yet"]


def _commit(project: Project) -> bool:
    """Commit what `init` made; in a new repository, the whole generated project."""
    if not lineage.git(project, "rev-parse", "--verify", "HEAD", check=False):
        lineage.git(project, "add", "--all")
    else:
        made = ["parent.dvc", "champion.dvc", "data/incoming.dvc", ".gitignore"]
        made += [".dvc/config", ".dvc/.gitignore", ".dvcignore"]
        lineage.git(project, "add", "--", *(m for m in made if (project.root / m).exists()))
    if not lineage.git(project, "diff", "--cached", "--name-only"):
        return False
    lineage.git(project, "commit", "--quiet", "-m", "Make the project ready for its first update")
    return True
