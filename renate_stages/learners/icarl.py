"""iCaRL (Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from renate_stages.data import StoredDataset, concatenate
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.exemplar_means import check_class_labels, exemplar_means, exemplars
from renate_stages.learners.base.frozen_copy import FrozenCopy
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.replay import ReplayLearner, own
from renate_stages.learners.base.working_memory import ChosenMemory
from renate_stages.models.feature_classifier import give_nearest_mean
from renate_stages.models.module import unwrap


class ICaRL(ReplayLearner):
    """iCaRL: distils old classes, chooses exemplars by herding, classifies by the nearest mean.

        L = mean over new and remembered x of  sum over old classes k of    H(q_k(x), p_k(x))
                                             + sum over other classes k of  H([y = k], p_k(x))

    p is the sigmoid of the model's outputs, q that of the parent's, and H the binary cross-entropy
    (Algorithm 3). An old class that has new examples counts as one of the other classes. After
    training, the model's head becomes a nearest-mean classifier on the exemplars' features
    (Algorithm 1). This needs a model of this library, or a `FeatureClassifier` that accepts
    `nearest_mean`. `loss_fn` is not called.

    Args:
        context: The model, functions and settings of the update.
        memory_policy: The paper chooses exemplars by herding (Algorithm 4).
        base: Hyperparameters of `ReplayLearner`; `memory_update` is always `end`.

    Raises:
        ModelMismatchError: If the model's head cannot be a nearest-mean classifier.
    """

    weights_rows = False

    def __init__(self, context: UpdateContext, memory_policy: str = "herding", **base: Any) -> None:
        super().__init__(context, memory_policy=memory_policy, **{**base, "memory_update": "end"})
        context.require_labels("iCaRL")
        give_nearest_mean(context.start.model, "iCaRL")
        self.teacher: FrozenCopy | None = None
        if not context.functions.loss_fn.is_cross_entropy:
            context.say("iCaRL uses its own loss and does not call loss_fn")

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        check_class_labels(self, type(self).__name__, new, memory)
        super().start_update(new, memory, keepable)
        again = {*self.context.start.old_classes} & {*(new.classes() or ())}
        self._distilled = sorted({*self.context.start.old_classes} - again)
        if self.context.start.has_parent and self._distilled:
            self.teacher = FrozenCopy(self.model)

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        passed = own(new, *draws)
        outputs = concatenate([result.outputs for result in passed]).float()
        labels = concatenate([result.batch.targets for result in passed]).long()
        wanted = F.one_hot(labels, outputs.shape[1]).float()
        if self.teacher is not None:
            inputs = concatenate([result.batch.inputs for result in passed])
            teacher_probabilities = self.teacher(inputs, self.context.task_id).float().sigmoid()
            wanted[:, self._distilled] = teacher_probabilities[:, self._distilled]
        losses = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none")
        if self.mask_unused_classes:
            losses = losses[:, self.classes]
        loss = self.weighed(losses.sum(1).mean(), *(result.batch for result in (new, *draws)))
        return self.with_components(loss, new, draws)

    def finish_model(self, measure: Measure | None) -> None:
        self.teacher = None
        self._chosen = super().choose_memory()
        head: Any = unwrap(self.model).head
        chosen = exemplars(self, self._chosen.selection)
        head.take_means(exemplar_means(self.model, chosen, self.context.task_id))

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        return super().choose_memory(at_once=True) if at_once else self._chosen
