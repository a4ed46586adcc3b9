"""Continual-learning metrics, such as forgetting and transfer, from a matrix of evaluations.

In all formulas, a[t][i] is the metric on holdout i (the test split of update i) after update t, and
b[i] that of the untrained model. Updates are numbered from 1; numbers may be missing, and any entry
may be missing or NaN. A figure is the mean over its known terms. It is NaN if no term is known, and
0 if it has no terms because t is the first update.

With `higher_is_better=False` (a loss), the differences change sign, so that forgetting > 0 always
means worse and transfer > 0 always means better.

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
        KeyError: If the matrix has no row for the update; all functions here raise this.
    """
    return _mean(value for holdout, value in matrix[update].items() if holdout <= update)


def worst_holdout(matrix: Matrix, update: int, *, higher_is_better: bool = True) -> float:
    """Return the worst value over the holdouts so far.

        min over i <= t of a[t][i]

    Args:
        matrix: a[t][i].
        update: t.
        higher_is_better: False for a loss; the worst value is then the highest.
    """
    known = [v for i, v in matrix[update].items() if i <= update and not np.isnan(v)]
    worst = min if higher_is_better else max
    return worst(known, default=float("nan"))


def forgetting(matrix: Matrix, update: int, *, higher_is_better: bool = True) -> float:
    """Return how far the metric is below its best value so far, on holdouts of earlier updates.

        F_t = mean over i < t of ( max over i <= k < t of a[k][i] - a[t][i] )

    The paper's maximum is over all k < t. Here it is over models trained on update i, because a
    model cannot forget what it has not learnt. Negative values mean that later updates helped.

    Args:
        matrix: a[t][i].
        update: t.
        higher_is_better: False for a loss; the best value is then the lowest.
    """
    sign = 1.0 if higher_is_better else -1.0
    past = _past_holdouts(matrix, update)

    def best(holdout: int) -> float:
        values = [sign * _at(matrix, k, holdout) for k in matrix if holdout <= k < update]
        return max((value for value in values if not np.isnan(value)), default=float("nan"))

    return _mean(best(i) - sign * _at(matrix, update, i) for i in past) if past else 0.0


def backward_transfer(matrix: Matrix, update: int, *, higher_is_better: bool = True) -> float:
    """Return the effect of later updates on the holdouts of earlier ones.

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
    """Return the effect of earlier updates on a holdout before its own update.

        FWT_t = mean over 1 < i <= t of ( a[i-1][i] - b[i] )

    where i - 1 means the update before i, whatever its number.

    Args:
        matrix: a[t][i], with the entries a[i-1][i].
        update: t.
        untrained: b[i].
        higher_is_better: False for a loss.
    """
    sign = 1.0 if higher_is_better else -1.0
    _ = matrix[update]  # the KeyError that `average` promises
    learnt = sorted(t for t in matrix if t <= update)
    # The previous update of each update except the first.
    before = dict(zip(learnt[1:], learnt, strict=False))
    gains = [
        sign * (_at(matrix, before[i], i) - untrained.get(i, float("nan"))) for i in learnt[1:]
    ]
    return _mean(gains) if gains else 0.0


def intransigence(
    matrix: Matrix, update: int, reference: Mapping[int, float], *, higher_is_better: bool = True
) -> float:
    """Return how far each update's own result is below that of a reference model.

        I_t = mean over i <= t of ( a*[i] - a[i][i] )

    where a*[i] is the metric on holdout i of a reference model trained on all data up to update i
    at once. The paper reports a*[t] - a[t][t] for the last update only.

    Args:
        matrix: a[t][i].
        update: t.
        reference: a*[i]; missing holdouts are ignored.
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
