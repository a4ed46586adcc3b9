"""Asymmetric cross-entropy (Caccia et al., "New Insights on Reducing Abrupt Representation Change in
Online Continual Learning", ICLR 2022)."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from renate_stages.data.ranks import gathered
from renate_stages.learners.base.components import ReplayLoss
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.masking import mask_classes
from renate_stages.learners.base.replay import ReplayLearner


class ERACE(ReplayLearner):
    """ER-ACE: new examples compete among the classes of their batch only, remembered ones among all.

        L = l(f(x'), y'; classes old and current) + l(f(x), y; classes of this batch)     (eq. 4)

    So new classes do not push the old ones' outputs and representations away. The new batch is
    masked as long as there is something to replay; without, a step is one of fine-tuning.

    New classes meet the old ones only in replayed examples, so the memory has to take new examples
    in while it trains: updated at the `end`, new examples would all be taken for old classes.

    Args:
        context: What the update gives.
        memory_update: `online`, as in the paper's Algorithm 1; see above.
        replay_forward: The paper's code takes new and remembered examples one after the other.
        base: Hyperparameters of `ReplayLearner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        memory_update: Literal["end", "online"] = "online",
        replay_forward: Literal["joint", "separate"] = "separate",
        **base: Any,
    ) -> None:
        super().__init__(
            context, memory_update=memory_update, replay_forward=replay_forward, **base
        )
        self.components.append(ReplayLoss(self))

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        if draws and self.context.start.old_classes:
            met = gathered(new.batch.targets, len(new.batch.all_rows)).unique()
            new = new._replace(outputs=mask_classes(new.outputs, met))
        return super().total(new, draws)
