"""`prepare` and `should-update` on tables: dates, categories, missing values, late labels."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest
from shifted_tables import (
    first_update_on_csv,
    first_update_on_table,
    put_csv,
    put_table,
    quiet,
    table,
)
from small_project import edit_config, edit_params

from renate_stages import errors, files
from renate_stages.cli.main import main
from renate_stages.stages import prepare
from renate_stages.state import state


@pytest.fixture
def second(project, made_once):
    """A project whose update 2 is open, after an update on a table."""
    return made_once(project, first_update_on_table)


def prepared(project, columns, targets=None) -> dict:
    put_table(project, columns, targets)
    prepare.run(project, quiet)
    return files.read_json(project.data_metrics)["shift"]


def should_update(monkeypatch, capsys) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["renate-stages", "should-update"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0), "".join(capsys.readouterr())


def shift_csv(project) -> dict[str, dict[str, str]]:
    with project.feature_shift.open(newline="") as stream:
        return {row["feature"]: row for row in csv.DictReader(stream)}


def test_later_days_of_the_same_table_need_no_update(second, monkeypatch, capsys):
    figures = prepared(second, *table(900, 1, first_day=30))
    assert set(figures["tests"]) == {"mmd", "ks", "chi2", "missing", "label_chi2"}
    assert figures["alarms"] == 0 and figures["features"]["compared"] == 3
    assert set(figures["columns"]) == set(shift_csv(second)) == {"area", "rooms", "city"}
    assert all(0 <= each["psi"] < 0.1 for each in figures["columns"].values())
    low, high = figures["interval"]["low"], figures["interval"]["high"]
    assert low < figures["model"]["accuracy"] < high < low + 0.15
    code, output = should_update(monkeypatch, capsys)
    assert code == 1 and "update 2: not needed" in output
    assert output.index("performance_drop: no") < output.index("shift: no")


def test_date_column_that_is_not_excluded_looks_like_a_shift(second, monkeypatch, capsys):
    edit_config(second, 'excluded_features = ("day",)', "excluded_features = ()")
    columns, targets = table(900, 1, first_day=30)
    assert prepared(second, columns)["columns"]["day"]["distance"] == 1
    code, output = should_update(monkeypatch, capsys)
    assert code == 0 and "shift: yes" in output, "without labels, only the shift counts"
    prepared(second, columns, targets)
    code, output = should_update(monkeypatch, capsys)
    assert code == 1 and "shift: no" in output
    assert "accuracy on the new data did not get worse" in output
    edit_params(second, should_update__shift="always")
    assert should_update(monkeypatch, capsys)[0] == 0
    edit_params(second, shift__exclude=["day"], should_update__shift=True)
    assert prepared(second, columns, targets)["alarms"] == 0


@pytest.mark.parametrize("column", ["area", "rooms", "city"])
def test_shift_of_each_kind_is_found_and_attributed(second, monkeypatch, capsys, column):
    columns, _ = table(900, 1, first_day=30)
    if column == "area":
        columns[:, 1] += 50  # half a standard deviation
    elif column == "rooms":
        columns[::6, 2] = np.nan
    else:
        columns[::5, 3] = 7  # a new category
    figures = prepared(second, columns)
    test = {"area": "ks", "rooms": "missing", "city": "chi2"}[column]
    assert figures["tests"][test]["corrected_p_value"] <= 0.01
    assert figures["tests"][test]["effect_size"] == pytest.approx(0.18, abs=0.06)
    assert figures["features"]["most_shifted"] == column and figures["features"]["shifted"] == 1
    assert figures["columns"][column]["psi"] > 0.1
    row = shift_csv(second)[column]
    assert row["kind"] == ("categorical" if column == "city" else "numeric")
    assert (row["mean_change"] == "") == (column == "city")
    assert (float(row["missing_change"]) > 0.1) == (column == "rooms")
    assert (figures["tests"]["mmd"]["corrected_p_value"] <= 0.01) == (column == "area")
    code, output = should_update(monkeypatch, capsys)
    reason = next(line for line in output.splitlines() if line.startswith("shift: yes"))
    assert code == 0 and test in reason[reason.rindex("(") :]


def test_small_effect_is_significant_but_no_reason_to_update(second, monkeypatch, capsys):
    edit_params(second, shift__max_rows=100_000)
    columns, _ = table(8_000, 1)
    columns[:, 1] += 20  # a fifth of a standard deviation
    figures = prepared(second, columns)
    assert figures["tests"]["ks"]["corrected_p_value"] <= 0.01
    assert figures["tests"]["ks"]["effect_size"] < 0.14
    edit_params(second, should_update__min_effect=0.15)
    code, output = should_update(monkeypatch, capsys)
    assert code == 1 and "no effect at level 0.01 is at least 0.15" in output
    edit_params(second, should_update__min_effect=0.05)
    assert should_update(monkeypatch, capsys)[0] == 0


def test_column_with_its_own_threshold_is_judged_by_it(second, monkeypatch, capsys):
    columns, _ = table(900, 1)
    columns[:, 1] += 50
    for threshold, code in ((0.4, 1), (0.1, 0)):
        edit_params(second, shift__thresholds={"area": threshold})
        figures = prepared(second, columns)
        assert figures["thresholds"]["area"]["effect_size"] == pytest.approx(0.2, abs=0.05)
        assert figures["thresholds"]["area"]["corrected_p_value"] <= 0.01
        assert figures["alarms"] == 0, "the tests are about the other columns"
        found, output = should_update(monkeypatch, capsys)
        assert found == code and f"of {threshold:g}" in output
    for wrong, says in (("aera", "'aera', did you mean 'area'"), ("day", "'day'")):  # day: excluded
        edit_params(second, shift__thresholds={wrong: 0.4})
        with pytest.raises(errors.InvalidParamsError, match=f"thresholds.*{says}"):
            prepared(second, columns)


def test_accuracy_is_estimated_where_labels_are_missing(second, monkeypatch, capsys):
    columns, targets = table(900, 1)
    figures = prepared(second, columns)
    assert figures["model"] == {} and "interval" not in figures
    assert "label_chi2" in figures["skipped"] and "no labels" in figures["skipped"]["label_chi2"]
    estimate = figures["estimated_performance"]
    rows = len(np.load(second.incoming / "inputs.npy"))
    assert 0.6 * rows < estimate["rows"] == figures["new"]["rows"]
    actual = prepared(second, columns, targets)["model"]["accuracy"]
    assert estimate["accuracy"] == pytest.approx(actual, abs=0.05)
    assert set(estimate["holdout"]) == {"1"} and estimate["error"] < 0.06
    assert "estimated_performance" not in prepared(second, columns, targets)
    prepared(second, columns)
    code, output = should_update(monkeypatch, capsys)
    assert code == 1 and "performance_drop: no: the new data has no labels" in output
    assert "estimated as" in output and "off by at most" in output


def test_estimate_falls_on_rows_that_are_harder(second, monkeypatch, capsys):
    columns, targets = table(3000, 1)
    near = np.abs(columns[:, 1] - 500 + 40 * ((columns[:, 3] == 0) - 0.4)) < 40
    estimate = prepared(second, columns[near])["estimated_performance"]["accuracy"]
    actual = prepared(second, columns[near], targets[near])["model"]["accuracy"]
    assert estimate == pytest.approx(actual, abs=0.06) and estimate < 0.8
    prepared(second, columns[near])
    code, output = should_update(monkeypatch, capsys)
    assert code == 0 and "performance_drop: yes: the new data has no labels" in output


def test_some_labels_are_measured_and_the_other_rows_estimated(second):
    columns, targets = table(900, 1)
    targets[300:] = -100
    figures = prepared(second, columns, targets)
    assert figures["model"]["accuracy"] > 0.7 and "label_chi2" in figures["tests"]
    assert figures["new"]["rows"] > figures["estimated_performance"]["rows"] > 300


def test_shift_of_the_model_compares_the_inputs_of_its_last_layer(second):
    edit_params(second, shift__features="model")
    figures = prepared(second, *table(900, 1))
    assert figures["features"]["compared"] == 8, "the width before the last layer, not 2 logits"
    assert "columns" not in figures
    edit_params(second, shift__exclude=["area"])
    with pytest.raises(errors.InvalidParamsError, match=r"shift.exclude.*shift.features is model"):
        prepared(second, *table(900, 1))


def test_classifier_weight_of_a_category_column_is_its_largest_one(second):
    edit_params(second, shift__tests=["c2st"])
    columns, _ = table(900, 1)
    columns[:600, 3] = 0
    figures = prepared(second, columns)
    assert set(figures["tests"]) == {"c2st"} and figures["alarms"] == 1
    weights = {name: float(row["weight"]) for name, row in shift_csv(second).items()}
    assert max(weights, key=weights.__getitem__) == "city" and len(weights) == 3


def test_reference_last_is_the_holdout_of_the_previous_update(second):
    edit_params(second, shift__reference="last")
    figures = prepared(second, *table(900, 1))
    holdouts = state.State.open(second.parent).split("holdouts")
    assert figures["reference"]["rows"] == len(holdouts[1]) > 100


def test_unknown_categorical_feature_of_the_data_module_is_refused(second):
    edit_config(second, 'categorical_features = ("city",)', 'categorical_features = ("citty",)')
    with pytest.raises(errors.DataModuleError, match=r"categorical_features.*'citty'.*'city'\?"):
        prepared(second, *table(90, 1))
    edit_config(second, 'categorical_features = ("citty",)', 'categorical_features = "city"')
    with pytest.raises(errors.UserResultError, match="categorical_features"):
        prepared(second, *table(90, 1))


def test_csv_files_with_a_date_are_compared_without_any_python(project, made_once):
    second = made_once(project, first_update_on_csv)
    columns, targets = table(600, 1, first_day=30)
    put_csv(second, columns, targets)
    prepare.run(second, quiet)
    figures = files.read_json(second.data_metrics)["shift"]
    assert set(figures["columns"]) == {"area", "rooms", "city"}, (
        "the parts of the date are left out"
    )
    assert set(figures["tests"]) == {"mmd", "ks", "chi2", "missing", "label_chi2"}
    assert figures["alarms"] == 0
    columns[::5, 3] = 7  # a city that the parent does not know
    put_csv(second, columns, targets)
    prepare.run(second, quiet)
    figures = files.read_json(second.data_metrics)["shift"]
    assert figures["features"]["most_shifted"] == "city"
    assert figures["columns"]["city"]["distance"] == pytest.approx(0.2, abs=0.08)
    assert figures["tests"]["chi2"]["corrected_p_value"] <= 0.01
    edit_params(second, shift__features="model")
    prepare.run(second, quiet)
    assert "skipped" not in files.read_json(second.data_metrics)["shift"]
