"""Weight aligning (Zhao et al., "Maintaining Discrimination and Fairness in Class Incremental
Learning", CVPR 2020)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from renate_stages.data import StoredDataset
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.last_layer import last_linear_layer
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.distilled_er import DistilledReplay


class WeightAligning(DistilledReplay):
    """WA: experience replay with distillation, after which the weights of new classes are scaled.

        L: see `DistilledReplay`                                                     (eq. 3)
        w_c <- gamma w_c for each new class c,
        gamma = min(1, mean of ||w_c|| over old classes / mean of ||w_c|| over new classes)

    The head sees more examples of new classes than of old ones, so that their weights grow longer and
    attract predictions; aligning makes them equally long. An update without new classes changes no
    weights after training. Unlike in the paper, negative weights of the head are allowed, and rows of
    new classes that are shorter than those of old ones are not lengthened, because the model would
    then prefer new classes.

    Args:
        context: The model, functions and settings of the update.
        base: Hyperparameters of `DistilledReplay`.

    Raises:
        ClassLabelsNeededError: If the task is another than classification.
    """

    def __init__(self, context: UpdateContext, **base: Any) -> None:
        super().__init__(context, **base)
        context.require_labels("WA")

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        self._layer()  # refuses a model now, not after training
        super().start_update(new, memory, keepable)

    @torch.no_grad()
    def finish_model(self, measure: Measure | None) -> None:
        super().finish_model(measure)
        old = list(self.context.start.old_classes)
        new = [each for each in self.classes if each not in old]
        if old and new:
            weight = self._layer().weight
            lengths = torch.linalg.vector_norm(weight.float(), dim=1)
            weight[new] *= min(1.0, float(lengths[old].mean() / lengths[new].mean()))

    def _layer(self) -> nn.Linear:
        return last_linear_layer(self.model, "WA scales the rows")
