"""Attribution of a shift to features, their names, and the file metrics/shift.csv."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import ks_2samp

from renate_stages import errors
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.shift import ClassifierTwoSample, KolmogorovSmirnov
from renate_stages.shift.compared_rows import ComparedRows
from renate_stages.shift.features import (
    COLUMNS,
    MOST,
    FeatureShift,
    attribute,
    mean_changes,
    write_features,
)
from renate_stages.shift.rows import Sample, raw_names, raw_rows


def samples(features: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return reference and new rows; new rows have a higher feature 2 and a wider feature 0."""
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(300, features))
    new = generator.normal(size=(200, features))
    new[:, 2] += 1
    new[:, 0] *= 3
    return reference, new


def rows_of(names: Sequence[str], reference: np.ndarray, new: np.ndarray, **kinds) -> ComparedRows:
    return ComparedRows.of(list(names), reference, new, **kinds)


def test_each_feature_gets_its_distance_p_value_and_mean_change():
    reference, new = samples()
    ks = KolmogorovSmirnov(correction="bonferroni").fit(reference).test(new, None)  # pyright: ignore[reportArgumentType]
    found = attribute(rows_of("abcd", reference, new), {"ks": ks})
    assert [each.feature for each in found][:2] == ["c", "a"], "the most shifted first"
    for each in found:
        column = "abcd".index(each.feature)
        one, other = reference[:, column], new[:, column]
        expected = ks_2samp(one, other, method="asymp")
        assert each.distance == pytest.approx(expected.statistic)  # pyright: ignore[reportAttributeAccessIssue]
        p_value = min(1.0, 4 * expected.pvalue)  # pyright: ignore[reportAttributeAccessIssue]
        assert each.p_value == pytest.approx(p_value, rel=0.01, abs=1e-12)
        spread = np.concatenate([one, other]).std()
        assert each.mean_change == pytest.approx((other.mean() - one.mean()) / spread)
        assert each.weight is None
    up, wider = found[:2]
    assert up.mean_change is not None and wider.mean_change is not None
    assert up.mean_change > 0.5 and abs(wider.mean_change) < 0.2


def test_classifier_coefficients_become_feature_weights():
    reference, new = samples()
    ks = KolmogorovSmirnov().fit(reference).test(new, None)  # pyright: ignore[reportArgumentType]
    c2st = ClassifierTwoSample().fit(reference).test(new, np.random.default_rng(0))
    found = attribute(rows_of("abcd", reference, new), {"ks": ks, "c2st": c2st})
    assert c2st.attribution is not None
    assert {each.feature: each.weight for each in found} == dict(
        zip("abcd", c2st.attribution.tolist(), strict=True)
    )
    assert max(found, key=lambda each: each.weight or 0).feature == "c"


def test_equally_shifted_features_keep_their_original_order():
    reference = np.tile(np.arange(10.0)[:, None], 12)
    new = reference.copy()
    new[:3] += 100  # distance 0.3 of each feature; rounding errors must not reorder them
    ks = KolmogorovSmirnov().fit(reference).test(new, None)  # pyright: ignore[reportArgumentType]
    names = [f"f{place}" for place in range(12)]
    assert [each.feature for each in attribute(rows_of(names, reference, new), {"ks": ks})] == names


def test_constant_reference_feature_has_a_finite_mean_change():
    reference, new = np.zeros((6, 3)), np.zeros((6, 3))
    new[:, 1] = 5
    new[:, 2] = [0, 0, 0, 0, 0, 6]
    np.testing.assert_allclose(mean_changes(reference, new), [0, 2, 1 / np.sqrt(2.75)])


def test_shift_csv_is_bounded_and_always_has_a_header(tmp_path):
    path = tmp_path / "metrics" / "shift.csv"
    write_features(path, [])
    header = "feature,distance,p_value,mean_change,weight,psi,missing_change,missing_p_value,kind\n"
    assert path.read_text() == header
    many = [FeatureShift(f"[0, {place}]", 1 / 3, 1e-300, -1 / 7) for place in range(3000)]
    write_features(path, many)
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS) and len(lines) == 1 + MOST == 51
    assert lines[1] == '"[0, 0]",0.333333,1e-300,-0.142857,,,0,1,numeric'
    assert path.stat().st_size < 5000


# -- names


def sample_of(tmp_path, inputs) -> Sample:
    with StoreWriter(tmp_path / "store", update=1) as writer:
        writer.append((inputs, np.zeros(3, int)))
    store = ExampleStore.open(tmp_path / "store")
    return Sample(((store, np.arange(3)),))


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (np.zeros((3, 2, 2)), ["[0, 0]", "[0, 1]", "[1, 0]", "[1, 1]"]),
        (np.zeros((3, 2)), ["[0]", "[1]"]),
        (np.zeros(3), ["inputs"]),
        ({"age": np.zeros(3), "image": np.zeros((3, 1, 2))}, ["age", "image[0, 0]", "image[0, 1]"]),
    ],
    ids=["image", "row", "scalar", "several fields"],
)
def test_raw_features_are_named_by_field_and_index(tmp_path, inputs, names):
    sample = sample_of(tmp_path, inputs)
    assert raw_names(sample) == names
    assert raw_rows(sample).shape[1] == len(names)


def test_raw_feature_names_match_the_columns_of_raw_rows(tmp_path):
    inputs = {"b": np.arange(6).reshape(3, 2), "a": np.full(3, 9)}
    sample = sample_of(tmp_path, inputs)
    first = dict(zip(raw_names(sample), raw_rows(sample)[1].tolist(), strict=True))
    assert first == {"a": 9, "b[0]": 2, "b[1]": 3}


def test_feature_names_of_the_data_module_replace_the_default_names(tmp_path):
    sample = sample_of(tmp_path, np.zeros((3, 2)))
    assert raw_names(sample, ("age", "income")) == ["age", "income"]
    for wrong in (("age",), ("age", "age")):
        with pytest.raises(errors.DataModuleError, match=r"feature_names .* has 2 numbers"):
            raw_names(sample, wrong)
