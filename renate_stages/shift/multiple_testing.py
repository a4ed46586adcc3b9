"""Holm's correction of p-values for multiple tests."""

from __future__ import annotations

import numpy as np


def bonferroni(p_values: np.ndarray) -> np.ndarray:
    """Return p-values times their number, at most 1, float64 `(d,)`."""
    return np.minimum(1.0, len(p_values) * np.asarray(p_values, dtype=np.float64))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values by Holm's step-down method, float64 `(d,)`, in the order given.

    The smallest is multiplied by d, the next by d - 1, and so on, none below one before it (Holm,
    "A simple sequentially rejective multiple test procedure", 1979). It refuses all that
    Bonferroni's does, and more.
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    stepped = given[order] * np.arange(len(given), 0, -1)
    found = np.empty_like(given)
    found[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return found


CORRECTIONS = {"bonferroni": bonferroni, "holm": holm}
