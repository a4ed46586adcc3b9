"""Complete or undo an interrupted command, or resolve a merge that stopped with conflicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from renate_stages import lineage
from renate_stages.actions import init
from renate_stages.lineage import Recovered, Repeatable
from renate_stages.project import Project

COMMAND = "renate-stages resolve"


def recover(project: Project, say: Callable[[str], None] = print) -> Recovered | None:
    """Complete or undo an interrupted command.

    Args:
        project: The project; the caller holds its lock.
        say: Function that prints a line about each step.

    Returns:
        The result; None if no command was interrupted.

    Raises:
        RenateStagesError: If recovery is not possible yet; the intent file is kept.
    """
    intent = lineage.read_intent(project)
    if intent is not None:
        lineage.drop_index(project)  # the killed command may have left it broken
    if not isinstance(intent, Repeatable):
        return lineage.recover(project)
    if intent.command == init.COMMAND:
        init.initialise(project)
    else:
        take_side(project, "ours" if "ours" in intent.arguments else "theirs", say)
    return Recovered(intent.command, completed=True)


def take_side(
    project: Project, side: Literal["ours", "theirs"], say: Callable[[str], None] = print
) -> list[str]:
    """Take the files that commands and stages wrote from one side of a merge.

    See `lineage.take_side`.

    Args:
        project: The project; the caller holds its lock.
        side: `ours` or `theirs`.
        say: Function that prints a line about each step.

    Returns:
        The files that are still in conflict.
    """
    lineage.check_conflict(project)
    command = Repeatable(command=f"{COMMAND} --{side}", arguments={side: ""})
    with command.kept(project):
        return lineage.take_side(project, side, say)
