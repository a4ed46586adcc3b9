"""Prepare a project for its first update: `renate-stages init` and `example-data`."""

from __future__ import annotations

import shutil
from pathlib import Path

from renate_stages import files, lineage
from renate_stages.errors import (
    NestedProjectError,
    NotExampleProjectError,
    ParentExistsError,
)
from renate_stages.export.exported import Exported
from renate_stages.params import Params
from renate_stages.project import Project
from renate_stages.state import state

COMMAND = "renate-stages init"
REMOTE = "local"


def initialise(
    project: Project, *, model: Path | None = None, memory: Path | None = None
) -> list[str]:
    """Make Git and DVC ready, and write the state that the first update starts from.

    Safe to repeat, also when it was killed: what is done already stays. Commits what it made.

    Args:
        project: A generated project, or a clone of one; the caller holds its lock.
        model: A state dict to start from; None for the empty state.
        memory: With `model`, a folder of its old data, as `data_module_fn` reads it.

    Returns:
        What was done, a line each; empty when nothing was left to do.

    Raises:
        RenateStagesError: If the project is inside another repository, or `model` is given and
            there is a first state already, or does not fit.
    """
    params = Params.load(project.params)
    before = lineage.read_intent(project)
    again = isinstance(before, lineage.Repeatable) and before.command == COMMAND
    if isinstance(before, lineage.Repeatable) and again and model is None:
        given = before.arguments
        model, memory = (Path(given[n]) if n in given else None for n in ("model", "memory"))
    elif model is not None and (project.parent.exists() or project.parent_pointer.exists()):
        raise ParentExistsError(project.parent)
    _check_place(project)
    lineage.check_git(project)
    asked = {"model": model, "memory": memory}
    given = {name: str(path.resolve()) for name, path in asked.items() if path is not None}
    with lineage.Repeatable(command=COMMAND, arguments=given).kept(project):
        done = _make_repositories(project, again)
        try:
            done += _make_parent(project, params, model, memory)
        except Exception:
            if not project.parent.exists():  # another attempt may be asked for something else
                project.intent.unlink()
            raise
        done += _make_champion(project)
        done += _make_data(project, params, again)
        done += _commit(project)
    return done


def write_example(project: Project, update: int) -> None:
    """Write the example's data of an update into `data/incoming`.

    Raises:
        NotExampleProjectError: If the project has data of its own.
        RenateStagesError: If there is no such update, or the folder holds something else.
    """
    if Params.load(project.params).example is None:
        raise NotExampleProjectError
    from renate_stages.actions.digits import write_digits

    write_digits(project.incoming, update)


def _check_place(project: Project) -> None:
    """Refuse a project inside another Git repository that does not ignore it.

    Raises:
        NestedProjectError: If it is one.
    """
    if (project.root / ".git").exists():
        return
    outer = lineage.git(project, "rev-parse", "--show-toplevel", check=False)
    ignored = lineage.git(project, "check-ignore", str(project.root), check=False)
    if outer and not ignored:
        raise NestedProjectError(project.root, Path(outer))


def _make_repositories(project: Project, again: bool) -> list[str]:
    """Make what is not there yet of Git's and DVC's repositories.

    Args:
        project: Where.
        again: Whether an earlier `init` was interrupted, perhaps in here.
    """
    done = []
    top = lineage.git(project, "rev-parse", "--show-toplevel", check=False)
    if not (project.root / ".git").exists() or not top:
        lineage.git(project, "init", "--quiet", "--initial-branch", "main")
        done.append("git: a new repository")
    settings = project.root / ".dvc" / "config"
    new = not settings.is_file()
    if new and not settings.parent.exists():
        lineage.dvc(project, "init", "--quiet")
    elif new:
        files.write_text(settings, "")
    if new or (again and not lineage.has_remote(project)):
        storage = f"../{project.root.name}-dvc-remote"
        lineage.dvc(project, "remote", "add", "--quiet", "--force", "--default", REMOTE, storage)
        done.append(f"dvc: a new repository, with the remote {storage}")
    if settled := lineage.settle_remote(project):
        done.append(settled)
    return done


def _make_parent(
    project: Project, params: Params, model: Path | None, memory: Path | None
) -> list[str]:
    """Write or fetch the state that the open update starts from, where that is not done."""
    named = lineage.pointer_hash(project)
    if project.parent.is_dir() and named is not None:
        return []
    if params.update.parent:
        lineage.fetch(project, "parent.dvc")
        return [f"parent: the state of update {params.update.parent}, fetched"]
    if not project.parent.is_dir():
        with files.whole_directory(project.parent) as folder:
            if model is None:
                state.write_empty(folder)
            else:
                from renate_stages.actions.import_model import write_imported

                write_imported(folder, project, params, model, memory)
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
    pointer = project.champion_pointer
    if project.champion.is_dir() and pointer.is_file():
        return []
    if pointer.is_file() and lineage.ChampionPointer.read(project).update:
        lineage.fetch(project, pointer.name)
        return [f"champion: {lineage.ChampionPointer.read(project).label}, fetched"]
    if not project.champion.is_dir():
        with files.whole_directory(project.champion) as folder:
            Exported().write(folder)
    lineage.track(project, project.champion)
    return ["champion: none yet"]


def _make_data(project: Project, params: Params, again: bool) -> list[str]:
    """Put the data of the first update under DVC; where the project is an example, write it first.

    Args:
        project: Where.
        params: They say so.
        again: Whether an earlier `init` was interrupted, perhaps in here.
    """
    if params.update.parent:
        return []
    number, pointer = params.update.number, project.incoming.with_name("incoming.dvc")
    if not params.example:
        if not lineage.untracked_data(project):
            return []
        lineage.track(project, project.incoming)
        return ["data/incoming: under DVC"]
    if project.incoming.is_dir():
        from renate_stages.actions.digits import holds_digits

        if not again or pointer.is_file() or not holds_digits(project.incoming, number):
            return []
    else:
        write_example(project, number)
    lineage.track(project, project.incoming)
    return [f"data/incoming: {params.example} of update {number}"]


def _commit(project: Project) -> list[str]:
    """Commit what `init` made; in a new repository, the whole generated project."""
    message = ("commit", "--quiet", "-m", "Make the project ready for its first update")
    if not lineage.git(project, "rev-parse", "--verify", "--quiet", "HEAD", check=False):
        lineage.git(project, "add", "--all")
        lineage.git(project, *message)
        return ["committed"]
    made = ["parent.dvc", "champion.dvc", "data/incoming.dvc", ".gitignore"]
    made += [".dvc/config", ".dvc/.gitignore", ".dvcignore"]
    made = [name for name in made if (project.root / name).exists()]
    lineage.git(project, "add", "--", *made)
    if not lineage.git(project, "diff", "--cached", "--name-only", "--", *made):
        return []
    lineage.git(project, *message, "--", *made)  # what else is staged stays so
    return ["committed"]
