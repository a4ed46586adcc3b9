"""The estimate of accuracy without labels, against simulated models of known accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from renate_stages.shift.estimate import (
    LEAST_ROWS,
    expected_accuracy,
    isotonic_curve,
    joined,
    past_estimates,
)


def answers(rows: int, seed: int, low: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return confidence of an overconfident model, whether it is correct, and the true chance."""
    generator = np.random.default_rng(seed)
    chance = generator.uniform(low, 1, rows)
    confidence = chance**0.3  # always higher
    return confidence, generator.random(rows) < chance, chance


def test_estimate_is_the_accuracy_of_an_overconfident_model_on_harder_rows():
    confidence, correct, _ = answers(4000, 0, low=0.2)
    new_confidence, new_correct, chance = answers(4000, 1, low=0.2)
    hard = chance < 0.5
    estimate = expected_accuracy((confidence, correct), new_confidence[hard])
    assert estimate == pytest.approx(new_correct[hard].mean(), abs=0.03)
    assert new_confidence[hard].mean() > estimate + 0.2, "the confidence itself promises too much"
    assert abs(correct.mean() - new_correct[hard].mean()) > 0.2, "the past accuracy is no estimate"


@pytest.mark.parametrize("digits", [1, 12])
def test_isotonic_curve_matches_scikit_learn(digits):
    confidence, correct, _ = answers(500, 3)
    confidence = confidence.round(digits)
    points, fitted = isotonic_curve(confidence, correct)
    reference = IsotonicRegression(out_of_bounds="clip").fit(confidence, correct.astype(float))
    asked = np.linspace(0, 1, 101)
    np.testing.assert_allclose(np.interp(asked, points, fitted), reference.predict(asked))
    assert (np.diff(fitted) >= 0).all()


def test_calibration_curve_is_the_mean_of_pooled_neighbours():
    confidence = np.array([0.1, 0.2, 0.3, 0.4])
    correct = np.array([False, True, False, True])  # 0.2 and 0.3 are pooled: 0, 1/2, 1/2, 1
    for asked, expected in (
        ([0.2], 0.5),
        ([0.1, 0.4], 0.5),
        ([0.05, 0.25, 0.9], 0.5),
        ([0.35], 0.75),
    ):
        assert expected_accuracy((confidence, correct), np.array(asked)) == pytest.approx(expected)


def test_each_past_holdout_is_estimated_from_the_others():
    holdouts = {number: answers(800, number, low=0.3)[:2] for number in (1, 2, 3)}
    found = past_estimates({**holdouts, 4: (np.empty(0), np.empty(0, bool))})
    assert list(found) == [1, 2, 3]
    for number, (estimate, accuracy) in found.items():
        others = joined({n: rows for n, rows in holdouts.items() if n != number})
        assert len(others[0]) == 1600
        assert estimate == expected_accuracy(others, holdouts[number][0])
        assert accuracy == holdouts[number][1].mean()
        assert estimate == pytest.approx(accuracy, abs=0.05)


def test_single_past_holdout_is_estimated_by_halves():
    confidence, correct, _ = answers(401, 0)
    ((estimate, accuracy),) = past_estimates({1: (confidence, correct)}).values()
    even, odd = ((confidence[start::2], correct[start::2]) for start in (0, 1))
    first, second = expected_accuracy(odd, even[0]), expected_accuracy(even, odd[0])
    assert estimate == pytest.approx((201 * first + 200 * second) / 401)
    assert accuracy == correct.mean()
    few = 2 * LEAST_ROWS - 1
    assert past_estimates({1: (confidence[:few], correct[:few])}) == past_estimates({}) == {}
