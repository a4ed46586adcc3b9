"""Shift of columns of a table: categories, missing values, units, PSI, against plain references."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from renate_stages import errors
from renate_stages.shift import (
    CategoricalChiSquare,
    KolmogorovSmirnov,
    MaximumMeanDiscrepancy,
    MissingRates,
    stability_index,
)
from renate_stages.shift.categories import MOST_CELLS, cells_of
from renate_stages.shift.compared_rows import ComparedRows, check_names
from renate_stages.shift.encoding import MOST_SPREAD, RowEncoding
from renate_stages.shift.features import attribute, mean_changes
from renate_stages.shift.missing import two_proportions

stats: Any = scipy.stats  # its results' attributes are not typed


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def codes(counts: dict[float, int]) -> np.ndarray:
    """Return a column with each code as often as given, `(n, 1)`."""
    return np.repeat(list(counts), list(counts.values())).astype(float)[:, None]


def parts_of(result: Any) -> tuple[np.ndarray, np.ndarray]:
    return result.attribution, result.feature_p_values


# -- categories


def test_statistic_and_p_value_of_categories_match_scipy():
    reference, new = codes({0: 300, 1: 500, 7: 200}), codes({0: 240, 1: 360, 7: 200})
    result = CategoricalChiSquare(20_000).fit(reference).test(new, rng(1))
    expected = stats.chi2_contingency([[300, 500, 200], [240, 360, 200]], correction=False)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(expected.pvalue, rel=0.1)  # by 20,000 permutations
    assert result.effect_size == pytest.approx((abs(0.5 - 0.45) + abs(0.2 - 0.25)) / 2)


def test_p_values_of_several_columns_match_a_plain_loop_over_permutations():
    generator = rng(3)
    reference = generator.integers([3, 4, 2], size=(50, 3)).astype(float)
    new = generator.integers([3, 4, 2], size=(40, 3)).astype(float)
    new[:20, 1] = 0
    result = CategoricalChiSquare(60).fit(reference).test(new, rng(5))
    both, draws = np.concatenate([reference, new]), rng(5)

    def alone(is_first: np.ndarray) -> list[float]:
        found = []
        for column in both.T:
            table = [
                [np.sum(column[s] == code) for code in set(column)] for s in (is_first, ~is_first)
            ]
            found.append(stats.chi2_contingency(table, correction=False).pvalue)
        return found

    observed = alone(np.arange(90) < 50)
    reached = np.zeros(3)
    for _ in range(60):
        split = np.zeros(90, dtype=bool)
        split[draws.choice(90, 50, replace=False, shuffle=False)] = True
        reached += min(alone(split)) <= np.array(observed) + 1e-12
    np.testing.assert_allclose(parts_of(result)[1], (reached + 1) / 61)
    assert result.p_value == (reached.min() + 1) / 61 < 0.05


def test_new_category_counts_as_a_cell():
    reference, new = codes({0: 500, 1: 500}), codes({0: 270, 1: 270, 9: 60})
    result = CategoricalChiSquare().fit(reference).test(new, rng())
    assert result.p_value < 0.01
    assert result.effect_size == pytest.approx(0.1), "a tenth of the new rows"
    assert stability_index(reference[:, 0], new[:, 0], categorical=True) > 0.1


def test_missing_categories_count_as_a_category():
    reference, new = codes({0: 100, np.nan: 10}), codes({0: 100, np.nan: 60})
    result = CategoricalChiSquare().fit(reference).test(new, rng())
    assert result.p_value < 0.01
    assert result.effect_size == pytest.approx(60 / 160 - 10 / 110)


def test_column_of_unique_values_causes_no_alarm():
    reference, new = np.arange(400.0)[:, None], np.arange(400.0, 700)[:, None]
    result = CategoricalChiSquare().fit(reference).test(new, rng())
    assert result.p_value == 1 and result.effect_size == 0
    assert stability_index(reference[:, 0], new[:, 0], categorical=True) == 0


def test_rare_categories_share_a_cell_and_the_number_of_cells_is_bounded():
    cells = cells_of(np.array([3, 3, 3, 8, 9.0]), np.array([3, 3, 8, 7.0]))
    np.testing.assert_array_equal(cells, [0, 0, 0, 1, 1, 0, 0, 1, 1])
    many = np.tile(np.arange(300.0), 10)
    assert cells_of(many, many).max() + 1 == MOST_CELLS


def test_false_alarms_of_many_dependent_categorical_columns_are_at_most_alpha():
    alarms, repeats, alpha = 0, 200, 0.1
    for seed in range(repeats):
        generator = rng(seed)
        column = generator.integers(6, size=(90, 1))
        rows = np.concatenate([column, column % 3, generator.integers(40, size=(90, 2))], axis=1)
        detector = CategoricalChiSquare(99).fit(rows[:50].astype(float))
        alarms += detector.test(rows[50:].astype(float), generator).p_value <= alpha
    low, high = stats.binom.interval(0.999, repeats, alpha)
    assert low <= alarms <= high


# -- missing values


def test_ks_leaves_missing_values_out_of_their_column():
    reference, new = rng(1).normal(size=(200, 3)), rng(2).normal(0.3, 1, size=(150, 3))
    reference[::7, 0], new[::5, 0], new[:149, 2] = np.nan, np.nan, np.nan
    result = KolmogorovSmirnov("bonferroni").fit(reference).test(new, rng())
    distances, p_values = parts_of(result)
    for place in (0, 1):
        one, other = (each[~np.isnan(each[:, place]), place] for each in (reference, new))
        expected = stats.ks_2samp(one, other, method="asymp")
        assert distances[place] == pytest.approx(expected.statistic)
        assert p_values[place] == pytest.approx(min(1, 3 * expected.pvalue), rel=0.01)
    assert (distances[2], p_values[2]) == (0, 1), "one value is too few"


@pytest.mark.parametrize("counts", [(50, 500, 60, 300), (10, 100, 30, 90), (0, 80, 0, 60)])
def test_missing_rate_p_value_matches_scipy(counts):
    first, n, second, m = counts
    z, p_value = two_proportions(first, n, second, m)
    if first + second == 0:
        assert (z, p_value) == (0, 1)
        return
    table = [[first, n - first], [second, m - second]]
    expected = stats.chi2_contingency(table, correction=False)
    assert z**2 == pytest.approx(expected.statistic)
    assert p_value == pytest.approx(expected.pvalue)


def test_missing_rate_p_value_of_small_counts_is_exact():
    _, p_value = two_proportions(0, 60, 4, 40)
    expected = math.comb(40, 4) / math.comb(100, 4)  # all four are among the 40 new rows; the other
    assert p_value == pytest.approx(expected)  # extreme, none of them, is more likely than this


def test_missing_rates_are_compared_by_column_and_corrected_for_those_with_missing_values():
    reference, new = rng(1).normal(size=(500, 5)), rng(2).normal(size=(400, 5))
    reference[:25, 1] = new[:60, 1] = np.nan  # 5 % and 15 %
    reference[:50, 2] = new[:40, 2] = np.nan  # 10 % each
    result = MissingRates().fit(reference).test(new, rng())
    effects, p_values = parts_of(result)
    np.testing.assert_allclose(effects, [0, 0.1, 0, 0, 0])
    assert result.p_value == p_values[1] == pytest.approx(2 * two_proportions(25, 500, 60, 400)[1])
    assert result.effect_size == pytest.approx(0.1) and result.p_value < 1e-5
    assert p_values[[0, 2, 3, 4]].tolist() == [1, 1, 1, 1]


# -- PSI


@pytest.mark.parametrize("categorical", [False, True])
def test_stability_index_matches_a_plain_loop(categorical):
    reference, new = rng(1).normal(size=500), rng(2).normal(0.4, 1.3, size=400)
    if categorical:
        reference, new = reference.round(), new.round()
        both = np.concatenate([reference, new])
        frequent = [value for value in set(both) if np.sum(both == value) >= 5]
        members = [[each == value for each in (reference, new)] for value in frequent]
        members.append([~np.isin(each, frequent) for each in (reference, new)])
    else:
        new[:30] = np.nan
        edges = [-np.inf, *np.quantile(reference, np.arange(1, 10) / 10, method="lower"), np.inf]
        members = [
            [(each > low) & (each <= high) for each in (reference, new)]
            for low, high in itertools.pairwise(edges)
        ]
        members.append([np.isnan(reference), np.isnan(new)])
    counts = [[one.sum() + 0.5, other.sum() + 0.5] for one, other in members]
    counts = [each for each in counts if sum(each) > 1]
    totals = [sum(each[side] for each in counts) for side in (0, 1)]
    expected = 0.0
    for one, other in counts:
        p, q = one / totals[0], other / totals[1]
        expected += (q - p) * math.log(q / p)
    assert stability_index(reference, new, categorical=categorical) == pytest.approx(expected)


def test_stability_index_of_equal_and_of_constant_columns_is_zero():
    values = rng().normal(size=100)
    assert stability_index(values, values, categorical=False) == 0
    assert stability_index(np.ones(9), np.ones(9), categorical=False) == 0
    nothing = np.full(9, np.nan)
    assert stability_index(nothing, nothing, categorical=False) == 0
    assert stability_index(np.ones(9), nothing, categorical=False) > 1
    infinite = np.where(values > 1, np.inf, values)
    assert 0 < stability_index(values, infinite, categorical=False) < 0.5


# -- units


def test_numbers_are_scaled_by_median_and_interquartile_range_of_the_reference():
    reference = np.stack([rng(1).normal(50, 9, 301), np.repeat([0, 5.0], [300, 1])], axis=1)
    encoding = RowEncoding.fit(reference, np.zeros(2, bool))
    rows = np.array([[59.0, 5.0], [np.nan, np.nan], [np.inf, -np.inf], [1e30, 0.0]])
    low, median, high = np.quantile(reference[:, 0], [0.25, 0.5, 0.75])
    expected = (59 - median) / ((high - low) / 1.349)
    spread = reference[:, 1].std()  # its interquartile range is 0
    np.testing.assert_allclose(
        encoding.encode(rows),
        [
            [expected, min(5 / spread, MOST_SPREAD)],
            [0, 0],
            [MOST_SPREAD, -MOST_SPREAD],
            [MOST_SPREAD, 0],
        ],
    )
    constant = RowEncoding.fit(np.array([[3.0, np.nan]] * 5), np.zeros(2, bool))
    np.testing.assert_allclose(constant.encode(np.array([[4.0, 2.0]])), [[1, 2]])


def test_categories_become_indicators_and_unknown_ones_zeros():
    reference = np.array([[0, 4.0], [1, 4], [2, 2], [3, 4]])
    encoding = RowEncoding.fit(reference, np.array([False, True]))
    rows = np.array([[1.5, 2.0], [1.5, 4], [1.5, 9], [1.5, np.nan]])
    np.testing.assert_array_equal(
        encoding.encode(rows), [[0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    )
    assert encoding.owners.tolist() == [0, 1, 1]


def test_half_a_standard_deviation_in_one_of_ten_columns_of_other_units_is_found():
    units = 10.0 ** np.arange(-4, 6)
    reference, new = rng(1).normal(5, 1, size=(300, 10)), rng(2).normal(5, 1, size=(300, 10))
    new[:, 2] += 0.5
    reference[0, 4] = new[3, 2] = np.nan  # one missing value switches nothing off
    rows = ComparedRows.of([*"abcdefghij"], reference * units, new * units)
    result = MaximumMeanDiscrepancy(200).fit(rows.encoded[0]).test(rows.encoded[1], rng())
    assert result.p_value <= 0.01
    unscaled = ComparedRows.of([*"abcdefghij"], reference * units, new * units, scaled=False)
    blind = MaximumMeanDiscrepancy(200).fit(unscaled.encoded[0]).test(unscaled.encoded[1], rng())
    assert blind.p_value > 0.01, "without scaling, the largest unit hides it"
    assert rows.encoded[0].shape == unscaled.encoded[0].shape == (300, 10)


# -- which columns


def test_excluded_columns_are_left_out_and_judged_alone_ones_only_of_whole_rows():
    reference, new = rng(1).normal(size=(20, 4)), rng(2).normal(size=(20, 4))
    reference[:, 3] = new[:, 3] = 7
    names = ["date", "age", "price", "city"]
    rows = ComparedRows.of(
        names, reference, new, categorical=["city"], excluded=["date"], thresholds={"price": 0.3}
    )
    assert rows.names == names[1:] and rows.reference.shape == (20, 3)
    assert rows.of_kind("ks").tolist() == [True, True, False]
    assert rows.of_kind("chi2").tolist() == [False, False, True]
    assert rows.of_kind("missing").all()
    assert rows.encoded[0].shape == (20, 2) and rows.owners.tolist() == [0, 2]
    with pytest.raises(errors.UncomparableRowsError, match="all features are excluded"):
        ComparedRows.of(names, reference, new, excluded=names)
    alone = ComparedRows.of(names, reference, new, thresholds=dict.fromkeys(names, 0.1))
    with pytest.raises(errors.UncomparableRowsError, match="own threshold"):
        _ = alone.encoded


def test_unknown_and_unusable_names_of_columns_are_refused():
    check_names("shift.exclude", ["age"], ["age", "price"], "raw")
    with pytest.raises(errors.InvalidParamsError, match=r"shift.exclude.*'pric'.*'price'"):
        check_names("shift.exclude", ["pric"], ["age", "price"], "raw")
    with pytest.raises(errors.InvalidParamsError, match=r"shift.features is model"):
        check_names("shift.thresholds", ["age"], [], "model")


# -- figures of columns


def test_each_column_gets_the_figures_of_its_kind():
    reference, new = rng(1).normal(size=(300, 3)), rng(2).normal(size=(200, 3))
    reference[:, 1] = rng(3).integers(2, size=300)
    new[:, 1] = 0
    new[:60, 2] = np.nan
    rows = ComparedRows.of(["a", "city", "b"], reference, new, categorical=["city"])
    results = {
        "ks": KolmogorovSmirnov().fit(reference[:, [0, 2]]).test(new[:, [0, 2]], rng()),
        "chi2": CategoricalChiSquare().fit(reference[:, [1]]).test(new[:, [1]], rng()),
        "missing": MissingRates().fit(reference).test(new, rng()),
    }
    city, b, a = attribute(rows, results)
    assert [city.feature, b.feature, a.feature] == ["city", "b", "a"], "the significant ones first"
    assert (city.kind, b.kind) == ("categorical", "numeric")
    assert city.distance == pytest.approx(reference[:, 1].mean()) and city.mean_change is None
    assert city.p_value == pytest.approx(1 / 1001) and city.psi is not None and city.psi > 1
    assert b.missing_change == pytest.approx(0.3) and b.missing_p_value < 1e-10
    assert b.effect_at(0.01) == (pytest.approx(0.3), b.missing_p_value)
    assert a.effect_at(0.01) == (a.distance, a.p_value) and a.missing_change == 0
    ks = stats.ks_2samp(reference[:, 0], new[:, 0], method="asymp")
    assert a.distance == pytest.approx(ks.statistic)


def test_mean_change_leaves_missing_values_out():
    reference, new = np.array([[1.0], [3.0], [np.nan]]), np.array([[np.nan], [5.0], [3.0]])
    both = np.array([1, 3, 5, 3.0])
    np.testing.assert_allclose(mean_changes(reference, new), [2 / both.std()])
    assert mean_changes(np.full((3, 1), np.nan), new).tolist() == [0]
