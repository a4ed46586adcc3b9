"""Shift detectors: comparison with reference code, calibration, power, saving and errors."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import scipy.stats

from renate_stages import errors, files
from renate_stages.shift import (
    DETECTORS,
    BlackBoxShift,
    CategoricalChiSquare,
    ClassifierTwoSample,
    Detector,
    KolmogorovSmirnov,
    LabelChiSquare,
    MaximumMeanDiscrepancy,
    MissingRates,
    NewWords,
    ShiftResult,
    bonferroni,
    holm,
    load_detector,
)
from renate_stages.shift.kolmogorov_smirnov import largest_distances, p_values_of

stats: Any = scipy.stats  # its results' attributes are not typed


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def attribution_of(result: ShiftResult) -> np.ndarray:
    assert result.attribution is not None
    return result.attribution


# -- Kolmogorov-Smirnov


@pytest.mark.parametrize("digits", [0, 1, 8])  # many, some and no ties
def test_ks_distances_and_p_values_match_scipy(digits):
    reference = rng(1).normal(size=(80, 300)).round(digits)  # more features than are sorted at once
    new = rng(2).normal(np.linspace(0, 1, 300), 1, size=(60, 300)).round(digits)
    found = largest_distances(reference, new)
    references = [stats.ks_2samp(reference[:, i], new[:, i], method="asymp") for i in range(300)]
    np.testing.assert_allclose(found, [each.statistic for each in references], atol=1e-12)
    expected = np.array([each.pvalue for each in references])
    p_values = p_values_of(found, 80, 60)
    assert (p_values >= expected * (1 - 1e-9)).all(), "p-values are conservative"
    small = expected < 0.1
    np.testing.assert_allclose(p_values[small], expected[small], rtol=1e-4)


def test_ks_distance_of_disjoint_samples_is_exactly_one():
    for n in range(4, 60):  # sums of 1 / n may exceed 1
        distances = largest_distances(np.zeros((n, 1)), np.ones((2 * n + 1, 1)))
        assert distances == 1 and p_values_of(distances, n, 2 * n + 1) < 0.1


def test_ks_p_value_is_corrected_and_the_shifted_feature_is_identified():
    reference, new = rng(1).normal(size=(200, 10)), rng(2).normal(size=(150, 10))
    new[:, 7] *= 3  # only the spread changes
    result = KolmogorovSmirnov("bonferroni").fit(reference).test(new, rng())
    alone = [stats.ks_2samp(reference[:, i], new[:, i], method="asymp").pvalue for i in range(10)]
    assert result.p_value == pytest.approx(10 * min(alone), rel=1e-3)
    assert result.attribution is not None and result.feature_p_values is not None
    assert result.attribution.argmax() == result.feature_p_values.argmin() == 7
    assert result.effect_size == result.attribution[7]
    assert (result.feature_p_values < 0.05).sum() == 1


def test_bonferroni_and_holm_corrections_match_their_definitions():
    p_values = np.array([0.04, 0.01, 0.5, 0.02])
    np.testing.assert_allclose(bonferroni(p_values), [0.16, 0.04, 1, 0.08])
    np.testing.assert_allclose(holm(p_values), [0.08, 0.04, 0.5, 0.06])
    np.testing.assert_allclose(holm(np.array([0.01, 0.011])), [0.02, 0.02])  # never decreasing
    for seed in range(20):
        drawn = rng(seed).uniform(size=6)
        assert (holm(drawn) <= bonferroni(drawn)).all()


# -- the classifier


def test_classifier_p_value_is_the_binomial_tail_probability():
    reference, new = rng(1).normal(size=(100, 4)), rng(2).normal(0.4, 1, size=(70, 4))
    result = ClassifierTwoSample().fit(reference).test(new, rng())
    right = round(result.statistic * 70)  # of 70 test rows, half of 2 * 70
    assert result.statistic == right / 70
    tail = sum(math.comb(70, k) for k in range(right, 71)) / 2**70
    assert result.p_value == pytest.approx(tail)
    assert result.effect_size == pytest.approx(2 * result.statistic - 1)


def test_classifier_identifies_the_shifted_feature_at_any_scale():
    reference, new = rng(1).normal(size=(300, 5)), rng(2).normal(size=(300, 5))
    new[:, 2] += 1
    for scale in (1e-3, 1e3):
        unit = np.array([1, 1, scale, 1, 1])
        result = ClassifierTwoSample().fit(reference * unit).test(new * unit, rng())
        assert result.attribution is not None and result.attribution.argmax() == 2
        assert result.p_value < 1e-3


# -- labels


def test_label_chi_square_matches_scipy():
    reference, new = np.repeat([0, 1, 5], [30, 50, 20]), np.repeat([0, 1, 5], [20, 20, 35])
    result = LabelChiSquare().fit(reference).test(new, rng())
    expected = stats.chi2_contingency([[30, 50, 20], [20, 20, 35]], correction=False)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.effect_size == pytest.approx(math.sqrt(expected.statistic / 175))
    assert result.attribution is not None
    assert result.attribution.sum() == pytest.approx(expected.statistic)


def test_label_permutation_p_value_approximates_the_exact_p_value():
    reference, new = np.repeat([0, 1], [5, 1]), np.repeat([0, 1], [2, 4])
    result = LabelChiSquare(permutations=20_000).fit(reference).test(new, rng())
    both = np.concatenate([reference, new])
    chosen = [both[list(rows)].sum() for rows in itertools.combinations(range(12), 6)]
    exact = np.mean([abs(ones - 2.5) >= 1.5 for ones in chosen])  # like the observed 1
    assert result.p_value == pytest.approx(exact, abs=0.015)


def test_unseen_class_is_a_label_shift_and_a_single_common_class_is_not():
    result = LabelChiSquare().fit(np.repeat([0, 1], 50)).test(np.repeat([0, 7], 50), rng())
    assert result.p_value < 1e-10
    assert LabelChiSquare().fit(np.ones(5, int)).test(np.ones(9, int), rng()).p_value == 1


def test_black_box_shift_solves_the_confusion_matrix_for_class_weights():
    pairs = np.array([[0, 0]] * 40 + [[1, 0]] * 10 + [[0, 1]] * 5 + [[1, 1]] * 45)
    new = np.repeat([0, 1], [25, 75])
    result = BlackBoxShift().fit(pairs).test(new, rng())
    weights = np.linalg.solve([[0.40, 0.05], [0.10, 0.45]], [0.25, 0.75])
    np.testing.assert_allclose(attribution_of(result), weights)
    assert result.effect_size == pytest.approx(np.abs(0.5 * weights - 0.5).sum() / 2)
    expected = stats.chi2_contingency([[45, 55], [25, 75]], correction=False)
    assert result.p_value == pytest.approx(expected.pvalue)


def test_black_box_shift_recovers_class_weights_despite_an_inaccurate_model():
    generator = rng(5)
    confusion = np.array([[0.7, 0.2, 0.1], [0.15, 0.8, 0.05], [0.2, 0.2, 0.6]])

    def predicted(labels):
        return np.array([generator.choice(3, p=confusion[label]) for label in labels])

    labels, shifted = np.repeat([0, 1, 2], 3000), np.repeat([0, 1, 2], [900, 4500, 3600])
    detector = BlackBoxShift().fit(np.stack([predicted(labels), labels], axis=1))
    result = detector.test(predicted(shifted), generator)
    np.testing.assert_allclose(attribution_of(result), [0.3, 1.5, 1.2], atol=0.1)


def test_black_box_shift_class_shares_are_nonnegative_and_sum_to_one():
    pairs = np.array([[0, 0]] * 30 + [[1, 0]] * 20 + [[0, 1]] * 20 + [[1, 1]] * 30)
    result = BlackBoxShift().fit(pairs).test(np.ones(50, int), rng())
    assert result.attribution is not None
    assert (result.attribution >= 0).all() and result.attribution.mean() == pytest.approx(1)


# -- all detectors


def draw(name: str, generator: np.random.Generator, rows: int, shift: float) -> np.ndarray:
    """Draw rows, labels or predictions for a detector; `shift` 0 is the reference distribution."""
    labels = generator.choice(3, size=rows, p=[0.5 - shift / 4, 0.3, 0.2 + shift / 4])
    if name == "label_chi2":
        return labels
    if name == "bbse":
        return np.where(generator.random(rows) < 0.8, labels, generator.integers(3, size=rows))
    if name == "words":
        words = generator.zipf(1.5, size=(rows, 20)) + 10**6 * (
            generator.random((rows, 20)) < shift / 5
        )
        return np.array([" ".join(f"w{word}" for word in row) for row in words])
    if name == "chi2":
        return np.stack(
            [generator.permutation(labels), labels, generator.integers(9, size=rows)], 1
        )
    values = generator.normal(shift * np.array([1, 0, 0, 0]), 1, size=(rows, 4))
    if name == "missing":
        values[generator.random((rows, 4)) < 0.2 + shift * np.array([0, 0.2, 0, 0])] = np.nan
    return values


def fitted(detector: Detector, generator: np.random.Generator, rows: int) -> Detector:
    if detector.name != "bbse":
        return detector.fit(draw(detector.name, generator, rows, 0))
    labels = draw("label_chi2", generator, rows, 0)
    predicted = np.where(generator.random(rows) < 0.8, labels, generator.integers(3, size=rows))
    return detector.fit(np.stack([predicted, labels], axis=1))


EACH: dict[str, Detector] = {
    "mmd": MaximumMeanDiscrepancy(permutations=99),
    "mmd, linear": MaximumMeanDiscrepancy(estimate="linear"),
    "ks": KolmogorovSmirnov(),
    "c2st": ClassifierTwoSample(),
    "chi2": CategoricalChiSquare(permutations=99),
    "missing": MissingRates(),
    "words": NewWords(permutations=99),
    "label_chi2": LabelChiSquare(permutations=99),
    "bbse": BlackBoxShift(permutations=99),
}


def test_every_detector_is_covered_by_the_common_tests():
    assert {each.name for each in EACH.values()} == DETECTORS.keys()


@pytest.mark.parametrize("name", EACH)
def test_false_alarm_rate_is_within_its_binomial_interval(name):
    alpha, repeats = 0.1, 300
    alarms = 0
    for seed in range(repeats):
        generator = np.random.default_rng([seed, 17])
        detector = fitted(EACH[name], generator, 60)
        new = draw(detector.name, generator, 40, 0)
        alarms += detector.test(new, generator).p_value <= alpha
    low, high = stats.binom.interval(0.999, repeats, alpha)
    assert alarms <= high, "more false alarms than alpha"
    if name not in ("ks", "c2st", "missing"):  # discrete p-values of these stay below alpha
        assert alarms >= low, "too few alarms: the detector would miss shifts"


@pytest.mark.parametrize("name", EACH)
def test_clear_shift_is_detected(name):
    detector = fitted(EACH[name], rng(1), 400)
    result = detector.test(draw(detector.name, rng(2), 400, 1.0), rng(3))
    assert result.p_value <= 0.01
    calm = detector.test(draw(detector.name, rng(4), 400, 0.0), rng(3))
    assert result.effect_size > calm.effect_size and calm.p_value > 0.01


@pytest.mark.parametrize("name", EACH)
def test_saved_detector_gives_equal_results_after_loading(tmp_path, name):
    detector = fitted(EACH[name], rng(1), 50)
    detector.save(tmp_path / "one")
    detector.save(tmp_path / "two")
    assert files.inventory(tmp_path / "one") == files.inventory(tmp_path / "two")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        "detector.json",
        "detector.safetensors",
    }
    loaded = load_detector(tmp_path / "one")
    assert type(loaded) is type(detector) and loaded.settings == detector.settings
    new = draw(detector.name, rng(2), 30, 0.5)
    assert str(asdict(loaded.test(new, rng(3)))) == str(asdict(detector.test(new, rng(3))))


# -- errors


@pytest.mark.parametrize("name", EACH)
def test_detector_refuses_to_test_before_fit(name):
    detector = type(EACH[name])()
    with pytest.raises(errors.UnfittedDetectorError, match="fit"):
        detector.test(draw(detector.name, rng(), 10, 0), rng())


@pytest.mark.parametrize("name", ["mmd", "ks", "c2st", "chi2", "missing"])
@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.zeros((5, 2, 2)), r"shape \(5, 2, 2\)"),
        (np.zeros((3, 2)), "n >= 4"),
        (np.zeros((5, 0)), r"shape \(5, 0\)"),
    ],
)
def test_rows_with_invalid_shape_are_refused(name, rows, says):
    with pytest.raises(errors.UncomparableRowsError, match=says):
        DETECTORS[name]().fit(rows)


@pytest.mark.parametrize("name", ["mmd", "c2st"])
def test_tests_of_whole_rows_refuse_values_that_are_not_finite(name):
    rows = np.array([[0.0], [1.0], [np.nan], [np.inf]])
    with pytest.raises(errors.UncomparableRowsError, match="2 of 4 rows"):
        DETECTORS[name]().fit(rows)


@pytest.mark.parametrize("name", ["mmd", "ks", "c2st", "chi2", "missing"])
def test_rows_with_another_number_of_features_are_refused(name):
    detector = DETECTORS[name]().fit(np.zeros((5, 2)))
    with pytest.raises(errors.UncomparableRowsError, match="3 features, but the reference has 2"):
        detector.test(np.zeros((5, 3)), rng())


@pytest.mark.parametrize("texts", [np.zeros(5), np.array(["a"] * 3), np.array([["a"] * 9])])
def test_arrays_that_are_not_texts_are_refused(texts):
    with pytest.raises(errors.UncomparableRowsError, match="texts"):
        NewWords().fit(texts)


@pytest.mark.parametrize("labels", [np.zeros(5), np.zeros((5, 3), int), np.zeros(0, int)])
def test_arrays_that_are_not_labels_are_refused(labels):
    with pytest.raises(errors.UncomparableRowsError, match="labels"):
        LabelChiSquare().fit(labels)
    with pytest.raises(errors.UncomparableRowsError):
        BlackBoxShift().fit(labels)


def test_damaged_or_unknown_saved_detector_is_refused(tmp_path):
    KolmogorovSmirnov().fit(np.zeros((5, 2))).save(tmp_path / "saved")
    described = tmp_path / "saved" / "detector.json"
    content = files.read_json(described)

    def load(**changes):
        files.write_json(described, {**content, **changes})
        return load_detector(tmp_path / "saved")

    with pytest.raises(errors.UnknownDetectorError, match="did you mean 'ks'"):
        load(detector="KS")
    with pytest.raises(errors.MalformedFileError, match="schema 1"):
        load(schema=2)
    with pytest.raises(errors.MalformedFileError, match="unexpected"):
        load(settings={"unexpected": 1})
    (tmp_path / "saved" / "detector.safetensors").write_bytes(b"cut")
    with pytest.raises(errors.MalformedFileError):
        load()
    with pytest.raises(errors.MalformedFileError):
        load_detector(tmp_path / "none")
