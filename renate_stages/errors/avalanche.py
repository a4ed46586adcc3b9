"""Errors of Avalanche's learners: unsupported settings and state that cannot be stored."""

from __future__ import annotations

from renate_stages.errors.base import RenateStagesError


class AvalancheStateError(RenateStagesError):
    """The state of an Avalanche strategy cannot be stored or restored."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"{problem}.\nTo fix this: {cure}.")


class AvalancheRefusedError(RenateStagesError):
    """An Avalanche strategy would ignore this setting or apply it wrongly."""

    def __init__(self, learner: str, setting: str, reason: str, cure: str) -> None:
        super().__init__(f"{learner} does not support {setting}: {reason}.\nTo fix this: {cure}.")
