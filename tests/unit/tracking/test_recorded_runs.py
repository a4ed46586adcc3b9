"""What a stage logs elsewhere comes into the project's own store, as if it had been logged here."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from renate_stages import tracking
from renate_stages.tracking import TrialRun, new_run, recorded, replay, replaying

pytestmark = pytest.mark.usefixtures("in_process")
TRIAL = TrialRun(
    0, {"lr": "0.1"}, {1: {"loss": 2.0}}, {"trial.status": "completed"}, "FINISHED", 5, 9
)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The file that runs are recorded in, until `replayed` takes it up."""
    path = tmp_path / "tracked.jsonl"
    monkeypatch.setenv(tracking.FILE_VARIABLE, str(path))
    return path


@pytest.fixture
def replayed(project, elsewhere, monkeypatch, in_process):
    from renate_stages.tracking import runs

    def act(**tags: str) -> None:
        monkeypatch.delenv(tracking.FILE_VARIABLE)
        monkeypatch.setattr(replaying, "SideProcess", runs.SideProcess)
        replay(project, recorded(elsewhere), tags)

    return act


def test_nothing_is_logged_where_it_is_recorded(project, identity, store, elsewhere):
    with new_run(project, identity) as tracker:
        tracker.log_metrics({"loss": 1.0})
        assert tracker.started and not tracker.found
    assert store.runs() == []


def test_a_run_is_logged_with_all_that_was_recorded(project, identity, store, elsewhere, replayed):
    began = int(time.time() * 1000)
    with new_run(project, identity) as tracker:
        tracker.log_parameters({"learner": {"alpha": 0.5}})
        tracker.log_metrics({"loss": 1.0}, step=1)
        tracker.log_metrics({"loss": 0.5}, step=2)
        tracker.set_tags({"renate.state": "abc"})
        tracker.log_trial(TRIAL)
        tracker.set_trial_tags(0, {"trial.best": "true"})
    time.sleep(0.05)
    ended = int(time.time() * 1000)
    replayed(**{"git.commit": "c0ffee", "remote.job": "renate-train-1"})

    run, trial = sorted(store.runs(), key=lambda run: "mlflow.parentRunId" in run.data.tags)
    assert run.info.status == "FINISHED"
    assert began <= run.info.start_time <= run.info.end_time < ended
    assert run.data.params == {"learner.alpha": "0.5"}
    points = store.client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5)]
    for name, value in {
        "renate.state": "abc",
        "renate.key": identity.key,
        "renate.complete": "true",
        "update.number": "3",
        "git.commit": "c0ffee",
        "mlflow.source.git.commit": "c0ffee",
        "remote.job": "renate-train-1",
    }.items():
        assert run.data.tags[name] == value
    assert trial.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert trial.data.tags["trial.best"] == "true"


def test_who_runs_the_container_is_not_the_user(project, identity, store, elsewhere, replayed):
    elsewhere.write_text("")
    with new_run(project, identity):
        pass
    lines = [json.loads(line) for line in elsewhere.read_text().splitlines()]
    lines[0]["tags"]["mlflow.user"] = "of the container"
    elsewhere.write_text("\n".join(map(json.dumps, lines)))
    replayed()
    assert store.run().data.tags["mlflow.user"] != "of the container"


def test_a_failure_there_is_a_failed_run_here(project, identity, store, elsewhere, replayed):
    with pytest.raises(ValueError, match="no"), new_run(project, identity):
        raise ValueError("no")
    replayed()
    assert store.run().info.status == "FAILED"
    assert store.run().data.tags["renate.error"] == "ValueError: no"


def test_a_stage_that_was_killed_there_is_a_killed_run_here(
    project, identity, store, elsewhere, replayed
):
    with new_run(project, identity) as tracker:
        tracker.log_metrics({"loss": 1.0})
    lines = elsewhere.read_text().splitlines()
    elsewhere.write_text("\n".join([*lines[:-1], lines[-1][:10]]))
    replayed()
    assert store.run().info.status == "KILLED"
    assert store.run().data.metrics == {"loss": 1.0}


def test_attempts_are_counted_here(project, identity, store, elsewhere, replayed, monkeypatch):
    with monkeypatch.context() as here:
        here.delenv(tracking.FILE_VARIABLE)
        with new_run(project, identity):
            pass
    with new_run(project, replace(identity, tags={"update.number": "3"})):
        pass
    replayed()
    assert [run.data.tags["renate.attempt"] for run in store.runs()] == ["1", "2"]


def test_without_a_recording_nothing_is_logged(project, store, elsewhere, replayed):
    replayed()
    assert store.runs() == []
