"""Weight aligning (Zhao et al., "Maintaining Discrimination and Fairness in Class Incremental
Learning", CVPR 2020)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from renate_stages.data import StoredDataset
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.last_layer import last_linear_layer
from renate_stages.learners.base.measure import Measure
from renate_stages.learners.er import ExperienceReplay
from renate_stages.learners.lwf import OutputDistillation


class WeightAligning(ExperienceReplay):
    """WA: experience replay with distillation, after which the weights of new classes are scaled.

        L = mean of l over new and remembered examples
            + distillation_weight * T^2 KL(parent || model)  over the old classes
        w_c <- gamma w_c for each new class c,
        gamma = mean of ||w_c|| over old classes / mean of ||w_c|| over new classes

    The head sees more examples of new classes than of old ones, so that their weights grow longer and
    attract predictions; aligning makes them equally long. An update without new classes changes no
    weights after training. Unlike in the paper, the distillation uses the new examples alone, and its
    weight does not depend on the number of classes.

    Args:
        context: The model, functions and settings of the update.
        distillation_weight: Weight of the distillation term, >= 0.
        temperature: T, > 0; 2 in the paper.
        base: Hyperparameters of `ReplayLearner`.

    Raises:
        ClassLabelsNeededError: If the task is another than classification.
    """

    def __init__(
        self,
        context: UpdateContext,
        distillation_weight: float = 1.0,
        temperature: float = 2.0,
        **base: Any,
    ) -> None:
        super().__init__(context, **base)
        context.require_labels("WA")
        weight = in_range("distillation_weight", distillation_weight, 0)
        self.components.append(OutputDistillation(weight, temperature))

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        self._layer()  # refuses a model now, not after training
        super().start_update(new, memory, keepable)

    @torch.no_grad()
    def finish_model(self, measure: Measure | None) -> None:
        old = list(self.context.start.old_classes)
        new = [each for each in self.classes if each not in old]
        if old and new:
            weight = self._layer().weight
            lengths = torch.linalg.vector_norm(weight.float(), dim=1)
            weight[new] *= lengths[old].mean() / lengths[new].mean()

    def _layer(self) -> nn.Linear:
        return last_linear_layer(self.model, "WA scales the rows")
