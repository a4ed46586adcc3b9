"""Expected calibration error of a classifier."""

from __future__ import annotations

import numpy as np


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error, in [0, 1]; 0 is a model that is as sure as it is right.

        ECE = sum over m of |B_m| / n * | acc(B_m) - conf(B_m) |

    where B_m are the examples whose confidence is in ((m - 1) / M, m / M], acc(B_m) the share of
    them that is right, and conf(B_m) their mean confidence. From Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017, eq. 5, where M = 15.

    Args:
        confidence: Probability of the predicted class, `(rows,)` in [0, 1].
        correct: Whether the prediction is right, bool `(rows,)`.
        bins: M, of equal width.

    Returns:
        NaN without rows, or where a confidence is NaN.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    if not len(confidence) or not np.isfinite(confidence).all():
        return float("nan")
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=np.asarray(correct, np.float64) - confidence)
    return float(np.abs(gaps).sum() / len(confidence))
