"""Chi-squared test on each categorical column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from renate_stages.shift.detector import Detector, ShiftResult, as_rows, most_shifted

LEAST_COUNT = 5  # rows of both samples that a category needs for a cell of its own
MOST_CELLS = 100  # cells of a column; the most frequent categories have one
BLOCK = 100  # permutations to count at once


@dataclass
class CategoricalChiSquare(Detector):
    """Pearson's χ² test of homogeneity on the categories of each column.

    A category that is new is a cell as any other. Categories with fewer than five rows in both samples
    together share one cell, because otherwise a column in which nearly each row has its own value, such
    as a name, would look different in any two samples. Missing values (NaN) are a category.

    P-values come from a permutation test of all columns together: rows are drawn anew from both samples,
    and a column's corrected p-value is (b + 1) / (permutations + 1), where b is the number of
    permutations in which any column has an asymptotic p-value as small as this column's (Westfall and
    Young's single-step minP). So the test is exact for small counts too, takes the dependence of columns
    into account, and does not weaken with the number of columns as Bonferroni's correction does.

    Effect size: total variation distance between the frequencies of the cells, half the sum of absolute
    differences, in [0, 1]: the share of rows that would need another category. Attribution: the same for
    each column.

    Args:
        permutations: Number of permutations, >= 1; the smallest p-value is 1 / (permutations + 1).
    """

    name: ClassVar[str] = "chi2"
    permutations: int = 1000

    def fit(self, reference: np.ndarray) -> Self:
        """Store the codes of categories of reference rows, `(n, d)`; NaN where they are missing."""
        self.fitted = {"reference": as_rows(reference, all_finite=False)}
        return self

    def test(self, new: np.ndarray, generator: np.random.Generator) -> ShiftResult:
        """Compare the codes of new rows, `(m, d)`, with those of the reference."""
        reference = self.kept("reference")
        rows = as_rows(new, like=reference, all_finite=False)
        columns = range(rows.shape[1])
        cells = [cells_of(reference[:, place], rows[:, place]) for place in columns]
        n = len(reference)
        counts = [np.stack([_count(each[:n], each), _count(each[n:], each)]) for each in cells]
        effects = np.array([total_variation(each) for each in counts])
        found = np.array([_chi_square(each[0], each.sum(axis=0), n) for each in counts])
        alone = _p_values(found[None], [each.shape[1] for each in counts])[0]
        drawn = self._smallest_of_permutations(cells, n, generator)
        reached = (drawn[:, None] <= alone * (1 + 1e-9)).sum(axis=0)
        corrected = (reached + 1) / (self.permutations + 1)
        return most_shifted(self.name, found, effects, corrected)

    def _smallest_of_permutations(
        self, cells: list[np.ndarray], n: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Return the smallest asymptotic p-value over columns of each permutation, `(permutations,)`."""
        total = len(cells[0])
        widths = [int(each.max()) + 1 for each in cells]
        smallest = []
        for start in range(0, self.permutations, BLOCK):
            splits = np.zeros((min(BLOCK, self.permutations - start), total), dtype=np.float32)
            for split in splits:
                split[generator.choice(total, n, replace=False, shuffle=False)] = 1
            statistics = []
            for each, width in zip(cells, widths, strict=True):
                indicator = np.zeros((total, width), dtype=np.float32)
                indicator[np.arange(total), each] = 1
                first = (splits @ indicator).astype(np.float64)  # exact: counts are below 2^24
                statistics.append(_chi_square(first, np.bincount(each, minlength=width), n))
            smallest.append(_p_values(np.stack(statistics, axis=1), widths).min(axis=1))
        return np.concatenate(smallest)


def cells_of(reference: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the cell of each row of both samples, the reference first, int64 `(n + m,)`.

    Cells depend only on both samples together, as a permutation test requires.

    Args:
        reference: Codes of reference rows `(n,)`; NaN where they are missing.
        new: Codes of new rows `(m,)`.
    """
    both = np.concatenate([reference, new])
    _, codes, counts = np.unique(both, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    own = order[: MOST_CELLS - 1] if len(counts) > MOST_CELLS else order
    own = np.sort(own[counts[own] >= LEAST_COUNT])
    cell = np.full(len(counts), len(own))  # the last cell is that of rare categories
    cell[own] = np.arange(len(own))
    return cell[codes.reshape(-1)]


def total_variation(counts: np.ndarray) -> float:
    """Return half the sum of absolute differences of two rows of counts `(2, K)`, as shares."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _count(cells: np.ndarray, all_cells: np.ndarray) -> np.ndarray:
    return np.bincount(cells, minlength=int(all_cells.max()) + 1)


def _chi_square(first: np.ndarray, both: np.ndarray, n: int) -> np.ndarray:
    """Return χ² of counts of the first sample, `(..., K)`, given the counts of both, `(K,)`."""
    total = both.sum()
    expected = both * (n / total)
    known = both > 0
    parts = (first[..., known] - expected[known]) ** 2 / expected[known]
    return parts.sum(axis=-1) * (total / (total - n))


def _p_values(statistics: np.ndarray, widths: list[int]) -> np.ndarray:
    """Return the upper tail of χ² with K - 1 degrees of freedom, `(..., d)`; 1 for a single cell."""
    from scipy.special import chdtrc

    degrees = np.array(widths) - 1
    return np.where(degrees > 0, chdtrc(np.maximum(degrees, 1), statistics), 1.0)
