"""Chi-squared test for a shift of class frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from renate_stages.shift.detector import Detector, ShiftResult, as_labels

LEAST_EXPECTED = 5.0  # Cochran's rule; below, the χ² distribution is a bad approximation


@dataclass
class LabelChiSquare(Detector):
    """Pearson's χ² test of homogeneity on the counts of each class.

    If the expected count of a class in a sample is below five, the p-value comes from a permutation
    test instead, (b + 1) / (permutations + 1), which draws counts from both samples together.

    Effect size: Cramér's V, √(χ² / N), in [0, 1]. Attribution: the contribution of each class to χ²,
    for all classes of both samples, ascending.

    Args:
        permutations: Number of permutations in the test for small counts, >= 1.
    """

    name: ClassVar[str] = "label_chi2"
    permutations: int = 1000

    def fit(self, reference: np.ndarray) -> Self:
        self.fitted = {"labels": as_labels(reference)}
        return self

    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        counts = class_counts(self.kept("labels"), as_labels(new))
        parts = chi_square_parts(counts)
        p_value = chi_square_p_value(counts, self.permutations, generator)
        statistic = float(parts.sum())
        effect = math.sqrt(statistic / counts.sum())
        return ShiftResult(self.name, statistic, p_value, effect, parts)


def class_counts(reference: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the count of each class in both samples, int64 `(2, K)`, classes ascending."""
    classes = np.unique(np.concatenate([reference, new]))
    samples = (np.searchsorted(classes, sample) for sample in (reference, new))
    return np.stack([np.bincount(sample, minlength=len(classes)) for sample in samples])


def chi_square_parts(counts: np.ndarray) -> np.ndarray:
    """Return each class's contribution to χ², float64 `(..., K)`.

    Args:
        counts: Class counts of both samples, `(..., 2, K)`; every class occurs at least once.
    """
    expected = _expected(counts)
    return ((counts - expected) ** 2 / expected).sum(axis=-2)


def chi_square_p_value(
    counts: np.ndarray, permutations: int, generator: np.random.Generator
) -> float:
    """Return the p-value of Pearson's χ², by permutation if an expected count is below five."""
    from scipy.special import chdtrc

    if counts.shape[1] == 1:
        return 1.0
    statistic = chi_square_parts(counts).sum()
    if _expected(counts).min() >= LEAST_EXPECTED:
        return float(chdtrc(counts.shape[1] - 1, statistic))
    both = counts.sum(axis=0)
    first = generator.multivariate_hypergeometric(
        both, int(counts[0].sum()), size=permutations, method="marginals"
    )
    drawn = chi_square_parts(np.stack([first, both - first], axis=1)).sum(axis=-1)
    return (int((drawn >= statistic * (1 - 1e-9)).sum()) + 1) / (permutations + 1)


def _expected(counts: np.ndarray) -> np.ndarray:
    rows, columns = counts.sum(axis=-1, keepdims=True), counts.sum(axis=-2, keepdims=True)
    return rows * columns / rows.sum(axis=-2, keepdims=True)
