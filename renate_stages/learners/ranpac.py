"""RanPAC: ridge regression on random features (McDonnell et al., NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.class_statistics import ClassStatistics, solve_positive
from renate_stages.learners.base.closed_form import ClosedFormLearner
from renate_stages.learners.base.context import UpdateContext
from renate_stages.learners.base.measure import Measure
from renate_stages.models.feature_classifier import FeatureClassifier
from renate_stages.models.heads import RandomFeatureHead
from renate_stages.randomness import Generators

NUMBER = 2000
RIDGE = 1e-3
GRID = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class RanPAC(ClosedFormLearner):
    """RanPAC: ridge regression of the classes on fixed random features.

        h = relu(P^T f),  G = sum of h h^T,  Q = sum of h y^T,  W = (G + lambda I)^-1 Q     (eq. 5)

    McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for Continual Learning",
    NeurIPS 2023, phase 2. y is the one-hot label. The method needs the head
    `models.heads.RandomFeatureHead`: a model of this library gets it here, your own model must have
    it already. The state holds G, M (M + 1) / 2 float64: 16 MB for M = 2,000, 64 MB for 4,000,
    400 MB for 10,000. Time grows with M^2 per example and M^3 per update.

    Args:
        context: The model, functions and settings of the update.
        num_random_features: M, >= 0; the paper uses 10,000. 0: ridge regression on the features
            themselves. None: as many as the model's head has, or 2,000 if it has none.
        ridge: lambda relative to the mean of G's diagonal, > 0, useful from 1e-7 to 1. Or
            `validation`: the value among 1e-7, 1e-6, ..., 0.1 with the best accuracy (or loss, if
            accuracy is not measured) on all validation data so far; the largest one in a tie, and
            1e-3 without validation data. The paper chooses an absolute value from 1e-8 to 1e8 on a
            fifth of the training data.
        base: Hyperparameters of `ClosedFormLearner`.
    """

    def __init__(
        self,
        context: UpdateContext,
        num_random_features: int | None = None,
        ridge: float | str = RIDGE,
        **base: Any,
    ) -> None:
        number = num_random_features
        if number is not None and (type(number) is not int or number < 0):
            needed = "a whole number >= 0, or null"
            raise InvalidHyperparameterError("num_random_features", number, needed)
        self.number = number  # set first, because the base class calls `check_head`, which reads it
        super().__init__(context, **base)
        self.chooses = ridge == "validation"
        if not self.chooses and (isinstance(ridge, str) or ridge == 0):
            raise InvalidHyperparameterError("ridge", ridge, "a number > 0, or validation")
        self.ridge = RIDGE if self.chooses else in_range("ridge", ridge, 0)  # type: ignore[arg-type]

    def check_head(self) -> None:
        own, random = self.module, isinstance(self.head, RandomFeatureHead)
        can_change = isinstance(own, FeatureClassifier) and own.takes_random_features
        if self.number == 0:
            self.refuse_unless(isinstance(self.head, nn.Linear) or can_change, "a torch.nn.Linear")
        else:
            fits = random or (can_change and isinstance(self.head, nn.Linear))
            needed = f"a renate_stages.models.heads.RandomFeatureHead of {self.number or NUMBER}"
            self.refuse_unless(fits, needed)

    def prepare_head(self) -> None:
        model, now = self.module, 0
        if isinstance(self.head, RandomFeatureHead):
            now = self.head.projection.shape[1]
        number = self.number if self.number is not None else now or NUMBER
        if isinstance(model, FeatureClassifier) and number != now:
            # Seeded as in update 0, so that a learner that starts later draws the same features.
            draws = Generators(self.context.generators.seed, 0).torch("random features")
            model.use_random_features(number, draws)

    def features_state(self) -> dict[str, Tensor]:
        tensors = super().features_state()
        if isinstance(self.head, RandomFeatureHead):
            tensors["head.projection"] = self.head.projection
        return tensors

    def mapped(self, features: Tensor) -> Tensor:
        if not isinstance(self.head, RandomFeatureHead):
            return features
        return torch.relu(features @ self.head.projection.cpu().double())

    def solve(self, statistics: ClassStatistics) -> tuple[Tensor, Tensor]:
        gram, sums = statistics.gram, statistics.sums[statistics.seen]  # (M, M), (S, M)
        gram.diagonal().add_(self.ridge * gram.diagonal().mean())
        weights = solve_positive(gram, sums.T, "ridge", self.ridge).T
        return weights, weights.new_zeros(len(weights))

    def end_training(self, measure: Measure | None) -> None:
        if self.chooses and measure is not None:
            candidates = []
            for self.ridge in GRID:
                self.write_head()
                values = measure(self.model)
                candidates.append((values.get("accuracy", -values["loss"]), self.ridge))
            self.ridge = max(candidates)[1]
            self.context.say(f"chose ridge {self.ridge:g}, the best on validation data")
        super().end_training(measure)

    def learner_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, values = super().learner_state()
        return tensors, {**values, "ridge": self.ridge}

    def restore_learner(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        super().restore_learner(tensors, values)
        if self.chooses:
            self.ridge = values.get("ridge", RIDGE)
