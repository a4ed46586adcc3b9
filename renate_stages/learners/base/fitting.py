"""`Fitting`: what a learner does for Lightning's `fit`: optimizers, compiling, data on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from renate_stages.data import StoredDataset
from renate_stages.data.ranks import ranks
from renate_stages.data.resident import copy_to_device, drop_copies
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.training_step import TrainingStep
from renate_stages.models.joint_statistics import JointStatistics


class Fitting(TrainingStep):
    """Builds optimizers, and prepares model and data before `fit` and releases them after it.

    Args:
        context: The model, functions and settings that the update passes to the learner.
        mask_unused_classes: As in `TrainingStep`.
    """

    def __init__(self, context: UpdateContext, mask_unused_classes: bool = False) -> None:
        super().__init__(context, mask_unused_classes)
        self.optimizers_in_use: list[torch.optim.Optimizer] = []

    @property
    def datasets(self) -> Sequence[StoredDataset]:
        """The datasets that training reads; `trainer.data_on_device` moves them to the device."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        if self.context.trainer.data_on_device:
            copy_to_device(self.datasets, self.device)
        self._prepare_model()

    def on_fit_end(self) -> None:
        drop_copies(self.datasets)
        self._release_model()

    def begin_phase(self) -> None:
        """Train `trained_model` with a new optimizer and schedule from here on.

        A learner that trains several models one after the other calls it between two epochs.
        """
        self._release_model()
        self._prepare_model()
        self.trainer.strategy.setup_optimizers(self.trainer)

    def _prepare_model(self) -> None:
        if self.context.trainer.compile:
            self._compiled[:] = [compiled(self.trained_model)]
        if ranks().count > 1:
            self._statistics = JointStatistics(self.trained_model)

    def _release_model(self) -> None:
        self._compiled.clear()
        if self._statistics is not None:
            self._statistics.end()
            self._statistics = None

    def configure_optimizers(self) -> Any:
        """Build optimizer and scheduler for the parameters of this update's task."""
        built = self.context.functions.optimizers(self.trained_parameters())
        self.optimizers_in_use[:] = built[0] if isinstance(built, tuple) else [built]
        return built

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that this update trains: those of its task, without frozen ones."""
        parameters = self.trained_model.get_params(self.context.task_id)
        return [parameter for parameter in parameters if parameter.requires_grad]


def compiled(model: nn.Module) -> Any:
    """Return a compiled model that shares the tensors of the given one."""
    torch.compiler.reset()  # a graph of an earlier training would not call this one's hooks
    return torch.compile(model)
