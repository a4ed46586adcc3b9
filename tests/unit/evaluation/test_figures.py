"""The summary figures, against numbers worked by hand and a plain reference of the formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from renate_stages.evaluation import (
    average,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
    worst_holdout,
)

# Accuracy on three holdouts after three updates, a[i-1][i] included; worked by hand below.
MATRIX = {
    1: {1: 0.9, 2: 0.3},
    2: {1: 0.7, 2: 0.8, 3: 0.2},
    3: {1: 0.8, 2: 0.5, 3: 0.6},
}
UNTRAINED = {1: 0.1, 2: 0.2, 3: 0.3}


def negated(matrix: dict[int, dict[int, float]]) -> dict[int, dict[int, float]]:
    return {t: {i: -value for i, value in row.items()} for t, row in matrix.items()}


def test_average_matches_hand_worked_numbers() -> None:
    assert average(MATRIX, 1) == 0.9  # holdout 2 belongs to a later update
    assert average(MATRIX, 2) == pytest.approx((0.7 + 0.8) / 2)
    assert average(MATRIX, 3) == pytest.approx(1.9 / 3)


def test_forgetting_matches_hand_worked_numbers() -> None:
    assert forgetting(MATRIX, 1) == 0
    assert forgetting(MATRIX, 2) == pytest.approx(0.9 - 0.7)
    assert forgetting(MATRIX, 3) == pytest.approx(((0.9 - 0.8) + (0.8 - 0.5)) / 2)


def test_backward_transfer_matches_hand_worked_numbers() -> None:
    assert backward_transfer(MATRIX, 1) == 0
    assert backward_transfer(MATRIX, 2) == pytest.approx(-0.2)
    assert backward_transfer(MATRIX, 3) == pytest.approx((-0.1 - 0.3) / 2)


def test_forward_transfer_matches_hand_worked_numbers() -> None:
    assert forward_transfer(MATRIX, 1, UNTRAINED) == 0
    assert forward_transfer(MATRIX, 2, UNTRAINED) == pytest.approx(0.3 - 0.2)
    assert forward_transfer(MATRIX, 3, UNTRAINED) == pytest.approx((0.1 + (0.2 - 0.3)) / 2)


def test_forgetting_uses_the_best_value_since_the_holdout_was_learned() -> None:
    # Holdout 2 scored 0.9 before update 2, by luck. The best model that had learnt it scored 0.5.
    lucky = {1: {1: 1.0, 2: 0.9}, 2: {1: 1.0, 2: 0.4}, 3: {1: 1.0, 2: 0.5}, 4: {1: 1.0, 2: 0.3}}
    assert forgetting(lucky, 4) == pytest.approx(((1 - 1) + (0.5 - 0.3)) / 2)


def test_forgetting_is_negative_when_later_updates_improve_a_holdout() -> None:
    assert forgetting({1: {1: 0.5}, 2: {1: 0.8, 2: 0.9}}, 2) == pytest.approx(-0.3)


@pytest.mark.parametrize("update", [1, 2, 3])
def test_signs_keep_their_meaning_when_lower_is_better(update: int) -> None:
    loss, untrained = negated(MATRIX), {i: -value for i, value in UNTRAINED.items()}
    for figure in (forgetting, backward_transfer):
        assert figure(loss, update, higher_is_better=False) == figure(MATRIX, update)
    assert forward_transfer(loss, update, untrained, higher_is_better=False) == forward_transfer(
        MATRIX, update, UNTRAINED
    )
    assert average(loss, update) == -average(MATRIX, update)


def test_figures_equal_the_papers_sums_on_a_full_random_matrix() -> None:
    size = 6
    a, b = np.random.default_rng(0).random((size, size)), np.random.default_rng(1).random(size)
    matrix = {t + 1: {i + 1: float(a[t, i]) for i in range(size)} for t in range(size)}
    untrained = {i + 1: float(b[i]) for i in range(size)}
    for t in range(1, size):  # 0-based here
        update = t + 1
        best = [max(a[k, i] for k in range(i, t)) for i in range(t)]
        assert average(matrix, update) == pytest.approx(a[t, :update].mean())
        assert forgetting(matrix, update) == pytest.approx(np.mean(best - a[t, :t]))
        assert backward_transfer(matrix, update) == pytest.approx(
            sum(a[t, i] - a[i, i] for i in range(t)) / t
        )
        assert forward_transfer(matrix, update, untrained) == pytest.approx(
            sum(a[i - 1, i] - b[i] for i in range(1, update)) / t
        )


def test_update_numbers_may_have_gaps() -> None:
    renumber = {1: 2, 2: 3, 3: 7}
    gaps = {renumber[t]: {renumber[i]: v for i, v in row.items()} for t, row in MATRIX.items()}
    untrained = {renumber[i]: value for i, value in UNTRAINED.items()}
    assert average(gaps, 7) == average(MATRIX, 3)
    assert forgetting(gaps, 7) == forgetting(MATRIX, 3)
    assert backward_transfer(gaps, 7) == backward_transfer(MATRIX, 3)
    assert forward_transfer(gaps, 7, untrained) == forward_transfer(MATRIX, 3, UNTRAINED)


def test_missing_and_nan_entries_are_left_out() -> None:
    nan = float("nan")
    matrix = {1: {1: nan}, 2: {1: 0.6, 2: 0.9}, 3: {1: 0.5, 3: 0.8}, 4: {1: 0.4, 2: nan, 4: 1.0}}
    assert average(matrix, 4) == pytest.approx(0.7)
    assert forgetting(matrix, 4) == pytest.approx(0.2)  # holdouts 2 and 3 have no value now
    assert forgetting(matrix, 3) == pytest.approx(0.1)
    assert math.isnan(backward_transfer(matrix, 4))  # holdout 1 has no value after its own update
    assert math.isnan(forward_transfer(matrix, 4, {}))


def test_figures_of_an_unmeasured_update_raise_key_error() -> None:
    for figure in (average, forgetting, backward_transfer):
        with pytest.raises(KeyError):
            figure(MATRIX, 4)
    with pytest.raises(KeyError):
        forward_transfer(MATRIX, 4, UNTRAINED)


def test_worst_holdout_matches_hand_worked_numbers() -> None:
    assert worst_holdout(MATRIX, 1) == 0.9  # holdout 2 does not count yet
    assert worst_holdout(MATRIX, 3) == 0.5
    assert worst_holdout(MATRIX, 3, higher_is_better=False) == 0.8
    assert worst_holdout({1: {1: math.nan, 0: 0.5}}, 1) == 0.5
    assert math.isnan(worst_holdout({1: {1: math.nan}}, 1))


def test_intransigence_matches_hand_worked_numbers() -> None:
    reference = {1: 0.95, 2: 0.85, 3: 0.9}
    assert intransigence(MATRIX, 1, reference) == pytest.approx(0.05)
    assert intransigence(MATRIX, 3, reference) == pytest.approx((0.05 + 0.05 + 0.3) / 3)
    assert intransigence(MATRIX, 3, {3: 0.5}) == pytest.approx(-0.1)  # better than the reference
    assert intransigence(
        negated(MATRIX), 3, {i: -a for i, a in reference.items()}, higher_is_better=False
    ) == pytest.approx(0.4 / 3)
    assert math.isnan(intransigence(MATRIX, 3, {}))
