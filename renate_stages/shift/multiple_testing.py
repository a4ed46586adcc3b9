"""Bonferroni's and Holm's corrections of p-values for multiple tests."""

from __future__ import annotations

import numpy as np


def bonferroni(p_values: np.ndarray) -> np.ndarray:
    """Return p-values multiplied by their number, at most 1, float64 `(d,)`."""
    return np.minimum(1.0, len(p_values) * np.asarray(p_values, dtype=np.float64))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected by Holm's step-down method, float64 `(d,)`, in the given order.

    The smallest is multiplied by d, the next by d - 1, and so on, and none is smaller than the one
    before it (Holm, "A simple sequentially rejective multiple test procedure", 1979). It rejects
    every hypothesis that Bonferroni's correction rejects, and possibly more.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    stepped = given[order] * np.arange(len(given), 0, -1)
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return corrected


CORRECTIONS = {"bonferroni": bonferroni, "holm": holm}
