"""`DistilledReplay`: experience replay with distillation of old classes, the base of BiC and WA."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from renate_stages.data import StoredDataset, concatenate
from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.frozen_copy import FrozenCopy
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.replay import own
from renate_stages.learners.er import ExperienceReplay


class DistilledReplay(ExperienceReplay):
    """Replays examples, and keeps the parent's outputs for old classes (Wu et al., "Large Scale
    Incremental Learning", CVPR 2019, eqs. 1 to 3).

        L = (1 - w) * mean of l + w * KL(parent || model),   w = n / (n + m)

    Both terms are means over new and remembered examples. KL is that of softmax(o / T) over the n old
    classes, and m classes are in the new data. Without a parent or old classes, L is the mean of l.

    Args:
        context: The model, functions and settings of the update.
        temperature: T, > 0; 2 in the paper.
        base: Hyperparameters of `ExperienceReplay`.
    """

    def __init__(self, context: UpdateContext, temperature: float = 2.0, **base: Any) -> None:
        super().__init__(context, **base)
        if in_range("temperature", temperature, 0) == 0:
            raise InvalidHyperparameterError("temperature", temperature, "a number > 0")
        self.temperature = temperature
        self.teacher: FrozenCopy | None = None

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        self.teacher = None
        old, current = {*self.context.start.old_classes}, {*(new.classes() or ())}
        self.old_classes, self.new_classes = sorted(old), sorted(current - old)
        self._distilled_share = len(old) / max(1, len(old) + len(current))
        self.hold_out(new, memory)
        super().start_update(new, memory, keepable)
        if self.context.start.has_parent and old:
            self.teacher = FrozenCopy(self.model)

    def hold_out(self, new: StoredDataset, memory: StoredDataset) -> None:
        """Choose rows that are not trained on; none by default."""

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        loss = super().total(new, draws)
        if self.teacher is None:
            return loss
        passed = own(new, *draws)
        outputs = concatenate([result.outputs for result in passed])
        inputs = concatenate([result.batch.inputs for result in passed])
        taught = self.teacher(inputs, self.context.task_id)
        known = outputs, taught, self.temperature, self.old_classes
        divergence = self.context.task.distillation(*known) / self.temperature**2
        term = self.weighed(divergence, *(result.batch for result in (new, *draws)))
        self._losses.add("Distillation", term, len(new.batch.all_rows))
        return (1 - self._distilled_share) * loss + self._distilled_share * term

    def finish_model(self, measure: Measure | None) -> None:
        self.teacher = None
