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
    """ER-ACE: the softmax of new examples covers their batch's classes, that of replay all classes.

        L = l(f(x'), y'; classes old and current) + l(f(x), y; classes of this batch)     (eq. 4)

    So the loss on new classes does not change the outputs and representations of old ones. The new
    batch is masked only if there is something to replay; otherwise a step is fine-tuning.

    Only replayed examples compare new classes with old ones, so new examples must enter the memory
    during training. With `memory_update: end`, the model would predict old classes for new ones.

    Args:
        context: The model, functions and settings of the update.
        memory_update: `online` as in the paper's Algorithm 1; see above.
        replay_forward: The paper's code runs new and remembered examples in separate passes.
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
        context.require_labels("ER-ACE")
        self.components.append(ReplayLoss(self))

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        if draws and self.context.start.old_classes:
            met = gathered(new.batch.targets, len(new.batch.all_rows)).unique()
            new = new._replace(outputs=mask_classes(new.outputs, met))
        return super().total(new, draws)
