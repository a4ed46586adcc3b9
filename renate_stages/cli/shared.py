"""Code that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from renate_stages.project import Project


@contextmanager
def changing(command: str) -> Iterator[Project]:
    """Lock the project for a command that changes the lineage; first recover an interrupted one."""
    from renate_stages import lineage
    from renate_stages.actions import resolve as action

    project = Project.find()
    with project.lock(command, recovers=True):
        if done := action.recover(project):
            print(done)
            if done.completed and done.command.split()[1] == command:
                raise typer.Exit  # the interrupted command was this one, and it is complete now
        if command != "init" and (settled := lineage.settle_remote(project)):
            print(settled)
        yield project


def update_number(name: str) -> int:
    """Return the number of an update that is named update-K or K."""
    from renate_stages.lineage.records import NUMBER

    digits = name.removeprefix("update-")
    if not NUMBER.fullmatch(digits):
        raise typer.BadParameter(f"expected update-K, for example update-2; found {name!r}")
    return int(digits)
