"""The history of evaluations: file format, updates and views."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from small_results import results_of

from renate_stages.errors import MalformedFileError
from renate_stages.evaluation import Evaluation, EvaluationHistory

ROWS = {1: 100, 2: 300, 3: 600}
HEADER = "update,phase,holdout,metric,value,rows\n"


def three_updates() -> EvaluationHistory:
    """Return the matrix of test_figures.py, each `before` being the previous update's `after`."""
    after = {1: {1: 0.9}, 2: {1: 0.7, 2: 0.8}, 3: {1: 0.8, 2: 0.5, 3: 0.6}}
    before = {1: {1: 0.1}, 2: {1: 0.9, 2: 0.3}, 3: {1: 0.7, 2: 0.8, 3: 0.2}}
    untrained = {1: 0.1, 2: 0.2, 3: 0.3}
    history = EvaluationHistory()
    for update, learnt in after.items():
        for phase, values in (
            ("initial", {update: untrained[update]}),
            ("before", before[update]),
            ("after", learnt),
        ):
            results = {i: {"accuracy": v, "loss": 1 - v} for i, v in values.items()}
            history = history.with_update(update, phase, results_of(results, ROWS))  # type: ignore[arg-type]
    return history


def test_summary_matches_hand_worked_numbers() -> None:
    assert three_updates().summary(3, "accuracy") == {
        "average": pytest.approx(1.9 / 3),
        "overall": pytest.approx(0.59),
        "worst_holdout": 0.5,
        "forgetting": pytest.approx(0.2),
        "backward_transfer": pytest.approx(-0.2),
        "forward_transfer": pytest.approx(((0.3 - 0.2) + (0.2 - 0.3)) / 2, abs=1e-12),
        "prequential": 0.2,
        "holdout": {"1": 0.8, "2": 0.5, "3": 0.6},
    }


def test_summary_of_a_loss_has_the_same_signs_as_accuracy() -> None:
    history = three_updates()
    loss = history.summary(3, "loss", higher_is_better=False)
    accuracy = history.summary(3, "accuracy")
    for figure in ("forgetting", "backward_transfer", "forward_transfer"):
        assert loss[figure] == pytest.approx(accuracy[figure], abs=1e-8)
    assert loss["average"] == pytest.approx(1 - accuracy["average"])


def test_summary_with_unknown_values_has_all_keys_and_is_valid_json() -> None:
    results = {1: {"f1": float("nan")}, 2: {"f1": float("inf")}}
    history = EvaluationHistory().with_update(2, "after", results_of(results, ROWS))
    summary = history.summary(2, "f1")
    assert json.loads(json.dumps(summary, allow_nan=False)) == {
        "average": None,
        "overall": None,
        "worst_holdout": None,
        "forgetting": None,
        "backward_transfer": None,
        "forward_transfer": 0.0,
        "prequential": None,
        "holdout": {"1": None, "2": None},
    }
    with pytest.raises(ValueError, match="no evaluation of 'f1' after update 3"):
        history.summary(3, "f1")


def test_prequential_figure_of_an_untrained_model_is_unknown() -> None:
    untrained = results_of({1: {"accuracy": 0.1, "loss": 2.0}}, {1: 5})
    history = EvaluationHistory().with_update(1, "after", untrained)
    for phase in ("initial", "before"):
        history = history.with_update(1, phase, untrained)  # type: ignore[arg-type]
    assert history.summary(1, "accuracy")["prequential"] is None
    imported = results_of({1: {"accuracy": 0.1, "loss": 1.9}}, {1: 5})
    history = history.with_update(1, "before", imported)
    assert history.summary(1, "accuracy")["prequential"] == 0.1


def test_forward_transfer_measures_the_model_before_the_update() -> None:
    results = {1: {"accuracy": 0.5}, 4: {"accuracy": 0.5}}
    history = (
        EvaluationHistory()
        .with_update(1, "after", results_of({1: {"accuracy": 0.5}}, {1: 1}))
        .with_update(4, "initial", results_of({4: {"accuracy": 0.1}}, {4: 1}))
        .with_update(
            4, "before", results_of({1: {"accuracy": 0.5}, 4: {"accuracy": 0.35}}, {1: 1, 4: 1})
        )
        .with_update(4, "after", results_of(results, {1: 1, 4: 1}))
    )
    assert history.summary(4, "accuracy")["forward_transfer"] == pytest.approx(0.25)


def test_history_returns_metrics_and_matrices() -> None:
    history = three_updates()
    assert history.metrics == ["accuracy", "loss"]
    assert history.matrix("accuracy") == {
        1: {1: 0.9},
        2: {1: 0.7, 2: 0.8},
        3: {1: 0.8, 2: 0.5, 3: 0.6},
    }
    assert history.matrix("accuracy", "before")[2] == {1: 0.9, 2: 0.3}
    assert history.untrained("accuracy") == {1: 0.1, 2: 0.2, 3: 0.3}
    assert history.matrix("other") == {}


def test_history_file_has_the_documented_format(tmp_path: Path) -> None:
    results = {2: {"loss": 1 / 3, "accuracy": 1.0}, 1: {"loss": 1e-12, "accuracy": float("nan")}}
    EvaluationHistory().with_update(1, "after", results_of(results, {1: 7, 2: 5})).write(
        tmp_path / "e.csv"
    )
    assert (tmp_path / "e.csv").read_bytes().decode() == HEADER + (
        "1,after,all,accuracy,nan,12\n"
        "1,after,all,loss,0.13888889,12\n"
        "1,after,1,accuracy,nan,7\n"
        "1,after,1,loss,1e-12,7\n"
        "1,after,2,accuracy,1,5\n"
        "1,after,2,loss,0.33333333,5\n"
    )


def test_history_file_round_trip_keeps_bytes_and_values(tmp_path: Path) -> None:
    history = three_updates().with_update(
        4, "after", results_of({1: {'odd "name", of\nmetric é': 1 / 7}}, {1: 2})
    )
    history.write(tmp_path / "one.csv")
    again = EvaluationHistory.read(tmp_path / "one.csv")
    again.write(tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert again == history  # rounding happens when values enter, not when they are written
    EvaluationHistory().write(tmp_path / "empty.csv")
    assert EvaluationHistory.read(tmp_path / "empty.csv") == EvaluationHistory()


def test_rerun_update_replaces_its_phase_and_gives_equal_bytes(tmp_path: Path) -> None:
    history = three_updates()
    results = {i: {"accuracy": v} for i, v in history.matrix("accuracy")[3].items()}
    for holdout, loss in history.matrix("loss")[3].items():
        results[holdout]["loss"] = loss
    rerun = history.with_update(3, "after", results_of(dict(reversed(results.items())), ROWS))
    history.write(tmp_path / "one.csv")
    rerun.write(tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()

    fewer = history.with_update(3, "after", results_of({3: {"accuracy": 1.0}}, ROWS))
    assert fewer.matrix("accuracy")[3] == {3: 1.0}
    assert "loss" in fewer.metrics  # from other updates and phases
    assert 3 not in fewer.matrix("loss")


def test_histories_are_immutable() -> None:
    history = EvaluationHistory()
    assert history.with_update(1, "after", results_of({1: {"loss": 1.0}}, {1: 1})) is not history
    assert history.evaluations == ()
    with pytest.raises(FrozenInstanceError):
        history.evaluations = ()  # type: ignore[misc]


def test_row_order_is_irrelevant_and_duplicate_evaluations_are_refused() -> None:
    one = Evaluation(1, "after", 1, "loss", 1.0, 5)
    two = Evaluation(1, "before", 1, "loss", 2.0, 5)
    assert EvaluationHistory((one, two)) == EvaluationHistory((two, one))
    with pytest.raises(ValueError, match="two evaluations have the same key"):
        EvaluationHistory((one, one))


def test_with_update_validates_its_arguments() -> None:
    with pytest.raises(ValueError, match="phase is 'during'"):
        EvaluationHistory().with_update(1, "during", results_of({}, {}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: its header is None"),
        ("update,holdout\n", "line 1: its header"),
        (HEADER + "1,after,1,loss,0.5,7\n1,after,2,loss,0.5\n", "line 3: it has 5 cells"),
        (HEADER + "\n", "line 2: it has 0 cells"),
        (HEADER + "one,after,1,loss,0.5,7\n", "line 2: update is 'one'"),
        (HEADER + "1,after,-1,loss,0.5,7\n", "line 2: holdout is '-1'"),
        (HEADER + "1,after,1,loss,0.5,7.5\n", "line 2: rows is '7.5'"),
        (HEADER + "1,later,1,loss,0.5,7\n", "line 2: phase is 'later'"),
        (HEADER + "1,after,1,,0.5,7\n", "line 2: metric is empty"),
        (HEADER + "1,after,1,loss,low,7\n", "line 2: value is 'low'"),
        (HEADER + "1,after,1,loss,0.5,7\n" * 2, "line 3: repeats"),
        (HEADER + '1,after,1,"loss,0.5,7\n', "unexpected end of data"),
    ],
)
def test_malformed_history_error_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "evaluations.csv"
    path.write_text(text)
    with pytest.raises(MalformedFileError, match=r"evaluations\.csv cannot be read") as refusal:
        EvaluationHistory.read(path)
    assert message in str(refusal.value)


def test_history_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evaluations.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MalformedFileError, match="utf-8"):
        EvaluationHistory.read(tmp_path / "evaluations.csv")


def test_history_and_plot_modules_do_not_import_torch_or_matplotlib() -> None:
    code = (
        "import sys, renate_stages.evaluation.history, renate_stages.reporting.plots;"
        "print([m for m in ('torch', 'matplotlib', 'pandas', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
