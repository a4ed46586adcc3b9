"""Complementary learning systems (Arani et al., "Learning Fast, Learning Slow: A General Continual
Learning Method based on Complementary Learning System", ICLR 2022)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.errors import ClassLabelsNeededError, InvalidHyperparameterError
from renate_stages.learners.base import Learner
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.components import AveragedTeacher
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.learners.er import ExperienceReplay


class TeacherConsistency(LossComponent):
    """Squared distance on remembered examples to the more confident of two averaged teachers.

        mean of (f(x') - z)^2        (eq. 2, Algorithm 1)

    where z is the stable teacher's output if that teacher gives the true class the higher
    probability, and the plastic teacher's output otherwise.

    Args:
        weight: Factor of the term, >= 0.
        stable: The slower teacher.
        plastic: The faster teacher.
    """

    survives = True
    follows_steps = True

    def __init__(self, weight: float, stable: AveragedTeacher, plastic: AveragedTeacher) -> None:
        super().__init__(weight, own_draw=False)
        self.stable, self.plastic = stable, plastic
        self._learner: list[
            Learner
        ] = []  # in a list, so that the learner is not registered as a submodule

    def start_update(self, learner: Learner) -> None:
        self._learner[:] = [learner]
        self.stable.start_update(learner)
        self.plastic.start_update(learner)

    def after_step(self, learner: Learner) -> None:
        self.stable.after_step(learner)
        self.plastic.after_step(learner)

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        assert memory is not None
        batch, (learner,) = memory.batch, self._learner
        stable = self.stable(learner, batch.inputs).float()
        plastic = self.plastic(learner, batch.inputs).float()
        stable_true, plastic_true = (
            learner.context.task.true_probability(each, batch.targets) for each in (stable, plastic)
        )
        surer = (stable_true > plastic_true).reshape(-1, *[1] * (stable.ndim - 1))
        return F.mse_loss(memory.outputs.float(), torch.where(surer, stable, plastic))


class CLSER(ExperienceReplay):
    """CLS-ER: experience replay with distillation from a slow and a fast average of the model.

        L = mean of l over new and remembered examples + weight * consistency        (eq. 3)

    The update's result is the trained model, as in awslabs/Renate. The paper's section 4 predicts with
    the stable teacher, but that learns next to nothing in an update of much fewer than
    1 / (1 - stable_decay) steps.

    Args:
        context: The model, functions and settings of the update.
        consistency_weight: Weight of the consistency term, >= 0. The paper's lambda, 0.1 to 1.0.
        stable_decay: Decay of the stable teacher, in [0, 1).
        stable_probability: Probability that a step updates the stable teacher, in
            [0, plastic_probability].
        plastic_decay: Decay of the plastic teacher, in [0, stable_decay].
        plastic_probability: Probability that a step updates the plastic teacher, in [0, 1].
        base: Hyperparameters of `ReplayLearner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        consistency_weight: float = 0.1,
        stable_decay: float = 0.999,
        stable_probability: float = 0.7,
        plastic_decay: float = 0.999,
        plastic_probability: float = 0.9,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        if not context.task.labelled:
            raise ClassLabelsNeededError("CLS-ER", f"those of task {context.task.name}")
        stable = AveragedTeacher(stable_decay, stable_probability, "stable")
        plastic = AveragedTeacher(plastic_decay, plastic_probability, "plastic")
        if plastic_decay > stable_decay:
            raise InvalidHyperparameterError(
                "plastic_decay", plastic_decay, f"at most stable_decay, {stable_decay}"
            )
        if plastic_probability < stable_probability:
            raise InvalidHyperparameterError(
                "plastic_probability", plastic_probability, f"at least {stable_probability}"
            )
        weight = in_range("consistency_weight", consistency_weight, 0)
        self.consistency = TeacherConsistency(weight, stable, plastic)
        self.components.append(self.consistency)
