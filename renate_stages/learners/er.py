"""Experience replay: train on new and remembered examples as one batch."""

from __future__ import annotations

from torch import Tensor

from renate_stages.data import concatenate
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.replay import ReplayLearner, own
from renate_stages.memory.spec import IGNORED


class ExperienceReplay(ReplayLearner):
    """ER: each step trains on new and remembered examples as one batch.

        L = mean of l(f(x), y) over the new batch and the replay batch together  (Algorithm 1)

    Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", arXiv:1902.10486, 2019.
    With an empty memory it is fine-tuning.
    """

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        if not draws:
            return super().total(new, draws)
        (drawn,) = draws
        both = own(new, drawn)
        if self.replay_forward == "separate" or len(both) == 1:
            outputs = concatenate([result.outputs for result in both])
        else:  # the joint pass has returned all outputs in one tensor
            (outputs,) = self._together
        targets = concatenate([result.batch.targets for result in both], IGNORED)
        batches = new.batch, drawn.batch
        loss = self.weighed(self.loss_of(outputs, targets, *batches), *batches)
        return self.with_components(loss, new, draws)
