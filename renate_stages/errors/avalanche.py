"""Learners of Avalanche: what they cannot keep, and what they cannot do."""

from __future__ import annotations

from renate_stages.errors.base import RenateStagesError


class AvalancheStateError(RenateStagesError):
    """What a strategy keeps between updates cannot be stored, or put back."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"{problem}.\nTo mend it: {cure}.")


class AvalancheRefusedError(RenateStagesError):
    """A setting that a strategy of Avalanche would pass over in silence, or do wrong."""

    def __init__(self, learner: str, setting: str, reason: str, cure: str) -> None:
        super().__init__(f"{learner} cannot be run with {setting}: {reason}.\nTo mend it: {cure}.")
