"""Adapt the user's model to Avalanche's calls."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import torch
from avalanche.models import MultiTaskModule
from avalanche.models.base_model import BaseModel
from torch import Tensor, nn

from renate_stages.models import RenateModule
from renate_stages.models.features import backbone_of


class OneTask(nn.Module, BaseModel):
    """A model that returns the outputs of one task.

    Args:
        model: The user's model.
        task_id: The task.
    """

    def __init__(self, model: RenateModule, task_id: str) -> None:
        super().__init__()
        self.model = model
        self.task_id = task_id

    def forward(self, inputs: Any) -> Tensor:
        return self.model(inputs, task_id=self.task_id)

    def get_features(self, inputs: Any) -> Tensor:
        """Return the inputs of the last layer, `(B, F)`."""
        return backbone_of(self.model)(inputs).flatten(1)


class ManyTasks(MultiTaskModule, BaseModel):
    """A model with outputs for each task; a task's label is its index in the model's `task_ids`.

    Args:
        model: The user's model.
    """

    def __init__(self, model: RenateModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, task_labels: Tensor | int | None = None) -> Any:
        """Return outputs `(B, K)`; without task labels, those of every known task by label."""
        if task_labels is None:
            return self.forward_all_tasks(inputs)
        if isinstance(task_labels, int):
            return self.forward_single_task(inputs, task_labels)
        present = torch.unique(task_labels).tolist()
        if len(present) == 1:
            return self.forward_single_task(inputs, present[0])
        of_task = {
            label: self.forward_single_task(inputs[task_labels == label], label)
            for label in present
        }
        width = max(each.shape[1] for each in of_task.values())
        outputs = next(iter(of_task.values())).new_zeros(len(task_labels), width)
        for label, each in of_task.items():
            outputs[task_labels == label, : each.shape[1]] = each
        return outputs

    def forward_single_task(self, x: Any, task_label: int) -> Tensor:
        return self.model(x, task_id=self.model.task_ids[task_label])

    def get_features(self, inputs: Any) -> Tensor:
        """Return the inputs of the last layer, `(B, F)`."""
        return backbone_of(self.model)(inputs).flatten(1)


def as_avalanche_model(model: RenateModule, task_id: str) -> OneTask | ManyTasks:
    """Return the adapter of a model for an Avalanche strategy."""
    if len(model.task_ids) < 2:
        return OneTask(model, task_id)
    many = ManyTasks(model)
    place = model.task_ids.index(task_id)
    many.known_train_tasks_labels = set(range(place))
    return many
