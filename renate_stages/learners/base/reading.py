"""`Reading`: load the batches of a training in a reproducible, resumable order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from renate_stages.data.ahead import Ahead
from renate_stages.data.loading import StepLoader, step_loader
from renate_stages.data.steps import EpochRows, Steps
from renate_stages.learners.base.context import TrainerSettings
from renate_stages.randomness import Generators


class Reading:
    """Loads the batches of a training in an order that a resumed training continues.

    Args:
        generators: The update's random generators; `batches` determines the order, `workers` the
            seeds of worker processes.
        trainer: Settings, including whether worker processes or a thread load batches in advance.
    """

    def __init__(self, generators: Generators, trainer: TrainerSettings) -> None:
        self._generators = generators
        self._trainer = trainer
        self._worker_seeds = generators.torch("workers")
        self._order: torch.Generator | None = None  # None until the first batches are requested
        self._order_state: Tensor | None = None  # of the training to resume
        self._loader: StepLoader | None = None

    def loader(self, steps: Steps, rows: EpochRows, device: torch.device) -> StepLoader:
        """Return the steps of one epoch, loaded in advance if that makes training faster.

        Args:
            steps: Reads the examples of a step.
            rows: Rows of each step.
            device: Device of the model.
        """
        if self._trainer.data_on_device:  # the data needs no copying, so prefetching gains nothing
            self._loader = step_loader(steps, rows, self._worker_seeds)
        else:
            prefetch = self._trainer.prefetch
            if prefetch is None:
                prefetch = 2 if device.type == "cuda" else 0
            self._loader = step_loader(
                steps,
                rows,
                self._worker_seeds,
                num_workers=self._trainer.num_workers,
                prefetch=prefetch,
                device=device,
            )
        return self._loader

    @property
    def order(self) -> torch.Generator:
        """The random generator for the order of batches."""
        if self._order is None:
            self._order = self._generators.torch("batches")
            if self._order_state is not None:
                self._order.set_state(self._order_state)
        return self._order

    def stop(self) -> None:
        """Stop loading in advance, and reset the generators to their state after the last step.

        Call this before `position`, and when training ends or fails.
        """
        if isinstance(self._loader, Ahead):
            self._loader.close()

    def position(self) -> dict[str, Tensor]:
        """Return the states of the generators between two epochs; {} before the first epoch."""
        if self._order is None:
            return {}
        return {"order": self._order.get_state(), "workers": self._worker_seeds.get_state()}

    def continue_from(self, position: Mapping[str, Any]) -> None:
        """Continue from what `position` returned; call it before training."""
        self._order_state = position.get("order")
        if "workers" in position:
            self._worker_seeds.set_state(position["workers"])
