"""`benchmarks/streams.py`: its data, its settings, its intervals, and one stream in the quick form."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
from scipy import stats

from renate_stages.memory import ExampleStore
from renate_stages.simulation.settings import read_plan

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def streams(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import streams

    return streams


@pytest.fixture
def draw(streams):
    return runpy.run_path(str(streams.CONFIG))["draw"]


def rule(inputs: np.ndarray, degrees: float) -> np.ndarray:
    """Return the labels of a rule, row by row."""
    direction = np.array([np.cos(np.pi * degrees / 180), np.sin(np.pi * degrees / 180)])
    return np.array([int(row[:2] @ direction > 0) for row in inputs])


@pytest.mark.parametrize(
    ("stream", "angles", "rows"),
    [
        ("drift", {str(n + 1): 30 * n for n in range(5)}, 300),
        ("seasons", {"winter": 0, "spring": 120, "summer": 60}, 600),
    ],
)
def test_labels_of_a_table_follow_the_rule_of_their_source(draw, stream, angles, rows):
    found = draw(stream, 0)["train"]
    assert {*found.sources} == {*angles}
    for source, degrees in angles.items():
        own = found.sources == source
        wrong = np.mean(found.targets[own] != rule(found.inputs[own], degrees))
        assert own.sum() == rows and 0 < wrong < 0.1


def test_only_rows_of_seasons_show_where_they_come_from(draw):
    centers = {
        stream: [found.inputs[found.sources == each, 2].mean() for each in np.unique(found.sources)]
        for stream in ("drift", "seasons")
        for found in [draw(stream, 0)["train"]]
    }
    assert np.ptp(centers["drift"]) < 0.3
    assert min(np.diff(sorted(centers["seasons"])).tolist()) > 2.5


@pytest.mark.parametrize("stream", ["digits", "drift", "seasons"])
def test_test_rows_are_no_training_rows_and_seeds_draw_others(draw, stream):
    first, again, other = (draw(stream, seed) for seed in (0, 0, 1))
    flat = {each: {row.tobytes() for row in first[each].inputs} for each in ("train", "test")}
    assert len(flat["train"] & flat["test"]) == 0
    np.testing.assert_array_equal(first["test"].inputs, again["test"].inputs)
    assert (first["test"].inputs != other["test"].inputs).any()


def test_every_stream_is_a_valid_simulation_with_a_window_as_a_row(streams, tmp_path):
    for name, stream in streams.STREAMS.items():
        path = tmp_path / "simulate.yaml"
        path.write_text(streams.settings_of(stream, [0, 1, 2], quick=False, processes=1))
        plan = read_plan(path)
        assert plan.updates == 5 and len(plan.runs) == 21, name
        windows = {run.label for run in plan.runs if plan.blocks_of(run)["retention"]}
        assert windows == {"ER, window"}


def test_intervals_are_of_differences_paired_by_seed(streams):
    better, worse = [0.9, 0.8, 0.85], [0.5, 0.45, 0.4]
    figures = {"A": {"all": better}, "B": {"all": worse}}
    differences = [a - b for a, b in zip(better, worse, strict=True)]
    half = stats.t.ppf(0.975, 2) * stdev(differences) / 3**0.5
    assert streams.least(figures, "A", "B", "all") == pytest.approx(mean(differences) - half)
    one = {"A": {"all": [0.9]}, "B": {"all": [0.5]}}
    assert streams.least(one, "A", "B", "all") == pytest.approx(0.4)


@pytest.mark.slow
def test_quick_form_of_the_concept_drift_prefers_fine_tuning_and_has_a_window(streams):
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "streams.py"), "--quick"]
    command += ["--only", "concept drift"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [line[:4] for line in ran.stdout.splitlines() if line[:4] in ("ok  ", "MISS")] == [
        "ok  ",
        "ok  ",
    ]
    content = json.loads((streams.RESULTS / "streams-part.json").read_text())
    assert content["values"]["concept drift, ER, examples kept"] == [300.0]
    runs = streams.RESULTS / "streams-quick" / "concept-drift" / "runs"
    kept = {
        name: {*store.stored_column("meta.update")[store.stored_live()].tolist()}
        for name in ("ER", "ER__window")
        for store in [ExampleStore.open(runs / f"{name}-seed-0" / "state-3" / "memory")]
    }
    assert kept == {"ER": {1, 2, 3}, "ER__window": {2, 3}}
