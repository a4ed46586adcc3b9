"""Errors of scenarios: settings that do not fit, and data that cannot be cut in this way."""

from __future__ import annotations

from collections.abc import Iterable

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
