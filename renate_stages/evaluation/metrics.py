"""Figures that sum up continual learning, from the matrix of a metric over updates and holdouts.

In all formulas, a[t][i] is the metric on holdout i (the test split of update i) after update t, and
b[i] that of the untrained model. Updates are numbered from 1; numbers may be left out, and any
entry may be missing or NaN. A figure is the mean over those terms that are known: NaN if none of
its terms is, 0 if it has no terms because t is the first update.

Higher is better for accuracy and the like. With `higher_is_better=False` (a loss) the differences
change sign, so that forgetting > 0 always means worse and transfer > 0 always means better.

Sources:
    Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017:
        average (ACC), backward transfer (BWT), forward transfer (FWT).
    Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018: forgetting,
        intransigence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

Matrix = Mapping[int, Mapping[int, float]]  # a[update][holdout]


def average(matrix: Matrix, update: int) -> float:
    """Return the mean over the holdouts so far, each with equal weight.

        ACC_t = mean over i <= t of a[t][i]

    Args:
        matrix: a[t][i].
        update: t.

    Raises:
        KeyError: If the matrix has no row for the update; so do all functions here.
    """
    return _mean(value for holdout, value in matrix[update].items() if holdout <= update)


def micro_average(matrix: Matrix, update: int, rows: Mapping[int, int]) -> float:
    """Return the mean over the holdouts so far, each weighted by its number of examples.

        sum over i <= t of n[i] * a[t][i] / sum over i <= t of n[i]

    For a metric that is a mean over examples, this is the metric on all holdouts taken as one.

    Args:
        matrix: a[t][i].
        update: t.
        rows: n[i], number of examples of holdout i.

    Raises:
        KeyError: Also if the number of examples of a holdout is not given.
    """
    known = [
        (rows[holdout], value)
        for holdout, value in matrix[update].items()
        if holdout <= update and not np.isnan(value)
    ]
    total = sum(count for count, _ in known)
    return sum(count * value for count, value in known) / total if total else float("nan")


def worst_holdout(matrix: Matrix, update: int, *, higher_is_better: bool = True) -> float:
    """Return the worst value over the holdouts so far.

        min over i <= t of a[t][i]

    Args:
        matrix: a[t][i].
        update: t.
        higher_is_better: False for a loss: the worst is then the highest.
    """
    known = [v for i, v in matrix[update].items() if i <= update and not np.isnan(v)]
    worst = min if higher_is_better else max
    return worst(known, default=float("nan"))


def forgetting(matrix: Matrix, update: int, *, higher_is_better: bool = True) -> float:
    """Return how far the metric is below its best so far, over the holdouts of earlier updates.

        F_t = mean over i < t of ( max over i <= k < t of a[k][i] - a[t][i] )

    The paper's maximum is over all k < t. Here it is over those models that had been trained on
    update i: what a model lucky on data it never saw could do, was not learnt and is not forgotten.
    Negative where later updates helped.

    Args:
        matrix: a[t][i].
        update: t.
        higher_is_better: False for a loss: the best is then the lowest.
    """
    sign = 1.0 if higher_is_better else -1.0
    past = _past_holdouts(matrix, update)

    def best(holdout: int) -> float:
        values = [sign * _at(matrix, k, holdout) for k in matrix if holdout <= k < update]
        return max((value for value in values if not np.isnan(value)), default=float("nan"))

    return _mean(best(i) - sign * _at(matrix, update, i) for i in past) if past else 0.0


def backward_transfer(matrix: Matrix, update: int, *, higher_is_better: bool = True) -> float:
    """Return what learning later updates did to the holdouts of earlier ones.

        BWT_t = mean over i < t of ( a[t][i] - a[i][i] )

    Args:
        matrix: a[t][i].
        update: t.
        higher_is_better: False for a loss.
    """
    sign = 1.0 if higher_is_better else -1.0
    past = _past_holdouts(matrix, update)
    return _mean(sign * (_at(matrix, update, i) - _at(matrix, i, i)) for i in past) if past else 0.0


def forward_transfer(
    matrix: Matrix, update: int, untrained: Mapping[int, float], *, higher_is_better: bool = True
) -> float:
    """Return what learning earlier updates did to a holdout before its own update was learnt.

        FWT_t = mean over 1 < i <= t of ( a[i-1][i] - b[i] )

    where i - 1 stands for the update before i, whatever its number.

    Args:
        matrix: a[t][i], with the entries a[i-1][i].
        update: t.
        untrained: b[i].
        higher_is_better: False for a loss.
    """
    sign = 1.0 if higher_is_better else -1.0
    _ = matrix[update]  # the KeyError that `average` promises
    learnt = sorted(t for t in matrix if t <= update)
    before = dict(
        zip(learnt[1:], learnt, strict=False)
    )  # each update but the first: the one before
    gains = [
        sign * (_at(matrix, before[i], i) - untrained.get(i, float("nan"))) for i in learnt[1:]
    ]
    return _mean(gains) if gains else 0.0


def intransigence(
    matrix: Matrix, update: int, reference: Mapping[int, float], *, higher_is_better: bool = True
) -> float:
    """Return how far each update stayed, when it was learnt, below a model without old constraints.

        I_t = mean over i <= t of ( a*[i] - a[i][i] )

    where a*[i] is the metric on holdout i of a reference trained on all data up to update i at
    once. The paper gives a*[t] - a[t][t] of the last update alone.

    Args:
        matrix: a[t][i].
        update: t.
        reference: a*[i]; holdouts that it lacks do not count.
        higher_is_better: False for a loss.
    """
    sign = 1.0 if higher_is_better else -1.0
    _ = matrix[update]  # the KeyError that `average` promises
    gaps = [sign * (a - _at(matrix, i, i)) for i, a in reference.items() if i <= update]
    return _mean(gaps) if gaps else float("nan")


def _past_holdouts(matrix: Matrix, update: int) -> list[int]:
    _ = matrix[update]  # the KeyError that `average` promises
    return sorted({i for t, row in matrix.items() if t <= update for i in row if i < update})


def _at(matrix: Matrix, update: int, holdout: int) -> float:
    return matrix.get(update, {}).get(holdout, float("nan"))


def _mean(values: Iterable[float]) -> float:
    known = np.array([value for value in values if not np.isnan(value)], dtype=np.float64)
    return float(known.mean()) if known.size else float("nan")
