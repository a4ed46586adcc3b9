"""Flips and intervals against hand-worked numbers, a reference loop and nominal coverage."""

from __future__ import annotations

import numpy as np
import pytest

from renate_stages.evaluation.comparison import (
    difference_interval,
    flips,
    interval,
    within_noise,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def interval_reference(
    values: dict[int, np.ndarray], average: bool, resamples: int = 4000
) -> tuple[float, float]:
    """The textbook loop: draw rows, compute the figure, take the quantiles."""
    generator, figures = rng(99), []
    for _ in range(resamples):
        drawn = {n: v[generator.integers(len(v), size=len(v))] for n, v in values.items()}
        if average:
            figures.append(np.mean([each.mean() for each in drawn.values()]))
        else:
            figures.append(np.concatenate(list(drawn.values())).mean())
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)


SCORES = {
    1: np.arange(60) % 4 > 0,  # 0.75 of 60
    2: np.arange(200) % 2 > 0,  # 0.5 of 200
}


@pytest.mark.parametrize("average", [True, False])
def test_interval_matches_a_loop_over_resampled_rows(average: bool) -> None:
    found = interval(SCORES, rng(), average=average, resamples=20_000)
    assert found == pytest.approx(interval_reference(SCORES, average), abs=0.006)
    middle = (0.75 + 0.5) / 2 if average else (45 + 100) / 260
    assert found[0] < middle < found[1]


@pytest.mark.parametrize("average", [True, False])
def test_interval_accepts_real_valued_scores(average: bool) -> None:
    values = {n: rng(n).gamma(2.0, size=80 * n) for n in (1, 2)}
    found = interval(values, rng(), average=average, resamples=20_000)
    assert found == pytest.approx(interval_reference(values, average), abs=0.02)


def test_interval_is_equal_if_resamples_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {1: rng(1).normal(size=50)}
    whole = interval(values, rng(), average=True, resamples=301)
    monkeypatch.setattr("renate_stages.evaluation.comparison.CELLS", 50 * 7)
    parts = interval(values, rng(), average=True, resamples=301)
    assert parts == pytest.approx(whole, abs=1e-12)


def test_difference_interval_is_paired() -> None:
    before = {1: rng(1).random(500) < 0.7, 2: rng(2).random(300) < 0.8}
    after = {n: each.copy() for n, each in before.items()}
    after[1][np.flatnonzero(~before[1])[:10]] = True  # ten examples won, none lost
    paired = difference_interval(before, after, rng(), average=False, resamples=20_000)
    rows = {n: after[n].astype(float) - before[n] for n in after}
    assert paired == pytest.approx(interval_reference(rows, average=False), abs=0.002)
    alone = interval(after, rng(), average=False)
    assert paired[0] > 0  # though the two models' own intervals overlap
    assert paired[1] - paired[0] < (alone[1] - alone[0]) / 2


def test_interval_is_deterministic_and_independent_of_holdout_order() -> None:
    turned = dict(reversed(SCORES.items()))
    assert interval(SCORES, rng(), average=True) == interval(turned, rng(), average=True)
    assert interval(SCORES, rng(), average=True) != interval(SCORES, rng(1), average=True)


def test_equal_models_have_no_difference() -> None:
    assert difference_interval(SCORES, SCORES, rng(), average=True) == (0.0, 0.0)
    assert within_noise((0.0, 0.0))


def test_higher_level_gives_a_wider_interval() -> None:
    narrow = interval(SCORES, rng(), average=False, level=0.5)
    wide = interval(SCORES, rng(), average=False, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("average", [True, False])
def test_equally_good_models_are_within_noise_at_the_nominal_rate(average: bool) -> None:
    """Of 400 pairs of equally good models, 95 % are within noise: 380 +- 4 sigma."""
    generator, called = rng(7), 0
    for _ in range(400):
        before = {n: generator.random(size) < 0.7 for n, size in ((1, 150), (2, 400))}
        after = {n: generator.random(len(each)) < 0.7 for n, each in before.items()}
        called += within_noise(difference_interval(before, after, generator, average=average))
    assert 380 - 18 <= called <= 380 + 18


def test_within_noise_means_that_the_interval_contains_zero() -> None:
    assert within_noise((-0.1, 0.2))
    assert not within_noise((0.01, 0.2))
    assert not within_noise((-0.2, -0.01))


def test_flips_match_hand_worked_numbers() -> None:
    before = {1: np.array([1, 1, 1, 0], bool), 2: np.array([0, 1], bool), 3: np.ones(5, bool)}
    after = {1: np.array([0, 1, 1, 1], bool), 2: np.array([1, 1], bool)}
    found = flips(before, after)  # holdout 3 was measured for only one model
    assert (found.negative, found.positive) == (1 / 6, 2 / 6)
    assert found.holdout_negative == {1: 0.25, 2: 0.0}
    assert found.holdout_positive == {1: 0.25, 2: 0.5}


def test_interval_of_a_ratio_equals_that_of_resampled_rows() -> None:
    """Scores of a tagger: each row has its own number of labels, and one row has none."""
    values = {
        1: np.array([[2, 3], [0, 0], [5, 9], [1, 1], [0, 4]]),
        2: np.array([[7, 8], [1, 6], [3, 3]]),
    }
    drawn = {n: rng(n).integers(len(v), size=(20_000, len(v))) for n, v in values.items()}
    with np.errstate(invalid="ignore"):
        sums = {n: values[n][rows].sum(axis=1) for n, rows in drawn.items()}
        ratios = [each[:, 0] / each[:, 1] for each in sums.values()]
        overall = np.divide(*sum(sums.values()).T)
    for average, expected in ((True, np.mean(ratios, axis=0)), (False, overall)):
        found = interval(values, rng(), average=average, resamples=20_000)
        assert found == pytest.approx(np.nanquantile(expected, [0.025, 0.975]), abs=0.02)
    other = {n: each * [[2, 1]] for n, each in values.items()}
    low, high = difference_interval(values, other, rng(), average=False, resamples=20_000)
    assert (low, high) == pytest.approx(np.quantile(overall, [0.025, 0.975]), abs=0.02)
    with pytest.raises(ValueError, match="divisors of the rows of holdout 1 differ"):
        difference_interval(
            values, {n: each + 1 for n, each in values.items()}, rng(), average=True
        )


def test_flips_add_up_to_the_change_in_accuracy() -> None:
    before, after = ({1: rng(seed).random(900) < 0.6} for seed in (1, 2))
    found = flips(before, after)
    change = after[1].mean() - before[1].mean()
    assert found.positive - found.negative == pytest.approx(change)


def test_holdouts_that_cannot_be_paired_are_refused() -> None:
    one, two = {1: np.ones(3, bool)}, {1: np.ones(4, bool)}
    for pair in ((one, two), (one, {2: np.ones(3, bool)}), ({}, {})):
        with pytest.raises(ValueError, match="holdouts or their numbers of rows differ"):
            difference_interval(*pair, rng(), average=True)
    with pytest.raises(ValueError, match="holdouts or their numbers of rows differ"):
        flips(one, two)
    for empty in ({}, {1: np.ones(0)}):
        with pytest.raises(ValueError, match="no rows to draw from"):
            interval(empty, rng(), average=True)
