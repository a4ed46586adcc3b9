"""MMD compared with plain code: statistic, permutation test, bandwidth and linear estimate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from renate_stages.shift import MaximumMeanDiscrepancy
from renate_stages.shift.kernel import gaussian, median_heuristic, split_sums
from renate_stages.shift.mmd import draw_splits, permutation_p_value, unbiased


def plain_mmd(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """Return the unbiased MMD², summed pair by pair (Gretton et al. 2012, eq. 3)."""

    def k(a, b):
        return np.exp(-np.sum((a - b) ** 2) / (2 * bandwidth**2))

    n, m = len(x), len(y)
    own = sum(k(x[i], x[j]) for i, j in itertools.permutations(range(n), 2)) / (n * (n - 1))
    other = sum(k(y[i], y[j]) for i, j in itertools.permutations(range(m), 2)) / (m * (m - 1))
    return own + other - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def plain_p_value(rows: np.ndarray, splits: np.ndarray, bandwidth: float) -> float:
    """Return the share of splits whose statistic is at least that of the first, by a loop."""
    found = [plain_mmd(rows[split], rows[~split], bandwidth) for split in splits]
    return (sum(each >= found[0] - 1e-10 for each in found[1:]) + 1) / len(found)


@pytest.fixture
def samples() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(9, 3)), generator.normal(0.4, 1.2, size=(12, 3))


def test_mmd_statistic_matches_the_plain_unbiased_mmd(samples):
    x, y = samples
    found = MaximumMeanDiscrepancy(permutations=5, bandwidth=1.5).fit(x)
    result = found.test(y, np.random.default_rng(1))
    assert result.statistic == pytest.approx(plain_mmd(x, y, 1.5), abs=1e-12)
    assert result.effect_size == pytest.approx(np.sqrt(plain_mmd(x, y, 1.5)), abs=1e-12)


def test_permutation_p_value_matches_a_plain_loop_over_the_same_splits(samples):
    rows = np.concatenate(samples)
    splits = draw_splits(np.random.default_rng(3), 9, len(rows), 40)
    assert (splits.sum(axis=1) == 9).all() and splits[0, :9].all()
    assert len({split.tobytes() for split in splits}) > 35, "the splits are random"
    assert permutation_p_value(unbiased(rows, splits, 1.5)) == plain_p_value(rows, splits, 1.5)


def test_permutation_p_value_counts_the_observed_split_and_is_never_zero():
    assert permutation_p_value(np.array([5.0, 1, 2, 3])) == 1 / 4
    assert permutation_p_value(np.array([2.0, 1, 2, 3])) == 3 / 4
    far = MaximumMeanDiscrepancy(permutations=99).fit(np.zeros((20, 1)) + np.arange(20)[:, None])
    assert far.test(1000 + np.arange(20.0), np.random.default_rng(0)).p_value == 1 / 100


@pytest.mark.parametrize("first", [2, 9, 15])
@pytest.mark.parametrize("tile", [1, 2, 7, 20, 21, 64])
def test_tiled_sums_match_sums_over_the_whole_kernel_matrix(samples, tile, first):
    rows = np.concatenate(samples)
    splits = draw_splits(np.random.default_rng(0), first, len(rows), 10)
    kernel = gaussian(rows, rows, 2.0)
    np.fill_diagonal(kernel, 0)
    marks = splits.astype(float)
    sums = split_sums(rows, splits, 2.0, tile)
    rtol = 1e-12 if tile >= len(rows) else 1e-6  # several tiles use float32
    np.testing.assert_allclose(sums.first, np.diag(marks @ kernel @ marks.T), rtol=rtol)
    others = 1 - marks
    np.testing.assert_allclose(sums.second, np.diag(others @ kernel @ others.T), rtol=rtol)
    np.testing.assert_allclose(sums.between, np.diag(marks @ kernel @ others.T), rtol=rtol)


def test_tiled_p_value_matches_the_p_value_of_the_whole_kernel_matrix():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(700, 8)), generator.normal(0.05, 1, size=(900, 8))
    found = [
        MaximumMeanDiscrepancy(permutations=200, tile=tile).fit(x).test(y, np.random.default_rng(1))
        for tile in (100, 2000)
    ]
    assert found[0].p_value == found[1].p_value
    assert 0.01 < found[0].p_value < 0.9, "extreme p-values would always be equal"
    assert found[0].statistic == pytest.approx(found[1].statistic, abs=1e-8)


def test_default_bandwidth_is_the_median_pairwise_distance(samples):
    rows = np.concatenate(samples)
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(rows, 2)]
    found = median_heuristic(rows, np.random.default_rng(0))
    assert found == pytest.approx(np.median(pairs))
    few = median_heuristic(rows, np.random.default_rng(0), most=10)
    assert few == median_heuristic(rows, np.random.default_rng(0), most=10) != found


def test_bandwidth_of_mostly_equal_rows_is_above_zero():
    rows = np.zeros((10, 2))
    assert median_heuristic(rows, np.random.default_rng(0)) == 1
    rows[0] = 3, 4
    assert median_heuristic(rows, np.random.default_rng(0)) == pytest.approx(5)


def test_mmd_is_reproducible_and_does_not_change_with_an_offset(samples):
    x, y = samples
    detector = MaximumMeanDiscrepancy(permutations=50)
    first = detector.fit(x).test(y, np.random.default_rng(4))
    assert detector.fit(x).test(y, np.random.default_rng(4)) == first
    moved = detector.fit(x + 1e4).test(y + 1e4, np.random.default_rng(4))
    assert moved.p_value == first.p_value
    assert moved.statistic == pytest.approx(first.statistic, abs=1e-9)


def test_linear_mmd_estimate_approximates_the_quadratic_statistic():
    x, y = np.array([[0.0]] * 4), np.array([[1.0]] * 4)
    result = (
        MaximumMeanDiscrepancy(estimate="linear", bandwidth=1.0)
        .fit(x)
        .test(y, np.random.default_rng(0))
    )
    assert result.statistic == pytest.approx(2 - 2 * np.exp(-0.5))
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(4000, 2)), generator.normal(0.5, 1, size=(4000, 2))
    linear = MaximumMeanDiscrepancy(estimate="linear", bandwidth=1.0).fit(x)
    all_pairs = MaximumMeanDiscrepancy(permutations=1, bandwidth=1.0).fit(x[:1500])
    quadratic = all_pairs.test(y[:1500], generator)
    found = linear.test(y, generator)
    assert found.statistic == pytest.approx(quadratic.statistic, abs=0.03)
    assert found.p_value < 0.01
