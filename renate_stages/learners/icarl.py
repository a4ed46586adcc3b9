"""iCaRL (Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.data import Batch, StoredDataset, concatenate
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.labels import check_labels
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.base.replay import ReplayLearner, own
from renate_stages.learners.base.working_memory import BLOCK, ChosenMemory
from renate_stages.learners.lwf import FrozenCopy
from renate_stages.models.feature_classifier import give_nearest_mean
from renate_stages.models.features import features_of
from renate_stages.models.module import unwrap
from renate_stages.user.optimization import is_cross_entropy


class ICaRL(ReplayLearner):
    """iCaRL: distils old classes, keeps exemplars by herding, serves the nearest of their means.

        L = mean over new and remembered x of  sum over old classes k of  H(q_k(x), p_k(x))
                                             + sum over the others of     H([y = k], p_k(x))

    with p the sigmoid of the model's outputs, q that of the parent's, and H the binary cross-entropy
    (Algorithm 3). An old class of which there are new examples counts among the others. The model's
    head is then the nearest mean of the exemplars' features (Algorithm 1): a model of this library,
    or a `FeatureClassifier` that takes `nearest_mean`. A `loss_fn` is not called.

    Args:
        context: What the update gives.
        memory_policy: The paper's exemplars are chosen by herding (Algorithm 4).
        base: Hyperparameters of `ReplayLearner`, but that `memory_update` is `end`.

    Raises:
        ModelMismatchError: If the model has no head that could serve means.
    """

    def __init__(self, context: UpdateContext, memory_policy: str = "herding", **base: Any) -> None:
        super().__init__(context, memory_policy=memory_policy, **{**base, "memory_update": "end"})
        give_nearest_mean(context.start.model)
        self.teacher: FrozenCopy | None = None
        if not is_cross_entropy(context.functions.loss_fn):
            context.say("iCaRL has a loss of its own: loss_fn is not called")

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        head: Any = unwrap(self.model).head
        for dataset in (new, memory):
            measured = StoredDataset(
                dataset.store, dataset.rows, *self.context.functions.test_transforms
            )
            check_labels(measured, type(self).__name__, head.linear.out_features)
        super().start_update(new, memory, keepable)
        again = {*self.context.start.old_classes} & {*(new.classes() or ())}
        self._distilled = sorted({*self.context.start.old_classes} - again)
        if self.context.start.has_parent and self._distilled:
            self.teacher = FrozenCopy(self.model)

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        passed = own(new, *draws)
        outputs = concatenate([each.outputs for each in passed]).float()
        labels = concatenate([each.batch.targets for each in passed]).long()
        wanted = F.one_hot(labels, outputs.shape[1]).float()
        if self.teacher is not None:
            inputs = concatenate([each.batch.inputs for each in passed])
            taught = self.teacher(inputs, self.context.task_id).float().sigmoid()
            wanted[:, self._distilled] = taught[:, self._distilled]
        losses = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none")
        if self.mask_unused_classes:
            losses = losses[:, self.classes]
        loss = self.weighed(losses.sum(1).mean(), *(each.batch for each in (new, *draws)))
        return self.with_components(loss, new, draws)

    def finish_model(self, measure: Measure | None) -> None:
        self.teacher = None
        self._chosen = super().choose_memory()
        head: Any = unwrap(self.model).head
        head.take_means(self._means(self._chosen))

    def choose_memory(self, *, at_once: bool = False) -> ChosenMemory:
        return super().choose_memory(at_once=True) if at_once else self._chosen

    @torch.no_grad()
    def _means(self, chosen: ChosenMemory) -> dict[int, Tensor]:
        """Return the mean feature of each class's exemplars, of length 1."""
        (kept, added), transforms = chosen.selection, self.context.functions.test_transforms
        parts = [
            StoredDataset(self.memory.store, _rows(self.memory, kept), *transforms),
            StoredDataset(self.new.store, _rows(self.new, added), *transforms),
        ]
        found: list[Tensor] = []
        labels: list[Tensor] = []
        for part in parts:
            for start in range(0, len(part), BLOCK):
                inputs, targets = part.__getitems__(range(start, min(start + BLOCK, len(part))))
                batch = self.moved(Batch(inputs, targets, np.arange(len(targets))))
                found.append(features_of(self.model, batch.inputs, self.context.task_id))
                labels.append(targets.long())
        if not found:
            return {}
        unit = F.normalize(torch.cat(found), dim=1)
        of = torch.cat(labels)
        return {
            label: F.normalize(unit[of == label].mean(0), dim=0) for label in of.unique().tolist()
        }


def _rows(dataset: StoredDataset, chosen: np.ndarray) -> np.ndarray:
    return chosen if dataset.rows is None else dataset.rows[chosen]
