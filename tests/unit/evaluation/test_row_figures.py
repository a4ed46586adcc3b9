"""Calibration, classes, slices and the figures of metrics/update.json, against plain references."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from renate_stages.errors import SliceError
from renate_stages.evaluation import EvaluationHistory
from renate_stages.evaluation.calibration import calibration_error
from renate_stages.evaluation.examined import Examined, ExaminedHoldouts, Predictions
from renate_stages.evaluation.figures import Answers, update_figures
from renate_stages.evaluation.slices import Part, by_value, slices_of
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.params import EvaluationParams
from renate_stages.randomness import Generators


def calibration_reference(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    """Compute the paper's sum bin by bin."""
    error = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            error += inside.sum() / len(confidence) * gap
    return error


def test_calibration_error_matches_hand_worked_numbers() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False])
    assert calibration_error(confidence, correct) == pytest.approx((2 * 0.05 + 2 * 0.05) / 4)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0
    assert calibration_error(np.ones(4), np.array([1, 0, 0, 0], bool)) == 0.75


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_matches_the_papers_sum_over_bins(bins: int) -> None:
    generator = np.random.default_rng(bins)
    confidence = generator.random(5000)
    correct = generator.random(5000) < confidence**2
    expected = calibration_reference(confidence, correct, bins)
    assert calibration_error(confidence, correct, bins) == pytest.approx(expected)


def test_calibration_error_is_nan_for_empty_or_nan_confidence() -> None:
    assert math.isnan(calibration_error(np.empty(0), np.empty(0, bool)))
    assert math.isnan(calibration_error(np.array([0.5, np.nan]), np.ones(2, bool)))


def test_accuracy_is_computed_per_label_in_numerical_order() -> None:
    labels, correct = np.array([10, 2, 10, 2, 2]), np.array([1, 1, 0, 0, 1], bool)
    assert by_value(labels, correct) == {"2": Part(3, 2 / 3), "10": Part(2, 0.5)}
    assert list(by_value(labels, correct)) == ["2", "10"]  # in numerical, not alphabetical order


def store_of(folder: Path, metadata: dict | None) -> ExampleStore:
    with StoreWriter(folder, update=1) as writer:
        writer.append((np.zeros((3, 2), np.float32), np.arange(3)), metadata or {})
    return ExampleStore.open(folder)


def test_slices_are_metadata_values_or_unknown_when_missing(tmp_path: Path) -> None:
    holdouts = {
        1: store_of(tmp_path / "1", None),
        2: store_of(
            tmp_path / "2", {"source": np.array([b"eu", b"", b"us"]), "part": np.arange(3)}
        ),
    }
    found = slices_of(["source", "part"], holdouts)
    assert found["source"][1].tolist() == ["unknown"] * 3
    assert found["source"][2].tolist() == ["eu", "unknown", "us"]
    assert found["part"][2].tolist() == ["0", "1", "2"]
    assert slices_of([], holdouts) == {}


def test_unsuitable_slice_field_is_refused(tmp_path: Path) -> None:
    metadata = {"source": np.array([b"eu", b"us", b"us"]), "place": np.zeros((3, 2))}
    holdouts = {1: store_of(tmp_path / "1", metadata)}
    with pytest.raises(
        SliceError, match=r"no example has this field \(known fields: place, source\)"
    ):
        slices_of(["region"], holdouts)
    with pytest.raises(SliceError, match=r"shape \(2,\)"):
        slices_of(["place"], holdouts)
    with StoreWriter(tmp_path / "many", update=1) as writer:
        rows = np.zeros((200, 1), np.float32), np.zeros(200, int)
        writer.append(rows, {"number": np.arange(200)})
    with pytest.raises(SliceError, match="200 values, expected at most 100"):
        slices_of(["number"], {1: ExampleStore.open(tmp_path / "many")})


def examined(labels: list[int], predicted: list[int], confidence: float = 0.8) -> Examined:
    rows = Predictions(
        np.array(labels), np.array(predicted), np.full(len(labels), confidence, np.float32)
    )
    values = {"accuracy": float(rows.correct.mean()), "loss": 0.5, "f1": 0.25}
    scores = np.stack([rows.correct, np.ones(len(labels))], axis=1)
    return Examined(len(labels), values, rows, {"accuracy": scores})


BEFORE = {1: examined([0, 1, 0, 1], [0, 1, 1, 1]), 2: examined([2, 2], [0, 1])}
AFTER = {1: examined([0, 1, 0, 1], [0, 0, 1, 1]), 2: examined([2, 2], [2, 2], 0.9)}
SLICES = {"source": {1: np.array(["eu", "eu", "us", "us"]), 2: np.array(["us", "us"])}}


def figures(answers: Answers, **evaluation) -> dict:
    history = EvaluationHistory()
    for phase, each in (("before", answers.before or {}), ("after", answers.after)):
        results = ExaminedHoldouts.of_means(each)
        history = history.with_update(2, phase, results)  # type: ignore[arg-type]
    return update_figures(2, history, EvaluationParams(**evaluation), answers, Generators(0, 2))


def test_update_figures_match_hand_worked_numbers() -> None:
    found = figures(Answers(AFTER, BEFORE, SLICES), reference={1: 1.0, 2: 0.9, 7: 0.0})
    accuracy = found["accuracy"]
    assert accuracy["average"] == pytest.approx((0.5 + 1) / 2)
    assert accuracy["overall"] == pytest.approx(4 / 6, abs=1e-8)
    assert accuracy["worst_holdout"] == 0.5
    assert accuracy["change"] == pytest.approx(1 / 6, abs=1e-8)
    assert accuracy["change_on_earlier"] == pytest.approx(0.5 - 0.75)
    assert accuracy["intransigence"] == pytest.approx(0.9 - 1.0)  # no value of holdout 1 at 1
    assert found["flips"] == {
        "negative": pytest.approx(1 / 6, abs=1e-8),
        "positive": pytest.approx(2 / 6, abs=1e-8),
        "holdout": {
            "1": {"negative": 0.25, "positive": 0.0},
            "2": {"negative": 0.0, "positive": 1.0},
        },
    }
    assert found["classes"] == {"0": 0.5, "1": 0.5, "2": 1.0}
    assert found["slices"] == {"source": {"eu": 0.5, "us": 0.75}}
    assert found["calibration"]["holdout"] == {"1": pytest.approx(0.3), "2": pytest.approx(0.1)}
    assert found["calibration"]["error"] == pytest.approx((4 * 0.3 + 2 * 0.1) / 6)


ENDS = (("average", 0.75), ("overall", 4 / 6), ("change", 1 / 6), ("change_on_earlier", -0.25))


def test_intervals_contain_their_figures_and_are_deterministic() -> None:
    answers = Answers(AFTER, BEFORE)
    found = figures(answers)["accuracy"]
    for name, value in ENDS:
        ends = found["interval"][name]
        assert ends["low"] <= value <= ends["high"]
    assert figures(answers) == figures(answers)


def test_change_figures_are_null_without_a_parent_model() -> None:
    found = figures(Answers(AFTER))
    assert found["flips"] == {"negative": None, "positive": None}
    assert found["accuracy"]["change"] is None
    assert found["accuracy"]["interval"]["change"] == {"low": None, "high": None}
    assert "intransigence" not in found["accuracy"] and "slices" not in found


def test_metric_without_values_of_rows_has_no_interval() -> None:
    found = figures(Answers(AFTER, BEFORE), metric="f1")
    assert "interval" not in found["f1"]
    assert found["f1"]["change"] == 0
    assert set(found["accuracy"]) == {"average", "overall", "holdout"}


def test_model_that_is_not_a_classifier_has_only_metrics() -> None:
    after = {2: Examined(3, {"loss": 0.5, "mse": 0.25})}
    assert set(figures(Answers(after, after), metric="mse", mode="min")) == {"loss", "mse"}


def test_change_compares_the_same_rows_or_is_null() -> None:
    nan = float("nan")
    before = {1: Examined(3, {"precision": 1.0}), 2: Examined(9, {"precision": nan})}
    after = {1: Examined(3, {"precision": 0.75}), 2: Examined(9, {"precision": 0.1})}
    found = figures(Answers(after, before), metric="precision")["precision"]
    assert found["change"] is None  # the parent's value on all rows is unknown
    assert found["change_on_earlier"] == -0.25
    nothing = {1: Examined(3, {"precision": nan}), 2: Examined(9, {"precision": nan})}
    assert figures(Answers(after, nothing), metric="precision")["precision"]["change"] is None
