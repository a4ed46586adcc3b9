"""Prepare a project for its first update: `renate-stages init` and `example-data`."""

from __future__ import annotations

import shutil
from pathlib import Path

from renate_stages import files, lineage
from renate_stages.actions import example_data
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
    """Set up Git and DVC, write the state that the first update starts from, and commit.

    Safe to repeat, also after it was killed: only missing steps are taken.

    Args:
        project: A generated project, or a clone of one; the caller holds its lock.
        model: A state dict to start from; None for the empty state.
        memory: With `model`, a folder with its old data that `data_module_fn` can read.

    Returns:
        A line about each step; empty if nothing was left to do.

    Raises:
        NestedProjectError: If the project is inside another repository.
        ParentExistsError: If `model` is given, but the project already has a first state.
        RenateStagesError: If another step fails, for example because the model does not match.
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
            if not project.parent.exists():  # so that the next attempt may use other arguments
                project.intent.unlink()
            raise
        done += _make_champion(project)
        done += _make_data(project, params, again)
        done += _commit(project)
    return done


def write_example(project: Project, update: int | None) -> Path:
    """Write the example data of an update to `data/incoming`, or of all updates to `data/all`.

    Args:
        project: The project.
        update: Number of the update; None: all of them.

    Returns:
        The folder.

    Raises:
        NotExampleProjectError: If the project has its own data.
        UnknownExampleUpdateError: If the example has no such update.
        ForeignDataError: If the folder contains other data.
    """
    example = Params.load(project.params).example
    if example is None:
        raise NotExampleProjectError
    folder = project.incoming if update is not None else project.incoming.with_name("all")
    example_data.write(example, folder, update)
    return folder


def _check_place(project: Project) -> None:
    """Check that the project is not inside another Git repository that does not ignore it.

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
    """Create the Git and DVC repositories if they do not exist.

    Args:
        project: The project.
        again: Whether an earlier `init` was interrupted, possibly in this step.
    """
    done = []
    top = lineage.git(project, "rev-parse", "--show-toplevel", check=False)
    if not (project.root / ".git").exists() or not top:
        lineage.git(project, "init", "--quiet", "--initial-branch", "main")
        done.append("git: created a repository")
    settings = project.root / ".dvc" / "config"
    new = not settings.is_file()
    if new and not settings.parent.exists():
        lineage.dvc(project, "init", "--quiet")
    elif new:
        files.write_text(settings, "")
    if new or (again and not lineage.has_remote(project)):
        storage = f"../{project.root.name}-dvc-remote"
        lineage.dvc(project, "remote", "add", "--quiet", "--force", "--default", REMOTE, storage)
        done.append(f"dvc: created a repository with the remote {storage}")
    if settled := lineage.settle_remote(project):
        done.append(settled)
    return done


def _make_parent(
    project: Project, params: Params, model: Path | None, memory: Path | None
) -> list[str]:
    """Write or fetch the state that the open update starts from, if it is missing."""
    md5 = lineage.pointer_hash(project)
    if project.parent.is_dir() and md5 is not None:
        return []
    if params.update.parent:
        lineage.fetch(project, "parent.dvc")
        return [f"parent: fetched the state of update {params.update.parent}"]
    if not project.parent.is_dir():
        with files.whole_directory(project.parent) as folder:
            if model is None:
                state.write_empty(folder)
            else:
                from renate_stages.actions.import_model import write_imported

                write_imported(folder, project, params, model, memory)
    pointer = project.parent_pointer.read_text("utf-8") if md5 is not None else ""
    lineage.track(project, project.parent, project.parent_pointer)
    if md5 is not None and lineage.pointer_hash(project) != md5:
        # The project started from a model, so its first state is not the empty one.
        files.write_text(project.parent_pointer, pointer)
        shutil.rmtree(project.parent)
        lineage.fetch(project, "parent.dvc")
        return ["parent: fetched the first state of this project"]
    if model is None:
        return ["parent: created the empty state"]
    return [f"parent: created a state from the model {model.name}"]


def _make_champion(project: Project) -> list[str]:
    """Fetch the champion; in a project without one, write an empty `champion/` and its pointer."""
    pointer = project.champion_pointer
    if project.champion.is_dir() and pointer.is_file():
        return []
    if pointer.is_file() and lineage.ChampionPointer.read(project).update:
        lineage.fetch(project, pointer.name)
        return [f"champion: fetched {lineage.ChampionPointer.read(project).label}"]
    if not project.champion.is_dir():
        with files.whole_directory(project.champion) as folder:
            Exported().write(folder)
    lineage.track(project, project.champion)
    return ["champion: none yet"]


def _make_data(project: Project, params: Params, again: bool) -> list[str]:
    """Track the data of the first update with DVC; in an example project, write it first.

    Args:
        project: The project.
        params: Its parameters; `example` names the example data.
        again: Whether an earlier `init` was interrupted, possibly in this step.
    """
    if params.update.parent:
        return []
    number, pointer = params.update.number, project.incoming.with_name("incoming.dvc")
    if not params.example:
        if not project.incoming.is_dir():
            project.incoming.mkdir(parents=True)
            return ["data/incoming: created, for the data of the first update"]
        if not lineage.untracked_data(project):
            return []
        lineage.track(project, project.incoming)
        return ["data/incoming: tracked with DVC"]
    if project.incoming.is_dir():
        whole = again and not pointer.is_file()
        if not whole or not example_data.holds(params.example, project.incoming, number):
            return []
    else:
        write_example(project, number)
    lineage.track(project, project.incoming)
    return [f"data/incoming: wrote the example data of update {number}"]


def _commit(project: Project) -> list[str]:
    """Commit the files that `init` wrote; in a new repository, the whole generated project."""
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
    lineage.git(project, *message, "--", *made)  # other staged files stay staged
    return ["committed"]
