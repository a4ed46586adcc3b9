"""Plugins as a user might write them."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin


class Counting(SupervisedPlugin):
    """Counts optimizer steps across updates."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


class Forgetful(SupervisedPlugin):
    """Has neither `state_dict` nor `load_state_dict`."""


class Impatient(Counting):
    """Stops after seven steps."""

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        if self.steps == 7:
            strategy.stop_training()
