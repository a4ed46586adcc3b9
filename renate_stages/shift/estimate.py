"""Estimate a classifier's accuracy on rows without labels from its confidence.

Confidence-based performance estimation (CBPE): if a model is calibrated, it is right in a share c of the
rows with confidence c, so its expected accuracy is the mean of its confidences. A model's confidence is
calibrated on rows with labels that it was not trained on, by isotonic regression of "is correct" on the
confidence of the predicted class (Zadrozny and Elkan, "Transforming Classifier Scores into Accurate
Multiclass Probability Estimates", KDD 2002).

The estimate assumes that the meaning of inputs has not changed: it sees new rows that are harder, but not
rows whose labels follow another rule than before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Rows = tuple[np.ndarray, np.ndarray]
"""Confidence of the predicted class, in [0, 1], and whether it is correct, bool, both `(n,)`."""

LEAST_ROWS = 20  # of the rows to calibrate on; fewer tell little about the curve


def expected_accuracy(calibration: Rows, confidence: np.ndarray) -> float:
    """Return the expected share of correct predictions, in [0, 1].

    Args:
        calibration: Rows with labels.
        confidence: Confidence on the rows without labels, `(m,)`, m >= 1.
    """
    points, fitted = isotonic_curve(calibration[0], calibration[1])
    asked = np.asarray(confidence, dtype=np.float64)
    return float(np.mean(np.interp(asked, points, fitted)))


def isotonic_curve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of the increasing function with the least squared error (pool adjacent
    violators: Barlow et al., "Statistical Inference under Order Restrictions", 1972).

    Args:
        x: Values, `(n,)`, n >= 1.
        y: Targets, `(n,)`.

    Returns:
        The k distinct values of `x`, ascending, and the function there, both float64 `(k,)`. Between
        them it is linear, and outside it is constant.
    """
    points, where, counts = np.unique(
        np.asarray(x, dtype=np.float64), return_inverse=True, return_counts=True
    )
    means = np.bincount(where.reshape(-1), weights=np.asarray(y, np.float64)) / counts
    pools: list[tuple[float, int, int]] = []  # mean, rows and points of each pool
    for mean, count in zip(means.tolist(), counts.tolist(), strict=True):
        value, rows, width = mean, count, 1
        while pools and pools[-1][0] >= value:
            before, earlier, points_before = pools.pop()
            value = (before * earlier + value * rows) / (earlier + rows)
            rows, width = rows + earlier, width + points_before
        pools.append((value, rows, width))
    return points, np.repeat([pool[0] for pool in pools], [pool[2] for pool in pools])


def past_estimates(holdouts: Mapping[int, Rows]) -> dict[int, tuple[float, float]]:
    """Return the estimate and the actual accuracy on each past holdout, as a check of the method.

    A holdout is estimated from the rows of all others. If there is only one, each half is estimated from
    the other half: rows with even and with odd positions.

    Args:
        holdouts: Rows with labels by the number of their update. Holdouts without rows, and those with
            fewer than `LEAST_ROWS` rows to calibrate on, are left out.
    """
    known = {number: rows for number, rows in holdouts.items() if len(rows[0])}
    if len(known) == 1:
        ((number, (confidence, correct)),) = known.items()
        if len(confidence) < 2 * LEAST_ROWS:
            return {}
        halves = [(confidence[start::2], correct[start::2]) for start in (0, 1)]
        sizes = [len(half[0]) for half in halves]
        estimates = [
            expected_accuracy(one, other[0]) for one, other in (halves[::-1], halves)
        ]  # of the first half, then of the second
        estimate = float(np.average(estimates, weights=sizes))
        return {number: (estimate, float(np.mean(correct)))}
    found = {}
    for number, (confidence, correct) in sorted(known.items()):
        others = joined({n: rows for n, rows in known.items() if n != number})
        if len(others[0]) >= LEAST_ROWS:
            found[number] = (expected_accuracy(others, confidence), float(np.mean(correct)))
    return found


def joined(holdouts: Mapping[int, Rows]) -> Rows:
    """Return the rows of several holdouts together; empty arrays without any."""
    parts = [holdouts[number] for number in sorted(holdouts)]
    if not parts:
        return np.empty(0), np.empty(0, dtype=bool)
    return np.concatenate([rows[0] for rows in parts]), np.concatenate([rows[1] for rows in parts])
