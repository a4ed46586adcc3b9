"""Pooled outputs distillation (Douillard et al., "PODNet: Pooled Outputs Distillation for Small-Tasks
Incremental Learning", ECCV 2020)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from renate_stages.learners.base.arguments import in_range, one_of
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.learners.base.pooled_outputs import POOLINGS, distance, pooled
from renate_stages.learners.er import ExperienceReplay


class PooledOutputDistillation(LossComponent):
    """Distance of pooled outputs of layers from those stored with remembered examples.

        mean over layers and examples of ||p(h(x')) - p(h')||_2

    Args:
        weight: Factor of the term, >= 0.
        pooling: What p sums over, see `pooled`.
        normalize: Whether p scales its result to length 1.
        own_draw: See `LossComponent`.
    """

    memory_fields: ClassVar = ("pooled",)
    needs_layers = True

    def __init__(
        self, weight: float, pooling: str, normalize: bool = True, own_draw: bool = True
    ) -> None:
        super().__init__(weight, own_draw)
        self.pooling, self.normalize = pooling, normalize

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        assert memory is not None
        now = self._pooled(memory)
        kept = memory.batch.fields["pooled"].split([each.shape[1] for each in now], dim=1)
        distances = [distance(*each).mean() for each in zip(now, kept, strict=True)]
        return torch.stack(distances).mean()

    def remember(self, passed: ForwardResult) -> dict[str, Tensor]:
        return {"pooled": torch.cat(self._pooled(passed), dim=1).detach()}

    def _pooled(self, passed: ForwardResult) -> list[Tensor]:
        return [pooled(layer, self.pooling, self.normalize) for layer in passed.layers]


class PODER(ExperienceReplay):
    """POD-ER: experience replay with distillation of the pooled outputs of layers.

        L = mean of l over new and remembered examples + alpha * POD

    The pooled outputs are stored with each example, for the layers that you hook with
    `register_intermediate_representation_caching_hook`. Without hooks these are the model's
    `layers_to_distil`: the last layer of each stage of a reference model.

    Args:
        context: The model, functions and settings of the update.
        alpha: Weight of the distillation, >= 0.
        distillation_type: How outputs `(B, C, H, W)` are pooled: `spatial`, `width`, `height`,
            `channel`, `gap` or `pixel`. Outputs `(B, F)` are not pooled.
        normalize: Whether the pooled outputs of each layer are scaled to length 1.
        base: Hyperparameters of `ReplayLearner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        alpha: float = 1.0,
        distillation_type: Literal[
            "spatial", "width", "height", "channel", "gap", "pixel"
        ] = "spatial",
        normalize: bool = True,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        self.components.append(
            PooledOutputDistillation(
                in_range("alpha", alpha, 0),
                one_of("distillation_type", distillation_type, POOLINGS),
                bool(normalize),
                own_draw=False,
            )
        )
