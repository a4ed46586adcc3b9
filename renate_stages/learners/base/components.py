"""Loss components from which learners compose their losses."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from renate_stages.data import Batch
from renate_stages.data.ranks import summed
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.averaging import averaged_copy
from renate_stages.learners.base.learner import Learner
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.tasks.regression import squared_distance


class ReplayLoss(LossComponent):
    """The user's loss on remembered examples.

    Args:
        learner: The learner that calls the user's loss.
        weight: Factor of the term, >= 0.
        own_draw: See `LossComponent`.
    """

    def __init__(self, learner: Learner, weight: float = 1.0, own_draw: bool = True) -> None:
        super().__init__(weight, own_draw)
        self._loss_of = learner.loss_of

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        assert memory is not None
        return self._loss_of(memory.outputs, memory.batch.targets, memory.batch)


class LogitDistillation(LossComponent):
    """Squared distance to the logits stored with remembered examples.

        mean over examples and classes of (f(x') - z')^2

    Buzzega et al., "Dark Experience for General Continual Learning", NeurIPS 2020, eq. 5. Classes
    that the model did not have when an example was stored are left out for that example.
    """

    memory_fields: ClassVar = ("logits",)

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        assert memory is not None
        return distance_to_kept(memory.outputs, memory.batch.fields["logits"], memory.batch)

    def remember(self, passed: ForwardResult) -> dict[str, Tensor]:
        return {"logits": passed.outputs.detach().float()}


class FeatureDistillation(LossComponent):
    """Squared distance to the features stored with remembered examples.

        mean over examples and features of (h(x') - h')^2

    Used by relatives of LUCIR and iCaRL, and in Iscen et al., "Memory-Efficient Incremental
    Learning Through Feature Adaptation", ECCV 2020, eq. 3. The features are the outputs of the
    model's submodule `features`.
    """

    memory_fields: ClassVar = ("features",)
    needs_features = True

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        assert memory is not None and memory.features is not None
        return distance_to_kept(memory.features, memory.batch.fields["features"], memory.batch)

    def remember(self, passed: ForwardResult) -> dict[str, Tensor]:
        assert passed.features is not None
        return {"features": passed.features.detach().float()}


class AveragedTeacher(nn.Module):
    """A moving average of the model, updated after random steps, in evaluation mode.

    Args:
        decay: Largest weight of the previous average, in [0, 1).
        probability: Probability that a step updates the average, in [0, 1].
        name: Name of its random generator, and prefix of its hyperparameters in messages.
    """

    def __init__(self, decay: float, probability: float, name: str) -> None:
        super().__init__()
        self.decay = in_range(f"{name}_decay", decay, 0, 1, below=True)
        self.probability = in_range(f"{name}_probability", probability, 0, 1)
        self.name = name
        self.average: AveragedModel | None = None
        self.draws: Tensor

    def start_update(self, learner: Learner) -> None:
        """Start the average as a copy of the model."""
        self.average = averaged_copy(learner.model, self.decay)
        self.register_buffer("draws", learner.context.generators.torch(self.name).get_state())

    def after_step(self, learner: Learner) -> None:
        """Update the average with the configured probability."""
        assert self.average is not None
        generator = torch.Generator()
        generator.set_state(self.draws.cpu())
        follows = torch.rand((), generator=generator) < self.probability
        self.draws.copy_(generator.get_state())
        self.average.n_averaged += not follows  # counts every step, even if it does not update
        if follows:
            self.average.update_parameters(learner.model)

    @torch.no_grad()
    def forward(self, learner: Learner, inputs: object) -> Tensor:
        """Return the average's outputs."""
        assert self.average is not None
        return self.average.module(inputs, task_id=learner.context.task_id)


class Reinitialisation(LossComponent):
    """Resets the model to newly built weights at each update; adds nothing to the loss."""

    replays = False
    starts_anew = True

    def __init__(self) -> None:
        super().__init__(weight=0)

    def start_update(self, learner: Learner) -> None:
        learner.model.load_state_dict(dict(learner.context.start.untrained))


def distance_to_kept(outputs: Tensor, kept: Tensor, batch: Batch) -> Tensor:
    """Return `squared_distance` to values of a batch's examples, some of which may be missing.

    If several processes share the batch, their weighted mean (see `share`) is the mean over all
    known values, even if the processes have different numbers of them.

    Args:
        outputs: `(B, K)`, any float dtype.
        kept: Stored or computed values, `(B, K)` float; NaN where a value is missing.
        batch: The examples.
    """
    if batch.whole is None:
        return squared_distance(outputs, kept)
    known = ~kept.isnan()
    number = known.sum() * (not batch.is_placeholder)
    distance = torch.where(known, outputs.float() - kept, outputs.new_zeros(())) ** 2
    mean_known = summed(number).clamp(min=1) / len(batch.whole)  # per example
    return distance.sum() / (mean_known * max(1, len(batch)))
