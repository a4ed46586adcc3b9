"""Mean and interval over independent runs, such as seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEVEL = 0.95


@dataclass(frozen=True)
class SeedInterval:
    """A mean over seeds with its 95 % interval (Student's t).

    Args:
        mean: The mean; NaN without a value.
        half: Half of the width of the interval; NaN with fewer than two seeds.
        seeds: Number of seeds.
    """

    mean: float
    half: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> SeedInterval:
        """Return the interval of independent values."""
        if len(values) < 2:
            return cls(values[0] if values else math.nan, math.nan, len(values))
        from scipy.stats import t

        quantile = float(t.ppf((1 + LEVEL) / 2, len(values) - 1))
        return cls(fmean(values), quantile * stdev(values) / math.sqrt(len(values)), len(values))
