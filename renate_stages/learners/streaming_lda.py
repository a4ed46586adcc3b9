"""Streaming linear discriminant analysis (Hayes & Kanan, CVPR Workshops 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from renate_stages.errors import InvalidHyperparameterError
from renate_stages.learners.base.arguments import in_range
from renate_stages.learners.base.class_statistics import ClassStatistics, solve_positive
from renate_stages.learners.base.closed_form import ClosedFormLearner
from renate_stages.learners.base.context import UpdateContext


class StreamingLDA(ClosedFormLearner):
    """SLDA: models each class as a Gaussian with its own mean and a shared covariance.

        L = ((1 - e) Sigma + e I)^-1,  w_k = L mu_k,  b_k = -(mu_k . L mu_k) / 2     (eq. 1 and 2)

    Hayes and Kanan, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis",
    CVPR Workshops 2020. The paper updates Sigma example by example with the current means, so its
    result depends on the order of examples. Here Sigma is the within-class covariance of all
    examples, (sum of x x^T - sum_k n_k mu_k mu_k^T) / n, which does not depend on the order. The
    scores are relative to the mean of the class means, which omits what is equal for all classes.
    The state holds F (F + 1) / 2 float64 in addition to the sums.

    Args:
        context: The model, functions and settings of the update.
        shrinkage: e, in (0, 1]. The paper uses 1e-4 with features of a ResNet.
        base: Hyperparameters of `ClosedFormLearner`.
    """

    def __init__(self, context: UpdateContext, shrinkage: float = 1e-4, **base: Any) -> None:
        super().__init__(context, **base)
        self.shrinkage = in_range("shrinkage", shrinkage, 0, 1)
        if not self.shrinkage:
            raise InvalidHyperparameterError("shrinkage", shrinkage, "a number in (0, 1]")

    def solve(self, statistics: ClassStatistics) -> tuple[Tensor, Tensor]:
        means, counts = statistics.means, statistics.counts[statistics.seen]
        covariance = statistics.gram  # (F, F)
        covariance.addmm_((means * counts[:, None]).T, means, alpha=-1).div_(counts.sum())
        covariance.mul_(1 - self.shrinkage).diagonal().add_(self.shrinkage)
        apart, middle = means - means.mean(0), means.mean(0)
        weights = solve_positive(covariance, apart.T, "shrinkage", self.shrinkage).T
        return weights, -torch.linalg.vecdot(weights, means + middle) / 2
