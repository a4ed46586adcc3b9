"""Commands for the champion: gate, promote, demote, champion, publish."""

from __future__ import annotations

import hashlib
from typing import Annotated

import typer

from renate_stages.cli.shared import changing, update_number
from renate_stages.project import Project


def gate() -> None:
    """Print the gate's verdict: exit code 0 if the update passed, 1 if refused, 3 if not judged."""
    from renate_stages import lineage
    from renate_stages.errors import ForeignVerdictError, StaleVerdictError
    from renate_stages.gate import verdict
    from renate_stages.params import Params

    project = Project.find()
    result = verdict.Verdict.read(project.verdict)
    number = Params.load(project.params).update.number
    if result.update != number:
        raise StaleVerdictError(result.update, number)
    written = lineage.verdict_hash(lineage.lock_text(project))
    if written not in (None, hashlib.md5(project.verdict.read_bytes()).hexdigest()):
        raise ForeignVerdictError
    print(result.headline)
    if result.problem:
        print(result.problem)
    rows = [result.columns, *result.table()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if result.rules else []:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(cells)}".rstrip())
    if not result.passed:
        raise typer.Exit(1 if result.refused else 3)


def promote(
    update: Annotated[
        str | None,
        typer.Argument(metavar="[update-K]", help="a tagged update (default: the open one)"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="even if the gate refused it")] = False,
) -> None:
    """Make a committed update the champion: write champion.dvc, commit it, move the aliases."""
    from renate_stages.actions import promote as action

    with changing("promote") as project:
        moved = action.promote(project, update_number(update) if update else None, force=force)
    if moved is None:
        print("this update is already the champion")
        return
    print(f"{moved.now.label} is the champion; before: {moved.before.label}")
    print("next: `git push`; to undo this: `renate-stages demote`")


def demote() -> None:
    """Bring back the previous champion: write champion.dvc, commit it, move the aliases."""
    from renate_stages.actions import promote as action

    with changing("demote") as project:
        moved = action.demote(project)
    print(
        f"{moved.before.label} is no longer the champion; the champion is {moved.now.label} again"
    )


def champion() -> None:
    """Print which update is the champion, since when, and its metrics."""
    from renate_stages.actions import promote as action

    rows = action.champion_status(Project.find())
    width = max(len(name) for name, _ in rows) + 1
    for name, value in rows:
        print(f"{name + ':':<{width}} {value}")


def publish() -> None:
    """Publish the finished update to MLflow: run, curves, plots, model version. Safe to repeat."""
    from renate_stages.actions import publish as action
    from renate_stages.params import Params

    project = Project.find()
    with project.lock("publish"):
        action.publish(project, Params.load(project.params))
