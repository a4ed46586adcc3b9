"""`WeightedReplay`: the base class of replay learners that weight the loss on new examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from renate_stages.learners.base.arguments import in_range, one_of
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.replay import ReplayLearner


class WeightedReplay(ReplayLearner):
    """Weights the loss on new examples, and can divide the loss of a step by all weights.

        L = loss_weight * mean l(new) + sum of weight_i * term_i
        L = the same / (loss_weight + sum of weight_i)             with `loss_normalization`

    where the terms are those of the components that replay. Without a draw from the memory, it is
    `loss_weight * mean l(new)`. These are the losses of awslabs/Renate.

    Args:
        context: The model, functions and settings of the update.
        loss_weight: Weight of the loss on new examples, >= 0.
        loss_normalization: Whether to divide the loss of a step with replay by the sum of the
            weights.
        base: Hyperparameters of `ReplayLearner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        loss_weight: float = 1.0,
        loss_normalization: bool = False,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        self.loss_weight = in_range("loss_weight", loss_weight, 0)
        chosen = one_of("loss_normalization", loss_normalization, (False, True))
        self.loss_normalization = bool(chosen)

    def with_components(
        self, loss: Tensor, new: ForwardResult, draws: Sequence[ForwardResult] | None
    ) -> Tensor:
        """Add the terms of all active components to `loss_weight` times a loss."""
        if self.loss_weight != 1:
            loss = self.loss_weight * loss
        loss = super().with_components(loss, new, draws)
        if not (self.loss_normalization and draws):
            return loss
        weights = self.loss_weight + sum(part.weight for part in self.active if part.replays)
        return loss / weights if weights else loss
