"""Expected calibration error of a classifier."""

from __future__ import annotations

import numpy as np


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error, in [0, 1]; 0 means perfect calibration.

        ECE = sum over m of |B_m| / n * | acc(B_m) - conf(B_m) |

    where B_m are the examples with confidence in ((m - 1) / M, m / M], acc(B_m) their accuracy, and
    conf(B_m) their mean confidence. From Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017, eq. 5, where M = 15.

    Args:
        confidence: Probability of the predicted class, `(rows,)` in [0, 1].
        correct: Whether the prediction is correct, bool `(rows,)`.
        bins: Number M of bins, all of equal width.

    Returns:
        The error; NaN without rows or if a confidence is NaN.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    if not len(confidence) or not np.isfinite(confidence).all():
        return float("nan")
    places = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=np.asarray(correct, np.float64) - confidence)
    return float(np.abs(gaps).sum() / len(confidence))
