"""Status, tags, parameters, metrics and artifacts of tracked runs, read by MLflow's client."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from renate_stages.tracking import RunIdentity, TrialRun, new_run, reopened_run

pytestmark = pytest.mark.usefixtures("in_process")


def artifacts_of(run: Any) -> Path:
    return Path(unquote(urlsplit(run.info.artifact_uri).path))


def test_run_without_errors_is_finished_and_complete(project, identity, store):
    with new_run(project, identity) as tracker:
        assert tracker.found
        assert store.run().info.status == "RUNNING"
    run = store.run()
    assert run.info.run_id == tracker.run_id
    assert run.info.status == "FINISHED"
    assert run.data.tags["renate.complete"] == "true"


def test_experiment_has_the_kind_for_model_training(project, identity, store):
    with new_run(project, identity):
        pass
    tags = store.client.get_experiment_by_name("digits").tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_exception_marks_the_run_as_failed_with_a_one_line_error(project, identity, store):
    with pytest.raises(ValueError, match="first"), new_run(project, identity):
        raise ValueError("first\n  second")
    run = store.run()
    assert run.info.status == "FAILED"
    assert run.data.tags["renate.error"] == "ValueError: first second"
    assert "renate.complete" not in run.data.tags


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupt_marks_the_run_as_killed(project, identity, store, interrupt):
    with pytest.raises(interrupt), new_run(project, identity):
        raise interrupt
    assert store.run().info.status == "KILLED"


def test_run_sets_the_tags_that_mlflows_pages_display(project, identity, store):
    tags = {"git.commit": "c0ffee", "git.branch": "main", "git.dirty": "false"}
    with new_run(project, replace(identity, tags=tags)):
        pass
    run = store.run()
    assert run.info.run_name == "update 3"
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert run.data.tags["mlflow.source.git.branch"] == "main"
    assert run.data.tags["mlflow.source.name"] == "renate-stages"
    assert "mlflow.user" in run.data.tags
    assert "**update 3**" in run.data.tags["mlflow.note.content"]
    assert "git.commit: `c0ffee`" in run.data.tags["mlflow.note.content"]
    assert run.data.tags["git.dirty"] == "false"


def test_attempts_with_the_same_key_are_numbered(project, identity, store):
    for _ in range(2):
        with new_run(project, identity):
            pass
    with new_run(project, replace(identity, key="cd" * 32)):
        pass
    attempts = [
        (run.data.tags["renate.key"], run.data.tags["renate.attempt"]) for run in store.runs()
    ]
    assert sorted(attempts) == [("ab" * 32, "1"), ("ab" * 32, "2"), ("cd" * 32, "1")]


def test_number_of_a_deleted_attempt_is_not_reused(project, identity, store):
    with new_run(project, identity) as first:
        pass
    store.client.delete_run(first.run_id)
    with new_run(project, identity):
        pass
    assert store.run().data.tags["renate.attempt"] == "2"


def test_new_attempt_marks_running_attempts_of_the_same_key_as_killed(project, identity, store):
    other = replace(identity, key="cd" * 32)
    left, other_run = new_run(project, identity), new_run(project, other)
    with left as left_tracker, other_run as other_tracker, new_run(project, identity):
        assert store.client.get_run(left_tracker.run_id).info.status == "KILLED"
        assert store.client.get_run(other_tracker.run_id).info.status == "RUNNING"


def test_reopened_run_is_the_latest_complete_attempt(project, identity, store):
    for _ in range(2):
        with new_run(project, identity) as complete:
            pass
    with pytest.raises(RuntimeError), new_run(project, identity):
        raise RuntimeError
    with reopened_run(project, identity) as tracker:
        assert tracker.found
        assert tracker.run_id == complete.run_id
        assert store.client.get_run(complete.run_id).info.status == "RUNNING"
        tracker.set_tags({"export.gate": True})
    assert [run.info.status for run in store.runs()] == ["FINISHED", "FINISHED", "FAILED"]
    assert store.client.get_run(complete.run_id).data.tags["export.gate"] == "True"


def test_run_that_failed_while_reopened_can_be_reopened_again(project, identity, store):
    with new_run(project, identity):
        pass
    with pytest.raises(RuntimeError), reopened_run(project, identity):
        raise RuntimeError("export failed")
    assert store.run().info.status == "FAILED"
    assert store.run().data.tags["renate.error"] == "RuntimeError: export failed"
    with reopened_run(project, identity):
        pass
    assert store.run().info.status == "FINISHED"
    assert "renate.error" not in store.run().data.tags


def test_reopening_an_unknown_run_logs_nothing(project, identity, store):
    with new_run(project, replace(identity, key="cd" * 32)):
        pass
    for unknown in (identity, replace(identity, experiment="other")):
        with reopened_run(project, unknown) as tracker:
            assert not tracker.found
            assert tracker.run_id is None
            tracker.log_metrics({"accuracy": 1.0})
    assert store.run().data.metrics == {}
    assert store.client.get_experiment_by_name("other") is None


def test_reopening_a_run_creates_no_store(tmp_path, identity):
    with reopened_run(tmp_path, identity) as tracker:
        assert not tracker.found
    assert list(tmp_path.iterdir()) == []


def test_nested_parameters_are_logged_with_dotted_names(project, identity, store):
    parameters = {
        "learner": {"name": "DER", "alpha": 0.5, "deep": {"er": None}},
        "layers": [1, "two"],
        "odd=name!": True,
    }
    with new_run(project, identity) as tracker:
        tracker.log_parameters(parameters)
    assert store.run().data.params == {
        "learner.name": "DER",
        "learner.alpha": "0.5",
        "learner.deep.er": "None",
        "layers": '[1, "two"]',
        "odd_name_": "True",
    }


def test_long_parameters_are_truncated_and_saved_in_full_as_an_artifact(project, identity, store):
    parameters = {"classes": "x" * 7000, **{f"p{i}": i for i in range(150)}}
    with new_run(project, identity) as tracker:
        tracker.log_parameters(parameters)
    run = store.run()
    assert run.data.params["classes"] == "x" * 6000
    assert len(run.data.params) == 151
    whole = json.loads((artifacts_of(run) / "parameters.json").read_text())
    assert whole["classes"] == "x" * 7000
    assert whole["p149"] == "149"


def test_metrics_with_steps_are_logged_as_curves(project, identity, store):
    with new_run(project, identity) as tracker:
        for epoch in range(3):
            tracker.log_metrics({"train/loss": 1 / (1 + epoch), "holdout": {"1": epoch}}, epoch)
    run = store.run()
    curve = store.client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert run.data.metrics["holdout.1"] == 2.0


def test_nan_infinite_and_boolean_metrics_are_logged_and_none_is_skipped(project, identity, store):
    many = {f"class.{i}": float(i) for i in range(250)}
    odd = {"nan": math.nan, "infinite": -math.inf, "none": None, "true": True}
    with new_run(project, identity) as tracker:
        tracker.log_metrics({**many, **odd})
    metrics = store.run().data.metrics
    assert len(metrics) == 253
    assert math.isnan(metrics["nan"])
    assert math.isnan(metrics["infinite"])
    assert metrics["true"] == 1.0
    assert metrics["class.249"] == 249.0


def test_artifacts_are_stored_in_the_project(project, identity, store, tmp_path):
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "curve.png").write_bytes(b"png")
    report = tmp_path / "update.md"
    report.write_text("# Update 3")
    with new_run(project, replace(identity, experiment="my digits/é")) as tracker:
        tracker.log_artifact(report)
        tracker.log_artifact(report, "reports")
        tracker.log_artifact(figures, "plots")
    (run,) = store.runs("my digits/é")
    folder = artifacts_of(run)
    assert folder.is_relative_to(project / "mlartifacts" / "my-digits-é")
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {"update.md", "reports/update.md", "plots/curve.png"}


def test_runs_and_artifacts_are_stored_in_dvc_root(project, identity, store, tmp_path, monkeypatch):
    workspace = tmp_path / "workspace"  # like the workspace of `dvc exp run --temp`
    workspace.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(project))
    with new_run(workspace, identity) as tracker:
        tracker.log_parameters({"long": "x" * 7000})
    assert artifacts_of(store.run()).is_relative_to(project)
    assert (artifacts_of(store.run()) / "parameters.json").is_file()
    assert list(workspace.iterdir()) == []


def test_missing_artifacts_cause_one_warning_and_metrics_are_still_logged(
    project, identity, store, capsys
):
    with new_run(project, identity) as tracker:
        tracker.log_artifact(project / "missing.png")
        tracker.log_artifact(project / "also missing.png")
        tracker.log_metrics({"accuracy": 0.9})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert "artifact: " in line
    assert "missing.png" in line
    assert store.run().info.status == "FINISHED"
    assert store.run().data.metrics == {"accuracy": 0.9}


def test_deleted_experiment_causes_a_warning_to_restore_it(project, identity, store, capsys):
    with new_run(project, identity):
        pass
    store.client.delete_experiment(store.client.get_experiment_by_name("digits").experiment_id)
    with new_run(project, identity) as tracker:
        assert not tracker.found
    assert "the experiment 'digits' was deleted in MLflow; restore it" in capsys.readouterr().err


def test_invalid_database_file_causes_a_warning(tmp_path, identity, capsys):
    (tmp_path / "mlflow.db").write_bytes(b"not a database at all, whatever its name" * 100)
    with new_run(tmp_path, identity) as tracker:
        tracker.log_metrics({"accuracy": 0.9})
    assert "file is not a database" in capsys.readouterr().err


def test_missing_database_is_created_without_leftover_files(tmp_path, identity):
    with new_run(tmp_path, identity) as tracker:
        assert tracker.found
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", ".renate"}


def test_run_identity_without_tags_is_accepted(project, store):
    with new_run(project, RunIdentity("digits", "update 1", "ab" * 32)):
        pass
    assert store.run().info.status == "FINISHED"


def test_trials_are_logged_as_nested_runs_of_their_search(project, identity, store):
    with new_run(project, identity) as tracker:
        for number, status in enumerate(("FINISHED", "FAILED", "KILLED")):
            tracker.log_trial(
                TrialRun(
                    number=number,
                    parameters={"learning_rate": "0.1"},
                    points={1: {"accuracy": 0.5}, 2: {"accuracy": 0.75}} if number == 0 else {},
                    tags={"trial.status": status.lower()},
                    status=status,
                    started=1_000,
                    ended=3_000,
                )
            )
        tracker.set_trial_tags(0, {"trial.best": "true"})
        parent = tracker.run_id
    nested = {run.info.run_name: run for run in store.runs() if run.info.run_id != parent}
    assert {name: run.info.status for name, run in nested.items()} == {
        "trial 0": "FINISHED",
        "trial 1": "FAILED",
        "trial 2": "KILLED",
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in nested.values()} == {parent}
    best = nested["trial 0"]
    assert best.data.params == {"learning_rate": "0.1"}
    assert (best.info.start_time, best.info.end_time) == (1_000, 3_000)
    assert best.data.tags["trial.best"] == "true"
    curve = store.client.get_metric_history(best.info.run_id, "accuracy")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.75)]
