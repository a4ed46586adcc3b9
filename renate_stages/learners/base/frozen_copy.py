"""`FrozenCopy`: the parent's model as a teacher, which the training does not change."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from renate_stages.models import RenateModule
from renate_stages.models.features import backbone_of


class Representation(NamedTuple):
    """What a model computes for a batch before its last layer.

    Args:
        features: The inputs of the last layer, `(B, F)`.
        layers: Outputs of the model's hooked layers, `(B, ...)` each.
    """

    features: Tensor
    layers: tuple[Tensor, ...] = ()


class FrozenCopy(nn.Module):
    """A frozen copy of a model, always in evaluation mode."""

    def __init__(self, model: RenateModule) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenCopy:
        return super().train(False)

    @torch.no_grad()
    def forward(self, inputs: Any, task_id: str) -> Any:
        """Return the copy's outputs."""
        return self.model(inputs, task_id=task_id)

    def representation(self, inputs: Any, task_id: str) -> Representation:
        """Return the copy's features, and the outputs of the layers that were hooked before copying.

        Raises:
            ModelMismatchError: If the model has no submodule `features`.
        """
        kept: list[Tensor] = []
        hook = backbone_of(self.model).register_forward_hook(lambda *given: kept.append(given[-1]))
        try:
            self(inputs, task_id)
        finally:
            hook.remove()
        layers = tuple(self.model.get_intermediate_representation())
        self.model.reset_intermediate_representation_cache()
        return Representation(kept[-1].flatten(1), layers)
