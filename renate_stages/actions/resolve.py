"""Going on after an interrupted command, or after a merge that Git could not finish."""

from __future__ import annotations

from renate_stages import lineage, start
from renate_stages.lineage import Recovered
from renate_stages.project import Project


def recover(project: Project) -> Recovered | None:
    """Complete or take back the command that was interrupted, if one was.

    Args:
        project: The caller holds its lock.

    Returns:
        What became of it.

    Raises:
        RenateStagesError: If that cannot be done yet; what is left stays as it is.
    """
    if start.Unfinished.read(project) is not None:
        start.initialise(project)
        return Recovered(start.COMMAND, completed=True)
    return lineage.recover(project)
