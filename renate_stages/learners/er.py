"""Experience replay: train on new and remembered examples as one batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from renate_stages.data import concatenate
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.components import ReplayLoss
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.replay import own
from renate_stages.learners.base.weighted import WeightedReplay
from renate_stages.memory.spec import IGNORED


class ExperienceReplay(WeightedReplay):
    """ER: each step trains on new and remembered examples as one batch.

        L = mean of l(f(x), y) over the new batch and the replay batch together  (Algorithm 1)

    Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", arXiv:1902.10486, 2019.
    With an empty memory it is fine-tuning. With `replay_weight`, the loss is a weighted sum instead,
    whatever the numbers of examples:

        L = loss_weight * mean l(new) + replay_weight * mean l(memory)

    divided by `loss_weight + replay_weight` if `loss_normalization` is set, as in awslabs/Renate.

    Args:
        context: The model, functions and settings of the update.
        replay_weight: Weight of the loss on remembered examples, >= 0. None: every example of a step
            has the same weight; or 1 if `loss_weight` or `loss_normalization` is set.
        base: Hyperparameters of `WeightedReplay`.
    """

    def __init__(
        self, context: UpdateContext, replay_weight: float | None = None, **base: Any
    ) -> None:
        super().__init__(context, **base)
        if replay_weight is None and (self.loss_weight != 1 or self.loss_normalization):
            replay_weight = 1.0
        self.replay_weight = replay_weight
        if replay_weight is not None:
            self.components.append(ReplayLoss(self, in_range("replay_weight", replay_weight, 0)))

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        if not draws or self.replay_weight is not None:
            return super().total(new, draws)
        (drawn,) = draws
        both = own(new, drawn)
        if self.replay_forward == "separate" or len(both) == 1:
            outputs = concatenate([result.outputs for result in both])
        else:  # the joint pass has returned all outputs in one tensor
            outputs = self._together[-1].outputs
        targets = concatenate([result.batch.targets for result in both], IGNORED)
        batches = new.batch, drawn.batch
        loss = self.weighed(self.loss_of(outputs, targets, *batches), *batches)
        return self.with_components(loss, new, draws)
