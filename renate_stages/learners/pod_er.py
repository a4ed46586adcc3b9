"""Pooled outputs distillation (Douillard et al., "PODNet: Pooled Outputs Distillation for Small-Tasks
Incremental Learning", ECCV 2020)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.errors import ModelMismatchError
from renate_stages.learners.base.arguments import in_range, one_of
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.learners.er import ExperienceReplay

SMALL = 1e-2  # length of a change, relative to the outputs, below which its gradient shrinks
POOLINGS = ("pixel", "channel", "width", "height", "gap", "spatial")


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
        found = [pooled(layer, self.pooling) for layer in passed.layers]
        return [F.normalize(each, dim=1) for each in found] if self.normalize else found


def distance(now: Tensor, kept: Tensor) -> Tensor:
    """Return the distance of each row, `(B,)`, rounded off near 0.

        sqrt(||now - kept||^2 + e^2) - e,   e = SMALL ||kept||

    The gradient of the distance itself has length 1 even if rounding alone makes it differ from 0,
    as in the first step of an update, when the model is still the one that the outputs are from.

    Args:
        now: `(B, P)`, float32.
        kept: `(B, P)`, float32.
    """
    small = (SMALL * torch.linalg.vector_norm(kept, dim=1)).clamp(min=1e-12)
    return ((now - kept).square().sum(1) + small.square()).sqrt() - small


def pooled(outputs: Tensor, pooling: str) -> Tensor:
    """Return the squared outputs of a layer, summed as in the paper's section 3.1, `(B, P)` float32.

    Args:
        outputs: `(B, C, H, W)`, or `(B, F)`, whose squares are returned for any pooling.
        pooling: `pixel`: all values; `channel`, `height`, `width`: sums over this dimension; `gap`:
            means over height and width; `spatial`: those of `width` and `height` together.

    Raises:
        ModelMismatchError: If the outputs have another number of dimensions.
    """
    if outputs.ndim not in (2, 4):
        raise ModelMismatchError(
            f"POD-ER takes outputs (B, F) or (B, C, H, W) of a layer, found {tuple(outputs.shape)}",
            "hook layers with such outputs in model_fn",
        )
    squares = outputs.float().square()
    if outputs.ndim == 2 or pooling == "pixel":
        return squares.flatten(1)
    if pooling == "gap":
        return squares.mean((2, 3))
    if pooling == "spatial":
        return torch.cat([squares.sum(3).flatten(1), squares.sum(2).flatten(1)], dim=1)
    return squares.sum({"channel": 1, "height": 2, "width": 3}[pooling]).flatten(1)


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
