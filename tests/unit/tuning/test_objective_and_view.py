"""Objective of a search, display of its trials, and detection of CUDA devices."""

from __future__ import annotations

import io
import math

import pytest

from renate_stages.errors import UnmeasuredMetricError
from renate_stages.reporting.search_plots import best_so_far
from renate_stages.tuning.objective import Objective
from renate_stages.tuning.search import best_trial
from renate_stages.tuning.trial_folder import Report, TrialFolder
from renate_stages.tuning.trial_view import TrialView
from renate_stages.tuning.update_search import cuda_devices


class FakeMeasurement:
    """Stand-in for the measurement on the validation data of three updates."""

    update = 3

    def by_update(self, model):
        return {1: {"f1": 0.2}, 2: {"f1": 0.4}, 3: {"f1": 0.8}}


@pytest.mark.parametrize(
    ("over", "weight", "value"),
    [("union", None, 0.6), ("new", None, 0.8), ("weighted", 0.75, 0.675)],
)
def test_objective_is_over_all_data_or_new_data_or_weighted(over, weight, value):
    objective = Objective("f1", "max", over, weight)
    metrics = objective.metrics(FakeMeasurement(), None, {"f1": 0.6, "loss": 1.0})
    assert metrics == {"f1": pytest.approx(value), "loss": 1.0}
    with pytest.raises(UnmeasuredMetricError):
        Objective("f2").metrics(FakeMeasurement(), None, {"f1": 0.6})


def trial(folder, number: int, status: str, *values: float) -> TrialFolder:
    reports = [Report(n, n, {"f1": value}) for n, value in enumerate(values, start=1)]
    configuration = {"rate": number / 10, "size": 3}
    return TrialFolder(number, configuration, folder, reports, len(reports), status)


def test_best_trial_has_the_best_last_report(tmp_path):
    trials = [
        trial(tmp_path, 0, "failed", 0.99),
        trial(tmp_path, 1, "completed", 0.9, 0.5),
        trial(tmp_path, 2, "stopped", 0.7),
        trial(tmp_path, 3, "completed", 0.1, 0.7),
        trial(tmp_path, 4, "completed", math.nan),
        trial(tmp_path, 5, "running"),
    ]
    best = best_trial(trials, Objective("f1"))
    assert best is not None and best.number == 2
    least = best_trial(trials, Objective("f1", "min"))
    assert least is not None and least.number == 1
    assert best_trial([trials[0], trials[4], trials[5]], Objective("f1")) is None


def test_ended_trial_is_printed_once_without_a_terminal(tmp_path):
    messages: list[str] = []
    view = TrialView(Objective("f1"), ("rate",), messages.append)
    view([trial(tmp_path, 0, "running", 0.5)])
    view([trial(tmp_path, 0, "completed", 0.5, 0.75), trial(tmp_path, 1, "running")])
    failed = trial(tmp_path, 1, "failed")
    failed.reason = "it ended with code 7"
    for _ in range(2):
        view([trial(tmp_path, 0, "completed", 0.5, 0.75), failed])
    assert messages == [
        "trial 0 completed, f1 0.7500 after epoch 2 (rate 0.0)",
        "trial 1 failed (rate 0.1): it ended with code 7",
    ]


def test_table_of_trials_is_redrawn_in_place_on_a_terminal(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", terminal)
    view = TrialView(Objective("f1"), ("rate",), print)
    view([trial(tmp_path, 0, "completed", 0.5)])
    view([trial(tmp_path, 0, "completed", 0.5), trial(tmp_path, 1, "stopped", 0.25)])
    first, second = terminal.getvalue().split("\x1b[1A")
    assert first.count("\n") == 1 and second.count("\n") == 2
    assert "trial 1 stopped, f1 0.2500 after epoch 1 (rate 0.1)" in second


def test_cuda_devices_are_read_from_cuda_visible_devices(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7")
    assert cuda_devices("gpu") == ["2", "GPU-7"]
    assert cuda_devices("cpu") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", "")
    assert cuda_devices("cuda") == []


def test_best_so_far_without_trials_is_empty():
    assert best_so_far([], Objective("f1")) == []
