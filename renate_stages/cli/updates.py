"""Commands for updates: open, close, show, verify, repair."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from renate_stages.cli.shared import changing, update_number
from renate_stages.errors import MissingFileError
from renate_stages.errors.wording import counted
from renate_stages.project import Project


def init(
    model: Annotated[
        Path | None,
        typer.Option(help="start from this model: a state dict (torch or safetensors)"),
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option(help="with --model: a folder with its old data, as data_module_fn reads it"),
    ] = None,
) -> None:
    """Prepare the project for its first update: Git, DVC, the first state. Safe to repeat."""
    from renate_stages.actions import init as action

    with changing("init") as project:
        done = action.initialise(project, model=model, memory=memory)
    for line in done or ["nothing to do: the project is ready"]:
        print(line)
    print("next: put new data in data/incoming, `dvc add data/incoming`, `dvc repro`")


def next_update(
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="update-K", help="fork: start from an earlier update"),
    ] = None,
) -> None:
    """Close the finished update and open the next one: tag, parent.dvc, number, commit."""
    from renate_stages import lineage
    from renate_stages.actions import promote as action
    from renate_stages.params import Params

    with changing("next") as project:
        if start is None:
            if promotion := action.promote_where_asked(project):
                print(promotion)
            closed = Params.load(project.params).update.number
            number = lineage.open_next(project)
            print(f"tagged update-{closed}; update {number} is open and starts from it")
        else:
            number = lineage.open_from(project, update_number(start))
            print(f"update {number} is open on its own branch and starts from {start}")
    print(
        f"next: put the data of update {number} in data/incoming, then run `dvc add data/incoming` "
        "and `dvc repro`. The folder still has the previous update's files, which may be links to "
        "DVC's cache: replace them, do not write into them"
    )


def status() -> None:
    """Show the project's update, parent, champion, uncommitted changes and what to run next."""
    from renate_stages import lineage
    from renate_stages.gate.verdict import Verdict

    project = Project.find()
    if command := project.interrupted:
        print(f"interrupted: `{command}` has not finished")
        print("next:        `renate-stages resolve` undoes or completes it")
        return
    lines = list(lineage.status(project).items())
    if project.verdict.is_file():
        verdict = Verdict.read(project.verdict)
        if ("update", str(verdict.update)) in lines:
            lines.insert(-1, ("gate", verdict.headline))
    for name, value in lines:
        print(f"{name + ':':<10} {value}")


def verify(
    deep: Annotated[
        bool, typer.Option("--deep", help="also read every file and check its hash in Git")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="restore files that differ, from DVC's cache or remote")
    ] = False,
) -> None:
    """Check the chain of hashes of all tagged updates, and the champion; --deep: also the files."""
    from renate_stages import lineage
    from renate_stages.state import state

    project = Project.find()
    if repair:
        with project.lock("verify --repair"):
            lineage.repair(project)
    if deep or repair:
        for folder in lineage.folders_to_verify(project):
            if lineage.check(project, folder, deep=True):
                print(f"{project.relative(folder)}/: every file matches its hash in Git")
            if folder in (project.parent, project.state):
                state.check(folder)
                print(f"{project.relative(folder)}/: every file matches the manifest")
    checked, problems = lineage.verify(project)
    for problem in problems:
        print(f"broken: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)
    print(f"{counted(checked, 'tagged update')}: each starts from the state its parent wrote")
    if project.champion_pointer.is_file():
        pointer = lineage.ChampionPointer.read(project)
        if pointer.update:
            print(f"champion: {pointer.label}, committed, and its files are available")


def resolve(
    ours: Annotated[
        bool, typer.Option("--ours", help="in a merge: keep the version of your branch")
    ] = False,
    theirs: Annotated[
        bool, typer.Option("--theirs", help="in a merge: keep the version that is being merged")
    ] = False,
) -> None:
    """Undo or complete an interrupted command, or resolve a merge of two clones' updates."""
    from renate_stages.actions import resolve as action

    if ours and theirs:
        raise typer.BadParameter("--ours and --theirs are mutually exclusive; give one")
    project = Project.find()
    with project.lock("resolve", recovers=True):
        if done := action.recover(project):
            print(done)
        if not (ours or theirs):
            if not done:
                print("no command was interrupted; to resolve a merge, give --ours or --theirs")
            return
        left = action.take_side(project, "ours" if ours else "theirs")
    if left:
        print(f"still in conflict: {', '.join(left)}")
        print("next: resolve these, `git add` them, `git commit`, `dvc checkout`")
    else:
        print("next: `git commit`, `dvc checkout` (or `dvc pull`), `renate-stages verify --deep`")


def should_update() -> None:
    """Print whether the prepared data needs an update, and why: exit code 0 if so, 1 if not."""
    import time

    from renate_stages import lineage
    from renate_stages.errors import StaleDataMetricsError, UnpreparedDataError
    from renate_stages.params import Params
    from renate_stages.shift.data_metrics import DataMetrics
    from renate_stages.shift.decision import decide

    project = Project.find()
    params = Params.load(project.params)
    where, number = project.data_metrics, params.update.number
    if not where.is_file():
        raise MissingFileError(where, "`prepare` has not run", "run `dvc repro prepare`")
    data = DataMetrics.read(where)
    if data.update != number:
        raise StaleDataMetricsError(where, number)
    if lineage.is_prepared(project) is False:
        raise UnpreparedDataError(project.relative(where))
    if lineage.is_trained(project):
        print(f"update {number} is trained on this data already, so a further one is not needed")
        raise typer.Exit(1)
    made = lineage.committed_at(project, params.update.parent) if params.update.parent else None
    decision = decide(params, data, None if made is None else (time.time() - made) / 86400)
    for ruling in decision.rulings:
        print(ruling)
    print(f"update {number}: {'needed' if decision.update else 'not needed'}")
    if not decision.update:
        raise typer.Exit(1)


def example_data(
    update: Annotated[str, typer.Argument(help="the number of an update, 1 to 3; or all of them")],
) -> None:
    """Write the example data of an update to data/incoming, or all of it to data/all."""
    from renate_stages.actions import init as action

    if update != "all" and not update.isdecimal():
        raise typer.BadParameter(f"expected the number of an update, or all; found {update!r}")
    project = Project.find()
    folder = project.relative(
        action.write_example(project, None if update == "all" else int(update))
    )
    if update == "all":
        print(f"{folder} contains the data of all updates; next: `renate-stages simulate`")
    else:
        print(f"{folder} contains the data of update {update}; next: `dvc add {folder}`")


def learners() -> None:
    """List the learners: what each one does, what it needs, and its cost per step."""
    from renate_stages.learners import registry

    print(registry.table())
