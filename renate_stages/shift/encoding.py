"""Encode rows with columns of different units and kinds, for the tests that need distances.

Kernel tests and classifiers compare whole rows. A column in euros would outweigh one in years, a missing
value has no distance, and codes of categories have no order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

NORMAL = 1.349  # interquartile range of the standard normal distribution
MOST_SPREAD = (
    10.0  # scaled values are clipped to this range, so that outliers do not decide the test
)
MOST_CATEGORIES = 20  # categories of a column that get a number of their own


@dataclass(frozen=True)
class RowEncoding:
    """Centres, scales and imputes numeric columns, and turns categories into indicators.

    Numbers: (x - median) / (interquartile range / 1.349), clipped to ±10; missing ones become the median.
    If the interquartile range is 0, it is the standard deviation, and 1 for a constant column.

    Categories: an indicator, 1 or 0, for each of the 20 most frequent ones of the reference. Two rows
    with different categories are √2 apart, the same as two typical rows in a numeric column.

    Args:
        median: Median of each numeric column, float64 `(d,)`.
        spread: Spread of each numeric column, float64 `(d,)`, > 0.
        categories: The codes with an indicator, for each categorical column.
        is_categorical: The kind of each column, bool.
    """

    median: np.ndarray
    spread: np.ndarray
    categories: tuple[np.ndarray, ...]
    is_categorical: np.ndarray

    @classmethod
    def fit(cls, reference: np.ndarray, is_categorical: np.ndarray) -> Self:
        """Return the encoding of reference rows `(n, d)`; NaN is a missing value.

        Args:
            reference: Reference rows.
            is_categorical: Whether each column has codes of categories, bool `(d,)`.
        """
        numeric = np.asarray(reference, dtype=np.float64)[:, ~is_categorical]
        parts = [_median_and_spread(column) for column in numeric.T]
        median, spread = np.array(parts, dtype=np.float64).reshape(-1, 2).T
        categories = []
        for column in reference[:, is_categorical].T:
            codes, counts = np.unique(column[~np.isnan(column)], return_counts=True)
            order = np.argsort(-counts, kind="stable")[:MOST_CATEGORIES]
            categories.append(np.sort(codes[order]))
        return cls(median, spread, tuple(categories), np.asarray(is_categorical, dtype=bool))

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Return rows `(n, d)` as finite numbers, float64 `(n, columns)`; see `owners`."""
        numeric = np.asarray(rows, dtype=np.float64)[:, ~self.is_categorical]
        scaled = (np.where(np.isnan(numeric), self.median, numeric) - self.median) / self.spread
        parts = [np.clip(scaled, -MOST_SPREAD, MOST_SPREAD)]
        for codes, column in zip(self.categories, rows[:, self.is_categorical].T, strict=True):
            parts.append((column[:, None] == codes).astype(np.float64))
        return np.concatenate(parts, axis=1)

    @property
    def owners(self) -> np.ndarray:
        """The column that each encoded number comes from, int64 `(columns,)`."""
        places = np.flatnonzero(self.is_categorical)
        pairs = zip(places.tolist(), self.categories, strict=True)
        indicators = [np.full(len(codes), place) for place, codes in pairs]
        return np.concatenate([np.flatnonzero(~self.is_categorical), *indicators])


def _median_and_spread(column: np.ndarray) -> tuple[float, float]:
    known = column[np.isfinite(column)]
    if not len(known):
        return 0.0, 1.0
    low, median, high = np.quantile(known, [0.25, 0.5, 0.75]).tolist()
    spread = (high - low) / NORMAL or float(known.std())
    return median, spread if np.isfinite(spread) and spread > 0 else 1.0
