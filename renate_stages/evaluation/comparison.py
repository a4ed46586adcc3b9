"""Compare two models on the same holdouts: what flipped, and what is more than noise.

Intervals are percentile bootstrap intervals (Efron & Tibshirani, "An Introduction to the
Bootstrap", 1993, chapter 13): the examples of each holdout are drawn anew, with replacement and as
many as there are, and the figure is computed again. Holdouts are strata: their sizes stay. They
tell how far a figure may move with other examples of the same kind, not with another training seed.

    low, high = difference_interval(before, after, generator, average=True)
    if within_noise((low, high)): ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

CELLS = 1 << 22  # counts that are in memory at once, int64


@dataclass(frozen=True)
class Flips:
    """Shares of examples whose answer changed sides, in [0, 1].

    With r[j] and r'[j] whether example j is right before and after:

        negative = mean over j of r[j] and not r'[j]        positive = mean of not r[j] and r'[j]

    so that accuracy after - before = positive - negative. From Yan et al., "Positive-Congruent
    Training: Towards Regression-Free Model Updates", CVPR 2021 (negative flip rate).

    Args:
        negative: Of all examples, those that were right and are wrong now.
        positive: Of all examples, those that were wrong and are right now.
        holdout_negative: The same of each holdout's examples.
        holdout_positive: Likewise.
    """

    negative: float
    positive: float
    holdout_negative: Mapping[int, float]
    holdout_positive: Mapping[int, float]


def flips(before: Mapping[int, np.ndarray], after: Mapping[int, np.ndarray]) -> Flips:
    """Return what changed sides between two models, on the holdouts that both were asked.

    Args:
        before: Whether the old model is right on each row, bool `(rows,)`, by holdout.
        after: Whether the new one is, likewise, in the same order.

    Raises:
        ValueError: If they have no holdout in common, or one differs in its number of rows.
    """
    shared = {n: after[n] for n in sorted(before.keys() & after.keys())}
    _check_pairs({n: before[n] for n in shared}, shared)
    lost = {n: np.asarray(before[n], bool) & ~np.asarray(after[n], bool) for n in shared}
    won = {n: ~np.asarray(before[n], bool) & np.asarray(after[n], bool) for n in shared}
    rows = sum(len(each) for each in shared.values())
    return Flips(
        sum(int(each.sum()) for each in lost.values()) / rows,
        sum(int(each.sum()) for each in won.values()) / rows,
        {n: float(each.mean()) for n, each in lost.items()},
        {n: float(each.mean()) for n, each in won.items()},
    )


def interval(
    values: Mapping[int, np.ndarray],
    generator: np.random.Generator,
    *,
    average: bool,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the bootstrap interval of one model's mean score.

    Args:
        values: Score of each row, such as whether it is right; bool or finite numbers `(rows,)`,
            by holdout.
        generator: Draws the resamples, those of the lowest holdout first.
        average: True: each holdout counts the same, as in the average; False: each row does, as in
            the micro average.
        resamples: How many, >= 1.
        level: Share of resamples that lie within, in (0, 1).

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: If there is no holdout, or one has no rows.
    """
    if not values or not all(len(each) for each in values.values()):
        raise ValueError(f"no rows to draw from: { ({n: len(v) for n, v in values.items()}) }")
    rows = sum(len(each) for each in values.values())
    means = np.zeros(resamples)
    for number in sorted(values):
        scores = np.asarray(values[number], dtype=np.float64)
        weight = 1 / len(values) if average else len(scores) / rows
        means += weight * _resampled_means(scores, generator, resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference_interval(
    before: Mapping[int, np.ndarray],
    after: Mapping[int, np.ndarray],
    generator: np.random.Generator,
    *,
    average: bool,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of the new model's mean score minus the old one's, from paired resamples.

    Both are scored on the same rows of a resample. So the difference of their means is the mean of
    each row's difference, and what both find hard or easy does not widen the interval.

    Args:
        before: Score of each row by the old model, `(rows,)`, by holdout.
        after: By the new one, of the same rows in the same order.
        generator: As in `interval`; so are the others.
        average: As there.
        resamples: As there.
        level: As there.

    Raises:
        ValueError: If the two are not of the same holdouts and rows, or there are none.
    """
    _check_pairs(before, after)
    differences = {
        n: np.asarray(after[n], np.float64) - np.asarray(before[n], np.float64) for n in after
    }
    return interval(differences, generator, average=average, resamples=resamples, level=level)


def within_noise(difference: tuple[float, float]) -> bool:
    """Return whether the interval of a difference contains 0: neither better nor worse is shown."""
    low, high = difference
    return low <= 0 <= high


def _resampled_means(
    scores: np.ndarray, generator: np.random.Generator, resamples: int
) -> np.ndarray:
    """Return the mean of each resample, float64 `(resamples,)`.

    A mean asks only how often each distinct score is drawn, and these counts are multinomial: for
    right and wrong two numbers a resample in place of one index a row.
    """
    distinct, counts = np.unique(scores, return_counts=True)
    at_once = max(1, CELLS // len(distinct))
    means = [
        generator.multinomial(len(scores), counts / len(scores), min(at_once, resamples - start))
        @ (distinct / len(scores))
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(means)


def _check_pairs(before: Mapping[int, np.ndarray], after: Mapping[int, np.ndarray]) -> None:
    rows = [{n: len(each[n]) for n in sorted(each)} for each in (before, after)]
    if rows[0] != rows[1] or not rows[0]:
        raise ValueError(f"not the same rows of the same holdouts: {rows[0]} and {rows[1]}")
