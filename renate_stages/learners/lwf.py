"""Learning without Forgetting (Li & Hoiem, ECCV 2016 and TPAMI 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base import Learner
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.frozen_copy import FrozenCopy
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.tasks.task import Task


class OutputDistillation(LossComponent):
    """Distills the parent's outputs for new inputs into the model.

        T^2 KL(p || q),  p = softmax(z / T) of the parent's logits, q of the model's,
        over the classes of earlier updates, mean over examples

    Li & Hoiem's eqs. 2 to 4; KL differs from their cross-entropy by a constant, and T^2 keeps the
    gradient's scale independent of T (Hinton et al., "Distilling the Knowledge in a Neural
    Network", 2015). Other tasks define their own divergence, such as the squared distance of a
    regression's outputs (`Task.distillation`). Without a parent it is 0.

    Args:
        weight: Factor of the term, >= 0.
        temperature: T, > 0.
    """

    replays = False

    def __init__(self, weight: float = 1.0, temperature: float = 2.0) -> None:
        super().__init__(weight)
        if in_range("temperature", temperature, 0) == 0:
            raise InvalidHyperparameterError("temperature", temperature, "a number > 0")
        self.temperature = temperature
        self.teacher: FrozenCopy | None = None
        self.task_id = ""
        self.task: Task
        self.old_classes: tuple[int, ...] = ()

    def start_update(self, learner: Learner) -> None:
        context = learner.context
        self.task, self.task_id = context.task, context.task_id
        self.old_classes = context.start.old_classes
        if context.start.has_parent:
            self.teacher = FrozenCopy(learner.model)

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        if self.teacher is None:
            return new.outputs.new_zeros((), dtype=torch.float32)
        outputs, taught = new.outputs, self.teacher(new.batch.inputs, self.task_id)
        known = outputs, taught, self.temperature, self.old_classes
        if self.task.has_padding:  # its length depends on the other rows of the batch
            return self.task.distillation(*known, self.task.fitted(outputs, new.batch.targets))
        return self.task.distillation(*known)


class LwF(Learner):
    """LwF: fine-tuning with distillation of the parent's outputs on the new data.

        L = l(f(x), y) + distillation_weight * T^2 KL(parent || model)  over the old classes

    It stores no data. It works while old classes keep their appearance, and less after a large
    shift.

    Args:
        context: The model, functions and settings of the update.
        distillation_weight: Weight of the distillation term, >= 0. The paper's lambda_o, 1 there.
        temperature: T, > 0; 2 in the paper.
        base: Hyperparameters of `Learner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        distillation_weight: float = 1.0,
        temperature: float = 2.0,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        weight = in_range("distillation_weight", distillation_weight, 0)
        self.components.append(OutputDistillation(weight, temperature))
