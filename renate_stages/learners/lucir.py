"""LUCIR (Hou et al., "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from renate_stages.data import StoredDataset
from renate_stages.learners.base import Learner
from renate_stages.learners.base.arguments import in_range, positive
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.frozen_copy import Representation
from renate_stages.learners.base.last_layer import class_rows
from renate_stages.learners.base.loss_component import ForwardResult, LossComponent
from renate_stages.learners.feature_distilled_er import (
    Distance,
    FeatureDistilledReplay,
    angular_distance,
)
from renate_stages.models import RenateModule


class MarginRanking(LossComponent):
    """Keeps remembered examples of old classes away from the most similar new classes.

        mean over x' of  sum over the K new classes k with the largest cos(f(x'), w_k) of
                         max(0, margin - cos(f(x'), w_y') + cos(f(x'), w_k))              (eq. 8)

    f are the features, and w_k is class k's row of the last layer. Remembered examples of new classes
    count as 0.

    Args:
        weight: Factor of the term, >= 0.
        margin: The margin, in [0, 2].
        hard_negatives: K, >= 1.
    """

    needs_features = True

    def __init__(self, weight: float = 1.0, margin: float = 0.5, hard_negatives: int = 2) -> None:
        super().__init__(weight, own_draw=False)
        self.margin = in_range("margin", margin, 0, 2)
        self.hard_negatives = positive("hard_negatives", hard_negatives)
        self._model: list[RenateModule] = []  # in a list, so that it is not a submodule
        self._old: list[int] = []
        self._new: list[int] = []

    def start_update(self, learner: Learner) -> None:
        self._model[:] = [learner.model]
        self._old = [*learner.context.start.old_classes]
        self._new = [each for each in learner.classes if each not in {*self._old}]

    def forward(self, new: ForwardResult, memory: ForwardResult | None) -> Tensor:
        assert memory is not None and memory.features is not None
        if not (self._old and self._new):
            return memory.features.new_zeros((), dtype=torch.float32)
        labels = memory.batch.targets.long()
        rows = F.normalize(class_rows(self._model[0], LUCIR.name).float(), dim=1)  # (K, F)
        cosines = F.normalize(memory.features.float(), dim=1) @ rows.T  # (B, K)
        true = cosines.gather(1, labels.clamp(min=0)[:, None])
        number = min(self.hard_negatives, len(self._new))
        hardest = cosines[:, self._new].topk(number, dim=1).values
        is_old = torch.isin(labels, labels.new_tensor(self._old))
        return ((self.margin - true + hardest).clamp(min=0).sum(1) * is_old).mean()


class LUCIR(FeatureDistilledReplay):
    """LUCIR: replay that keeps the directions of features, and separates old classes from new ones.

        L = mean of l + w * mean of (1 - cos(f*(x), f(x)))      over new and remembered examples
            + margin_weight * margin ranking of remembered examples of old classes
        w = less_forget_weight * sqrt(n / m)                                       (eq. 6 to 9)

    f are the inputs of the last layer, f* those of the parent's model, n is the number of old classes
    and m that of the classes in the new data. The rows of old classes in the last layer stay as they
    are, bias included. The paper's third part is a model whose logits are scaled cosines. It is not
    needed here: with a linear last layer, the cosines are those of its rows, without the bias. Your
    own last layer needs a `weight` `(K, F)`.

    Args:
        context: The model, functions and settings of the update.
        less_forget_weight: lambda_base, >= 0; 5 and 10 in the paper.
        margin_weight: Weight of the margin ranking, >= 0; 1 in the paper.
        margin: Margin between cosines, in [0, 2]; 0.5 in the paper.
        hard_negatives: New classes compared with each example, >= 1; 2 in the paper.
        base: Hyperparameters of `ReplayLearner`.

    Raises:
        ClassLabelsNeededError: If the task is another than classification.
    """

    name = "LUCIR"

    def __init__(
        self,
        context: UpdateContext,
        less_forget_weight: float = 5.0,
        margin_weight: float = 1.0,
        margin: float = 0.5,
        hard_negatives: int = 2,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        self.less_forget_weight = in_range("less_forget_weight", less_forget_weight, 0)
        weight = in_range("margin_weight", margin_weight, 0)
        self.components.append(MarginRanking(weight, margin, hard_negatives))

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        super().start_update(new, memory, keepable)
        n, m = len(self.old_classes), self.classes_in_new_data
        self._less_forget = self.less_forget_weight * math.sqrt(n / m)

    def distances(self, now: Representation, parents: Representation) -> dict[str, Distance]:
        angles = angular_distance(now.features, parents.features)
        return {"LessForget": Distance(self._less_forget, angles)}
