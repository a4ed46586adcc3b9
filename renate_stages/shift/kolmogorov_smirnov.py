"""Kolmogorov-Smirnov test on each feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from renate_stages.shift.detector import LEAST_ROWS, Detector, ShiftResult, as_rows
from renate_stages.shift.multiple_testing import CORRECTIONS

FEATURES = 256  # features to sort at once


@dataclass
class KolmogorovSmirnov(Detector):
    """Compares the distribution function of each feature, but not the dependence of features.

    The statistic is the largest distance D between the two distribution functions, over all
    features; its p-value is corrected for the number of features (Rabanser et al., "Failing
    Loudly", NeurIPS 2019, section 3.2). If values repeat, as pixels do, the test is conservative.
    Missing values (NaN) are left out of their feature. A feature with fewer than 4 values in a sample
    has distance 0 and p-value 1.

    Effect size: the largest D, in [0, 1]. Attribution: D of each feature.

    Args:
        correction: Correction for the number of features. `holm` finds more features; the overall
            p-value is the same.
    """

    name: ClassVar[str] = "ks"
    correction: Literal["bonferroni", "holm"] = "holm"

    def fit(self, reference: np.ndarray) -> Self:
        self.fitted = {"reference": as_rows(reference, all_finite=False)}
        return self

    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        reference = self.kept("reference")
        rows = as_rows(new, like=reference, all_finite=False)
        distances, alone = distances_without_missing(reference, rows)
        p_values = CORRECTIONS[self.correction](alone)
        largest = float(distances.max())
        return ShiftResult(self.name, largest, float(p_values.min()), largest, distances, p_values)


def distances_without_missing(
    reference: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return D of each feature and its p-value, both float64 `(d,)`, without missing values."""
    n, m = len(reference), len(new)
    distances, p_values = np.zeros(reference.shape[1]), np.ones(reference.shape[1])
    lacking = np.isnan(reference).any(axis=0) | np.isnan(new).any(axis=0)
    if not lacking.all():
        distances[~lacking] = largest_distances(reference[:, ~lacking], new[:, ~lacking])
        p_values[~lacking] = p_values_of(distances[~lacking], n, m)
    for place in np.flatnonzero(lacking).tolist():
        old, other = (each[~np.isnan(each[:, place]), place] for each in (reference, new))
        if min(len(old), len(other)) >= LEAST_ROWS:
            (distance,) = largest_distances(old[:, None], other[:, None])
            distances[place] = distance
            p_values[place] = p_values_of(np.array([distance]), len(old), len(other))[0]
    return distances, p_values


def largest_distances(reference: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return D of each feature, float64 `(d,)`; memory grows with n + m, not with d."""
    n, m = len(reference), len(new)
    distances = []
    for start in range(0, reference.shape[1], FEATURES):
        block = slice(start, start + FEATURES)
        values = np.concatenate([reference[:, block], new[:, block]])
        order = np.argsort(values, axis=0, kind="stable")
        values = np.take_along_axis(values, order, axis=0)
        below = np.cumsum(order < n, axis=0)  # integers, so that both final shares are exactly 1
        others = np.arange(1, n + m + 1)[:, None] - below
        distance = np.abs(below / n - others / m)
        distance[:-1][values[1:] == values[:-1]] = 0  # the step comes at the last of equal values
        distance[-1] = 0
        distances.append(distance.max(axis=0))
    return np.concatenate(distances)


def p_values_of(distances: np.ndarray, n: int, m: int) -> np.ndarray:
    """Return p-values of two-sided distances, float64 `(d,)`.

    They are twice Smirnov's one-sided probability for nm / (n + m) rows. Below 0.1 they equal those
    of `scipy.stats.ks_2samp(method="asymp")` to four digits; above, they are slightly higher.
    """
    from scipy.special import smirnov

    return np.minimum(1.0, 2 * smirnov(max(1, round(n * m / (n + m))), distances))
