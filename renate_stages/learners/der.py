"""Dark experience replay (Buzzega et al., "Dark Experience for General Continual Learning: a Strong,
Simple Baseline", NeurIPS 2020)."""

from __future__ import annotations

from typing import Any, Literal

from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.components import LogitDistillation, ReplayLoss
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.weighted import WeightedReplay


class DarkExperienceReplay(WeightedReplay):
    """DER: replays the logits that the model gave when an example entered the memory.

        L = l(f(x), y) + alpha * mean((f(x') - z')^2)        (eq. 5)

    Args:
        context: The model, functions and settings of the update.
        alpha: Weight of the logit term, >= 0. The paper uses 0.1 to 1.0.
        replay_forward: The paper's code runs new and remembered examples in separate passes.
        base: Hyperparameters of `WeightedReplay`.
    """

    def __init__(
        self,
        context: UpdateContext,
        alpha: float = 0.3,
        replay_forward: Literal["joint", "separate"] = "separate",
        **base: Any,
    ) -> None:
        super().__init__(context, replay_forward=replay_forward, **base)
        self.components.append(LogitDistillation(in_range("alpha", alpha, 0)))


class DarkExperienceReplayPlusPlus(DarkExperienceReplay):
    """DER++: replays labels too, in a separate draw from memory.

        L = l(f(x), y) + alpha * mean((f(x') - z')^2) + beta * l(f(x''), y'')        (eq. 6)

    where (x', z') and (x'', y'') are independent draws from memory.

    Args:
        context: The model, functions and settings of the update.
        beta: Weight of the label term, >= 0. The paper uses 0.5 to 1.0.
        base: Hyperparameters of `DarkExperienceReplay`.
    """

    def __init__(self, context: UpdateContext, beta: float = 0.5, **base: Any) -> None:
        super().__init__(context, **base)
        self.components.append(ReplayLoss(self, in_range("beta", beta, 0)))
