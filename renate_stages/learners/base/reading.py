"""`Reading`: the batches of a training, in an order that an interrupted training continues."""

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
    """Reads the batches of a training, in an order that an interrupted training continues.

    Args:
        generators: The update's; `batches` gives the order, `workers` the seeds of processes.
        trainer: Says whether processes or a thread read ahead.
    """

    def __init__(self, generators: Generators, trainer: TrainerSettings) -> None:
        self._generators = generators
        self._trainer = trainer
        self._worker_seeds = generators.torch("workers")
        self._order: torch.Generator | None = None  # None until the first batches are asked for
        self._order_state: Tensor | None = None  # of the training that is continued
        self._loader: StepLoader | None = None

    def loader(self, steps: Steps, rows: EpochRows, device: torch.device) -> StepLoader:
        """Return the steps of one epoch, read ahead where that gains something.

        Args:
            steps: Reads the examples of a step.
            rows: Says which examples each step has.
            device: Where the model is.
        """
        if self._trainer.data_on_device:  # nothing has to be copied
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
        """The generator of the order of batches."""
        if self._order is None:
            self._order = self._generators.torch("batches")
            if self._order_state is not None:
                self._order.set_state(self._order_state)
        return self._order

    def stop(self) -> None:
        """Stop reading ahead; the generators then are where the last step left them.

        Call it before `position`, and when training ends, also with an error.
        """
        if isinstance(self._loader, Ahead):
            self._loader.close()

    def position(self) -> dict[str, Tensor]:
        """Return the states of the generators between two epochs; empty before the first."""
        if self._order is None:
            return {}
        return {"order": self._order.get_state(), "workers": self._worker_seeds.get_state()}

    def continue_from(self, position: Mapping[str, Any]) -> None:
        """Continue from what `position` returned; call it before training."""
        self._order_state = position.get("order")
        if "workers" in position:
            self._worker_seeds.set_state(position["workers"])
