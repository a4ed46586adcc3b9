"""Two-proportion test on the rate of missing values of each feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from renate_stages.shift.detector import Detector, ShiftResult, as_rows, most_shifted
from renate_stages.shift.multiple_testing import CORRECTIONS

LEAST_EXPECTED = 5.0  # Cochran's rule; below, the normal approximation is bad


@dataclass
class MissingRates(Detector):
    """Compares the share of missing values (NaN) of each feature.

        z = (q - p) / √(r (1 - r) (1/n + 1/m)),   r = (missing in both samples) / (n + m)

    The p-value is two-sided. If an expected count is below five, it is that of Fisher's exact test.
    P-values are corrected for the number of features in which any value is missing; the others
    cannot differ.

    Statistic: |z|. Effect size: |q - p|, in [0, 1]. Attribution: the same for each feature.

    Args:
        correction: Correction for the number of features.
    """

    name: ClassVar[str] = "missing"
    correction: Literal["bonferroni", "holm"] = "holm"

    def fit(self, reference: np.ndarray) -> Self:
        """Store the rates of reference rows, `(n, d)`, in which NaN is a missing value."""
        missing = np.isnan(as_rows(reference, all_finite=False))
        self.fitted = {"missing": missing.sum(axis=0), "rows": np.array([len(missing)])}
        return self

    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        """Compare the rates of new rows, `(m, d)`; the generator is not used."""
        old = self.kept("missing")
        rows = as_rows(new, like=old[None], all_finite=False)
        other = np.isnan(rows).sum(axis=0)
        n, m = int(self.kept("rows")[0]), len(rows)
        effects = np.abs(other / m - old / n)
        pairs = list(zip(old.tolist(), other.tolist(), strict=True))
        found = np.array([two_proportions(first, n, second, m) for first, second in pairs])
        p_values, possible = np.ones(len(old)), (old + other > 0) & (old + other < n + m)
        if possible.any():
            p_values[possible] = CORRECTIONS[self.correction](found[possible, 1])
        return most_shifted(self.name, found[:, 0], effects, p_values)


def two_proportions(first: int, n: int, second: int, m: int) -> tuple[float, float]:
    """Return |z| and the two-sided p-value of `first` of n against `second` of m, equal under H0."""
    from scipy.special import ndtr
    from scipy.stats import fisher_exact

    share = (first + second) / (n + m)
    if share in (0, 1):
        return 0.0, 1.0
    z = abs(second / m - first / n) / float(np.sqrt(share * (1 - share) * (1 / n + 1 / m)))
    if min(share, 1 - share) * min(n, m) >= LEAST_EXPECTED:
        return z, float(2 * ndtr(-z))
    outcome = fisher_exact([[first, n - first], [second, m - second]])
    return z, float(outcome[1])  # pyright: ignore[reportArgumentType]
