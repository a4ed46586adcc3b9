"""The report: its table of holdouts, and its section on the new data."""

from __future__ import annotations

from dataclasses import replace

from small_results import results_of

from renate_stages.evaluation import EvaluationHistory
from renate_stages.gate.figures import Measured
from renate_stages.reporting.data_section import data_section
from renate_stages.reporting.report import _holdout_table
from renate_stages.shift.data_metrics import DataMetrics

ROWS = {1: 10, 2: 10}
NEW = results_of({1: {"accuracy": 0.8}, 2: {"accuracy": 0.75}}, ROWS)
CHAMPION = results_of({1: {"accuracy": 0.9}, 2: {"accuracy": 0.25}}, ROWS)
BEFORE = results_of({1: {"accuracy": 0.7}, 2: {"accuracy": 0.5}}, ROWS)
FLIPS = {"flips": {"holdout": {n: {"negative": 0.1, "positive": 0.2} for n in ("1", "2")}}}
OF_PARENT = [
    "| holdout of | parent's model | new model | change | now wrong | now correct |",
    "|---|---|---|---|---|---|",
    "| update 1 | 0.7000 | 0.8000 | +0.1000 | 10.0 % | 20.0 % |",
    "| update 2 | 0.5000 | 0.7500 | +0.2500 | 10.0 % | 20.0 % |",
]


def table(measured: Measured | None) -> list[str]:
    history = EvaluationHistory().with_update(5, "before", BEFORE).with_update(5, "after", NEW)
    return _holdout_table(history, 5, "accuracy", FLIPS, measured)


def test_champion_that_differs_from_the_parent_gets_its_own_columns():
    head, line, first, second = table(Measured(5, NEW, 3, CHAMPION))
    assert head == f"{OF_PARENT[0]} champion (update 3) | change from champion |"
    assert line == f"{OF_PARENT[1]}---|---|"
    assert first == f"{OF_PARENT[2]} 0.9000 | -0.1000 |"
    assert second == f"{OF_PARENT[3]} 0.2500 | +0.5000 |"


def test_table_has_no_champion_columns_without_a_measured_other_champion():
    failed = Measured(5, NEW, 3, None, "model_fn failed")
    for measured in (None, Measured(5, NEW), failed, replace(failed, relation="itself")):
        assert table(measured) == OF_PARENT


def test_champion_that_is_the_parent_gets_a_note_and_no_columns():
    parent = Measured(5, NEW, 4, CHAMPION, relation="parent")
    assert table(parent) == [*OF_PARENT, "", "The champion is the parent's model."]


def test_report_lists_the_columns_with_the_largest_stability_index():
    figures = {"distance": 0.1, "p_value": 0.02, "missing_change": 0.05}
    columns = {f"c{n}": {**figures, "psi": n / 100} for n in range(12)}
    estimate = {"accuracy": 0.7, "rows": 9, "error": 0.02}
    shift = {
        "tests": {"ks": {"corrected_p_value": 0.02, "effect_size": 0.1}},
        "columns": columns,
        "estimated_performance": estimate,
    }
    lines = data_section(DataMetrics.model_validate({"train": {"rows": 5}, "shift": shift}))
    rows = [line for line in lines if line.startswith("| `c")]
    assert len(rows) == 10 and rows[0] == "| `c11` | 0.1100 | 0.1000 | 0.02 | +5.0% |"
    assert any("10 of 12" in line for line in lines)
    assert any("9 rows have no labels" in line and "0.700" in line for line in lines)
    weights = {"least": 0.5, "mean": 1.25, "largest": 4.0, "zero": 0}
    lines = data_section(DataMetrics.model_validate({"train": {"rows": 5, "weights": weights}}))
    assert any("weights from 0.5 to 4 (mean 1.25)" in line for line in lines)
    labels = {"new": {"Cat": 6}, "new_rows": 6, "differ_only_in_case": {"Cat": "cat"}}
    lines = data_section(DataMetrics.model_validate({"train": {"rows": 9}, "labels": labels}))
    assert "- new labels, with training and test rows: Cat (6)" in lines
    assert any(line.startswith("- label 'Cat' (6 rows) looks like 'cat'") for line in lines)
    calm = data_section(DataMetrics.model_validate({"train": {"rows": 5}, "shift": {}}))
    assert not any("Shift of columns" in line or "rows have no labels" in line for line in calm)
