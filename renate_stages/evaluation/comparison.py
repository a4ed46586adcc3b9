"""Compare two models on the same holdouts: prediction flips, and bootstrap intervals.

Intervals are percentile bootstrap intervals (Efron & Tibshirani, "An Introduction to the
Bootstrap", 1993, chapter 13): each holdout is resampled with replacement to its own size, and the
figure is computed again. An interval shows how much a figure may vary with other examples of the
same kind, not with another training seed.

    low, high = difference_interval(before, after, generator, average=True)
    if within_noise((low, high)): ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

CELLS = 1 << 22  # int64 counts to hold in memory at once


@dataclass(frozen=True)
class Flips:
    """Shares of examples whose prediction became wrong or correct, in [0, 1].

    With r[j] and r'[j] whether the prediction for example j is correct before and after:

        negative = mean over j of r[j] and not r'[j]        positive = mean of not r[j] and r'[j]

    so that accuracy after - before = positive - negative. From Yan et al., "Positive-Congruent
    Training: Towards Regression-Free Model Updates", CVPR 2021 (negative flip rate).

    Args:
        negative: Share of all examples that were correct and are wrong now.
        positive: Share of all examples that were wrong and are correct now.
        holdout_negative: The negative share of each holdout.
        holdout_positive: The positive share of each holdout.
    """

    negative: float
    positive: float
    holdout_negative: Mapping[int, float]
    holdout_positive: Mapping[int, float]


def flips(before: Mapping[int, np.ndarray], after: Mapping[int, np.ndarray]) -> Flips:
    """Return the flips between two models, on the holdouts that both have predictions for.

    Args:
        before: Whether the old model is correct on each row, bool `(rows,)`, by holdout.
        after: The same for the new model, with rows in the same order.

    Raises:
        ValueError: If they have no holdout in common, or a holdout's numbers of rows differ.
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
        values: Score of each row, such as whether it is correct; bool or finite numbers `(rows,)`,
            by holdout. Or `(rows, 2)`: numerators and divisors, for a score that is the sum of the
            numerators over that of the divisors.
        generator: Draws the resamples, in ascending order of holdouts.
        average: Whether every holdout has equal weight, as in the average; otherwise every row has
            equal weight, as in a figure on all rows together.
        resamples: Number of resamples, >= 1.
        level: Share of resamples inside the interval, in (0, 1).

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: If there is no holdout, or a holdout has no rows.
    """
    if not values or not all(len(each) for each in values.values()):
        raise ValueError(f"no rows to draw from: { ({n: len(v) for n, v in values.items()}) }")
    sums = [_resampled_sums(_pairs(values[n]), generator, resamples) for n in sorted(values)]
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may have ignored rows alone
        if average:
            drawn = np.mean([numerator / divisor for numerator, divisor in sums], axis=0)
        else:
            numerator, divisor = np.sum(sums, axis=0)
            drawn = numerator / divisor
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
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

    Both models are scored on the same rows of each resample. So the difference of the means is the
    mean of the rows' differences, and rows that are hard or easy for both do not widen the interval.

    Args:
        before: The old model's score of each row, by holdout; see `interval`.
        after: The new model's scores of the same rows, in the same order, with equal divisors.
        generator: As in `interval`.
        average: As in `interval`.
        resamples: As in `interval`.
        level: As in `interval`.

    Raises:
        ValueError: If holdouts, their numbers of rows or divisors differ, or no holdout is given.
    """
    _check_pairs(before, after)
    differences = {}
    for number in after:
        old, new = _pairs(before[number]), _pairs(after[number])
        if not np.array_equal(old[:, 1], new[:, 1]):
            raise ValueError(f"the divisors of the rows of holdout {number} differ")
        differences[number] = np.stack([new[:, 0] - old[:, 0], new[:, 1]], axis=1)
    return interval(differences, generator, average=average, resamples=resamples, level=level)


def within_noise(difference: tuple[float, float]) -> bool:
    """Return whether the interval of a difference contains 0, so that there is no clear change."""
    low, high = difference
    return low <= 0 <= high


def _pairs(scores: np.ndarray) -> np.ndarray:
    """Return numerators and divisors, float64 `(rows, 2)`; scores alone have the divisor 1."""
    scores = np.asarray(scores, dtype=np.float64)
    return scores if scores.ndim == 2 else np.stack([scores, np.ones(len(scores))], axis=1)


def _resampled_sums(
    pairs: np.ndarray, generator: np.random.Generator, resamples: int
) -> np.ndarray:
    """Return the sums of numerators and of divisors of each resample, float64 `(2, resamples)`.

    They depend only on how often each distinct pair is drawn, and these counts are multinomial.
    With two distinct pairs this needs two numbers per resample instead of one index per row.
    """
    if (pairs[:, 1] == pairs[0, 1]).all():  # much faster than to sort pairs
        distinct, counts = np.unique(pairs[:, 0], return_counts=True)
        distinct = np.stack([distinct, np.full(len(distinct), pairs[0, 1])], axis=1)
    else:
        distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    at_once = max(1, CELLS // len(distinct))
    sums = [
        generator.multinomial(len(pairs), counts / len(pairs), min(at_once, resamples - start))
        @ distinct
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(sums).T


def _check_pairs(before: Mapping[int, np.ndarray], after: Mapping[int, np.ndarray]) -> None:
    rows = [{n: len(each[n]) for n in sorted(each)} for each in (before, after)]
    if rows[0] != rows[1] or not rows[0]:
        raise ValueError(f"holdouts or their numbers of rows differ: {rows[0]} and {rows[1]}")
