"""Nearest class mean."""

from __future__ import annotations

from torch import Tensor

from renate_stages.learners.base.class_statistics import ClassStatistics
from renate_stages.learners.base.closed_form import ClosedFormLearner


class NearestClassMean(ClosedFormLearner):
    """NCM: an example is of the class whose mean features are nearest to its own.

        argmin_k |f - mu_k|^2 = argmax_k 2 mu_k . f - |mu_k|^2

    Mensink et al., "Distance-Based Image Classification: Generalizing to New Classes at Near-Zero
    Cost", TPAMI 2013, eq. 1 and 2, without a learned metric. What is the same for all classes is
    left out of the scores: they are taken from the mean of the means m, 2 (mu_k - m) . f + m . m -
    mu_k . mu_k. The state holds the sums and counts, K (F + 1) float64.
    """

    needs_gram = False

    def solve(self, statistics: ClassStatistics) -> tuple[Tensor, Tensor]:
        means = statistics.means  # (S, F)
        apart, middle = means - means.mean(0), means.mean(0)
        return 2 * apart, -(apart * (means + middle)).sum(1)
