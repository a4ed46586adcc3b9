"""What a search looks for, what is shown of it, and which devices it shares out."""

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


class Measured:
    """A measure of three updates' validation data."""

    update = 3

    def by_update(self, model):
        return {1: {"f1": 0.2}, 2: {"f1": 0.4}, 3: {"f1": 0.8}}


@pytest.mark.parametrize(
    ("over", "weight", "value"),
    [("union", None, 0.6), ("new", None, 0.8), ("weighted", 0.75, 0.675)],
)
def test_an_objective_is_over_all_data_or_the_new_or_a_mix(over, weight, value):
    objective = Objective("f1", "max", over, weight)
    metrics = objective.metrics(Measured(), None, {"f1": 0.6, "loss": 1.0})
    assert metrics == {"f1": pytest.approx(value), "loss": 1.0}
    with pytest.raises(UnmeasuredMetricError):
        Objective("f2").metrics(Measured(), None, {"f1": 0.6})


def trial(folder, number: int, status: str, *values: float) -> TrialFolder:
    reports = [Report(n, n, {"f1": value}) for n, value in enumerate(values, start=1)]
    configuration = {"rate": number / 10, "size": 3}
    return TrialFolder(number, configuration, folder, reports, len(reports), status)


def test_the_best_trial_is_that_with_the_best_last_report(tmp_path):
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


def test_elsewhere_a_trial_is_told_when_it_has_ended(tmp_path):
    said: list[str] = []
    view = TrialView(Objective("f1"), ("rate",), said.append)
    view([trial(tmp_path, 0, "running", 0.5)])
    view([trial(tmp_path, 0, "completed", 0.5, 0.75), trial(tmp_path, 1, "running")])
    failed = trial(tmp_path, 1, "failed")
    failed.reason = "it ended with code 7"
    for _ in range(2):
        view([trial(tmp_path, 0, "completed", 0.5, 0.75), failed])
    assert said == [
        "trial 0 completed, f1 0.7500 after epoch 2 (rate 0.0)",
        "trial 1 failed (rate 0.1): it ended with code 7",
    ]


def test_on_a_terminal_a_table_is_drawn_again_in_its_place(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", terminal)
    view = TrialView(Objective("f1"), ("rate",), print)
    view([trial(tmp_path, 0, "completed", 0.5)])
    view([trial(tmp_path, 0, "completed", 0.5), trial(tmp_path, 1, "stopped", 0.25)])
    first, second = terminal.getvalue().split("\x1b[1A")
    assert first.count("\n") == 1 and second.count("\n") == 2
    assert "trial 1 stopped, f1 0.2500 after epoch 1 (rate 0.1)" in second


def test_devices_are_found_without_cuda(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7")
    assert cuda_devices("gpu") == ["2", "GPU-7"]
    assert cuda_devices("cpu") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", "")
    assert cuda_devices("cuda") == []


def test_progress_is_over_the_epochs_of_all_trials():
    assert best_so_far([], Objective("f1")) == []
