"""Nearest class mean (Mensink et al., TPAMI 2013)."""

from __future__ import annotations

from torch import Tensor

from renate_stages.learners.base.class_statistics import ClassStatistics
from renate_stages.learners.base.closed_form import ClosedFormLearner


class NearestClassMean(ClosedFormLearner):
    """NCM: predicts the class whose mean features are nearest to the example's.

        argmin_k |f - mu_k|^2 = argmax_k 2 mu_k . f - |mu_k|^2

    Mensink et al., "Distance-Based Image Classification: Generalizing to New Classes at Near-Zero
    Cost", TPAMI 2013, eq. 1 and 2, without a learned metric. The scores omit what is equal for all
    classes: with m the mean of the class means, they are 2 (mu_k - m) . f + m . m - mu_k . mu_k.
    The state holds sums and counts, K (F + 1) float64.
    """

    needs_gram = False

    def solve(self, statistics: ClassStatistics) -> tuple[Tensor, Tensor]:
        means = statistics.means  # (S, F)
        apart, middle = means - means.mean(0), means.mean(0)
        return 2 * apart, -(apart * (means + middle)).sum(1)
