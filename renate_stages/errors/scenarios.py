"""Errors of scenarios and simulations: settings that do not fit, data that cannot be cut."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from renate_stages.errors.base import RenateStagesError, did_you_mean


class InvalidScenarioError(RenateStagesError):
    """A scenario cannot be built from its arguments, or cannot cut the data.

    Args:
        scenario: Name of the scenario's class.
        problem: What is wrong.
        cure: What the user should do.
    """

    def __init__(self, scenario: str, problem: str, cure: str) -> None:
        super().__init__(f"{scenario}: {problem}.\nTo fix this: {cure}.")


class UnknownScenarioError(RenateStagesError):
    """No scenario has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(
            f"unknown scenario '{name}'{did_you_mean(name, names)}; expected one of "
            f"{', '.join(names)}"
        )


class SimulationChangedError(RenateStagesError):
    """The folder of a run has results of other settings, code or data."""

    def __init__(self, folder: Path, changed: Iterable[str]) -> None:
        super().__init__(
            f"{folder} has results of an earlier simulation that differs in "
            f"{', '.join(changed)}, so that its updates cannot be continued.\n"
            "To fix this: set another `output` in simulate.yaml, or remove the folder."
        )


class SimulationProcessError(RenateStagesError):
    """A process of a simulation was killed, for example because memory ran out."""

    exit_code = 1

    def __init__(self, output: Path) -> None:
        super().__init__(
            f"a process of the simulation was killed, probably because memory ran out. Finished "
            f"updates are in {output}.\n"
            "To fix this: set a smaller number of `processes` in simulate.yaml, and run the command "
            "again; it continues."
        )
