"""Offline experience replay: losses on new and old data, weighted by numbers of examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from renate_stages.data import StoredDataset
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.loss_component import ForwardResult
from renate_stages.learners.base.replay import ReplayLearner


class OfflineER(ReplayLearner):
    """Offline-ER: weights the loss on new data by its share of all data so far.

        L = a * mean l(new) + (1 - a) * mean l(memory),   a = N_t / (N_1 + … + N_t)

    With weights of rows, N is the sum of weights. This was the default of awslabs/Renate in offline
    settings. The memory represents all earlier data, and changes at the end of the update.

    Args:
        context: The model, functions and settings of the update.
        loss_weight_new_data: a, in [0, 1]. None computes it from the numbers of examples.
        base: Hyperparameters of `ReplayLearner`.
    """

    def __init__(
        self, context: UpdateContext, loss_weight_new_data: float | None = None, **base: Any
    ) -> None:
        super().__init__(context, **base)
        self.loss_weight_new_data = loss_weight_new_data
        if loss_weight_new_data is not None:
            in_range("loss_weight_new_data", loss_weight_new_data, 0, 1)
        self.examples_before: float = 0  # sum of weights, 1 for each row without one
        self.amount: float = 0
        self.amount_before: float = 0

    def start_update(
        self, new: StoredDataset, memory: StoredDataset, keepable: np.ndarray | None = None
    ) -> None:
        super().start_update(new, memory, keepable)
        self.amount = _amount(new)
        self.amount_before = max(self.examples_before, _amount(memory))
        share = self.amount / ((self.amount + self.amount_before) or 1)
        self.share = share if self.loss_weight_new_data is None else self.loss_weight_new_data

    def total(self, new: ForwardResult, draws: list[ForwardResult]) -> Tensor:
        if not draws:
            return super().total(new, draws)
        loss = self.share * self.supervised(new) + (1 - self.share) * self.supervised(draws[0])
        return self.with_components(loss, new, draws)

    def learner_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, values = super().learner_state()
        return tensors, {**values, "examples": self.amount_before + self.amount}

    def restore_learner(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().restore_learner(tensors, values)
        policy = values.get("policy") or {}
        self.examples_before = values.get("examples", policy.get("seen", 0))
        self.amount_before = self.examples_before  # passed on if the update does not train


def _amount(examples: StoredDataset) -> float:
    """Return the sum of the weights of all rows, or their number if they have none."""
    weights = examples.weights(np.arange(len(examples)))
    return len(examples) if weights is None else float(weights.double().sum())
