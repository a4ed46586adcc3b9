"""Replay runs that a stage recorded on another machine into the project's MLflow store."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from renate_stages import tracking
from renate_stages.tracking import TrialRun, new_run, records, replay, replaying, writer

pytestmark = pytest.mark.usefixtures("in_process")
TRIAL = TrialRun(
    0, {"lr": "0.1"}, {1: {"loss": 2.0}}, {"trial.status": "completed"}, "FINISHED", 5, 9
)
COMPLETE = {"renate.state": "abc"}


@pytest.fixture
def recording_file(tmp_path, monkeypatch):
    """Record runs in this file instead of a store, until `replay_recording` is called."""
    path = tmp_path / "tracked.jsonl"
    monkeypatch.setenv(tracking.FILE_VARIABLE, str(path))
    return path


@pytest.fixture
def replay_recording(project, identity, recording_file, monkeypatch, in_process):
    from renate_stages.tracking import runs

    def act(
        tags: dict[str, str] | None = None,
        outputs: dict[str, Path] | None = None,
        complete: dict[str, str] | None = COMPLETE,
    ) -> None:
        monkeypatch.delenv(tracking.FILE_VARIABLE, raising=False)
        monkeypatch.setattr(replaying, "SideProcess", runs.SideProcess)
        local_identity = replace(identity, tags={**identity.tags, **(tags or {})})
        replay(
            project, recording_file, lambda key: local_identity, outputs=outputs, complete=complete
        )

    return act


@pytest.fixture
def write_recording(identity, recording_file):
    """Write a recording by hand, as anyone with write access to the bucket could."""

    def act(*lines: Any) -> None:
        opened = {"do": "open", "key": identity.key, "at": 1000}
        closed = {"do": "close", "status": "FINISHED", "error": None, "at": 2000}
        texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
        whole = [json.dumps(opened), *texts, json.dumps(closed)]
        recording_file.write_text("".join(f"{line}\n" for line in whole))

    return act


def test_recorded_run_is_not_logged_to_the_store(project, identity, store, recording_file):
    with new_run(project, identity) as tracker:
        tracker.log_metrics({"loss": 1.0})
        assert tracker.started and not tracker.found
    assert store.runs() == []


def test_replay_logs_all_recorded_parameters_metrics_tags_and_trials(
    project, identity, store, recording_file, replay_recording
):
    began = int(time.time() * 1000)
    with new_run(project, identity) as tracker:
        tracker.log_parameters({"learner": {"alpha": 0.5}})
        tracker.log_metrics({"loss": 1.0}, step=1)
        tracker.log_metrics({"loss": 0.5, "odd": float("nan")}, step=2)
        tracker.set_tags({"tuning.repeatable": True})
        tracker.log_trial(TRIAL)
        tracker.set_trial_tags(0, {"trial.best": "true"})
    time.sleep(0.05)
    ended = int(time.time() * 1000)
    replay_recording({"git.commit": "c0ffee", "remote.job": "renate-train-1"})

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
        "tuning.repeatable": "True",
        "update.number": "3",
        "git.commit": "c0ffee",
        "mlflow.source.git.commit": "c0ffee",
        "remote.job": "renate-train-1",
    }.items():
        assert run.data.tags[name] == value
    assert trial.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert trial.data.tags["trial.best"] == "true"


def test_recording_contains_no_store_address_and_no_state_tags(
    project, identity, recording_file, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.org")
    with new_run(project, identity) as tracker:
        tracker.set_tags({"renate.state": "abc", "dvc.state.md5": "def"})
    text = recording_file.read_text()
    assert [json.loads(line)["do"] for line in text.splitlines()] == ["open", "close"]
    for word in ("secret", "example.org", "mlflow", "renate.", "dvc."):
        assert word not in text


def test_failed_recorded_run_is_replayed_as_failed(
    project, identity, store, recording_file, replay_recording
):
    with pytest.raises(ValueError, match="no"), new_run(project, identity):
        raise ValueError("no")
    replay_recording(complete=None)
    assert store.run().info.status == "FAILED"
    assert store.run().data.tags["renate.error"] == "ValueError: no"
    assert "renate.complete" not in store.run().data.tags


def test_finished_recorded_run_without_results_is_replayed_as_failed(
    project, identity, store, recording_file, replay_recording
):
    with new_run(project, identity):
        pass
    replay_recording(complete=None)
    assert store.run().info.status == "FAILED"
    assert "renate.complete" not in store.run().data.tags


def test_truncated_recording_of_a_killed_stage_is_replayed_as_killed(
    project, identity, store, recording_file, replay_recording, capsys
):
    with new_run(project, identity) as tracker:
        tracker.log_metrics({"loss": 1.0})
    lines = recording_file.read_text().splitlines()
    recording_file.write_text("\n".join([*lines[:-1], lines[-1][:10]]))
    replay_recording()
    assert store.run().info.status == "KILLED"
    assert store.run().data.metrics == {"loss": 1.0}
    assert capsys.readouterr().err == "", "a truncated record is not refused"


def test_replayed_runs_continue_the_attempt_numbers_of_the_store(
    project, identity, store, recording_file, replay_recording, monkeypatch
):
    with monkeypatch.context() as here:
        here.delenv(tracking.FILE_VARIABLE)
        with new_run(project, identity):
            pass
    with new_run(project, replace(identity, tags={"update.number": "3"})):
        pass
    replay_recording()
    assert [run.data.tags["renate.attempt"] for run in store.runs()] == ["1", "2"]


VALID = {"do": "metrics", "values": {"loss": 1.0}, "step": 1, "timestamp": 1500, "at": 1500}
STORE = {"uri": "http://evil", "database": None, "lock": "/tmp/lock", "artifact_location": None}
TRIAL_RECORD = {
    "do": "trial",
    "number": 0,
    "parameters": {},
    "points": {"1": {"loss": 2.0}},
    "tags": {"trial.status": "completed"},
    "status": "FINISHED",
    "started": 5,
    "ended": 9,
    "at": 1500,
}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"do": "_make_database", "database": "/etc/cron.d/x", "at": 1}, "does not match any of"),
        ({"do": "__class__", "at": 1}, "does not match any of"),
        ({"do": "publish", "store": STORE, "at": 1}, "does not match any of"),
        ({"at": 1}, "do"),
        ("[]", "object"),
        ("not JSON", "JSON"),
        ("[" * 100_000, "JSON"),
        ({"do": "tags", "values": {"mlflow.note.content": "![](http://evil)"}, "at": 1}, "note"),
        ({"do": "tags", "values": {"renate.complete": "true"}, "at": 1}, "renate.complete"),
        ({"do": "tags", "values": {"renate.state": "ab" * 32}, "at": 1}, "renate.state"),
        ({"do": "artifact", "path": "/etc/passwd", "folder": None, "at": 1}, "artifact.path"),
        ({"do": "artifact", "path": "state/../../x", "folder": None, "at": 1}, "artifact.path"),
        ({"do": "artifact", "path": "renate_config.py", "folder": None, "at": 1}, "no output"),
        ({"do": "artifact", "path": "state/a", "folder": "../..", "at": 1}, "artifact.folder"),
        ({**VALID, "store": STORE}, "metrics.store"),
        ({**VALID, "values": {"loss": "1.0"}}, "metrics.values"),
        ({**VALID, "values": {"../loss": 1.0}}, "without empty parts"),
        ({**VALID, "values": {"x" * 251: 1.0}}, "250 characters"),
        ({**VALID, "values": {"a\x1b[2J": 1.0}}, "metrics.values"),
        ({**VALID, "values": {str(n): 1.0 for n in range(records.VALUES + 1)}}, "10000 items"),
        ({**VALID, "step": 2**60}, "metrics.step"),
        ({**VALID, "step": 1.5}, "metrics.step"),
        ({**VALID, "timestamp": -1}, "metrics.timestamp"),
        ({"do": "parameters", "values": {"a": "x" * 1_000_001}, "at": 1}, "1000000 characters"),
        ({**TRIAL_RECORD, "tags": {"mlflow.parentRunId": "a"}}, "parentRunId"),
        ({**TRIAL_RECORD, "number": -1}, "trial.number"),
        ({**TRIAL_RECORD, "status": "RUNNING"}, "trial.status"),
        ({"do": "trial_tags", "number": 7, "values": {}, "at": 1}, "there is no trial 7"),
        ({"do": "open", "key": "ab" * 32, "at": 1}, "a run is open already"),
    ],
)
def test_forbidden_record_of_a_job_is_refused_and_valid_records_are_logged(
    project, store, replay_recording, write_recording, capsys, record, message
):
    before = {path for path in project.rglob("*") if path.is_file()}
    output = project / "state" / "a"
    output.parent.mkdir()
    output.write_text("of the job")
    write_recording(VALID, record)
    replay_recording(outputs={"state/a": output})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: 1 of 4 records of the job were refused")
    assert "record 3: " in line and message in line and "\x1b" not in line and len(line) < 600
    run = store.run()
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"loss": 1.0}
    after = {path for path in project.rglob("*") if path.is_file()}
    assert after - before <= {output, project / ".renate" / "mlflow.lock"}


@pytest.mark.parametrize("key", ["cd" * 32, "ab' or 1=1", "ab", 7])
def test_recording_of_another_update_is_refused(
    project, identity, store, replay_recording, write_recording, recording_file, capsys, key
):
    write_recording(VALID)
    lines = recording_file.read_text().splitlines()
    lines[0] = json.dumps({"do": "open", "key": key, "at": 1000})
    recording_file.write_text("".join(f"{line}\n" for line in lines))
    replay_recording()
    assert store.runs() == []
    (message,) = capsys.readouterr().err.splitlines()
    assert "3 of 3 records" in message and "open.key" in message


def test_record_above_the_line_length_limit_is_not_read(
    project, store, replay_recording, write_recording, capsys, monkeypatch
):
    monkeypatch.setattr(records, "LINE_BYTES", 1000)
    write_recording(VALID, {**VALID, "values": {"a": 1.0, "b" * 2000: 2.0}}, VALID)
    replay_recording()
    (message,) = capsys.readouterr().err.splitlines()
    assert "record 3: the recording is too long" in message
    assert store.run().info.status == "KILLED", "the record that closes the run was not read"


def test_records_above_the_count_limit_are_not_read(
    project, store, replay_recording, write_recording, capsys, monkeypatch
):
    monkeypatch.setattr(records, "RECORDS", 10)
    write_recording(*[VALID] * 100)
    replay_recording()
    assert "record 11: the recording is too long" in capsys.readouterr().err


def test_replay_logs_only_verified_outputs_as_artifacts(
    project, store, replay_recording, write_recording, capsys
):
    folder = project / "state"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_text("of the job")
    (folder / "unlisted").write_text("not listed")
    (folder / "link").symlink_to("/etc/passwd")
    outputs = {"state/deep/a": folder / "deep" / "a", "other/link": folder / "link"}
    write_recording(
        {"do": "artifact", "path": "state", "folder": "results", "at": 1500},
        {"do": "artifact", "path": "other", "folder": None, "at": 1500},
    )
    replay_recording(outputs=outputs)
    assert "'other/link' is not a regular file" in capsys.readouterr().err
    run = store.run()
    found = store.client.list_artifacts(run.info.run_id, "results/deep")
    assert [each.path for each in found] == ["results/deep/a"]
    assert [each.path for each in store.client.list_artifacts(run.info.run_id)] == ["results"]


def test_artifact_is_recorded_by_its_path_relative_to_the_project(
    project, identity, recording_file, capsys
):
    (project / "plots").mkdir()
    with new_run(project, identity) as tracker:
        tracker.log_artifact(project / "plots", "plots")
        tracker.log_artifact(project.parent / "outside.txt")
    lines = [json.loads(line) for line in recording_file.read_text().splitlines()]
    assert [each.get("path") for each in lines] == [None, "plots", None]
    assert "outside.txt is not in the project" in capsys.readouterr().err


def test_search_with_500_trials_of_5000_points_fits_the_recording_limits():
    """The limits of a record and of a recording allow 500 trials with 5,000 points each."""
    points = {
        str(step): {f"metric_{n}": 0.123456789012345 for n in range(10)} for step in range(500)
    }
    line = json.dumps({**TRIAL_RECORD, "points": points}).encode()
    assert records.parse(line).points[499]["metric_9"] == 0.123456789012345
    assert len(line) < records.LINE_BYTES and 500 * len(line) < records.RECORDING_BYTES


@pytest.mark.parametrize("verb", ["_start", "follow", "__init__", "client", "", None, "Open"])
def test_writer_refuses_unknown_commands(verb):
    answers = []
    command = {"do": verb} if verb is not None else {}
    writer.Writer(answers.append).carry_out(command)
    (answer,) = answers
    assert re.search(r"expected one of open, parameters, metrics, .*close$", answer["problem"])


def test_registrar_refuses_unknown_commands():
    from renate_stages.tracking.registrar import Registrar

    answers = []
    Registrar(answers.append).carry_out({"do": "_make_model", "name": "a", "description": "b"})
    assert "publish, version, alias, point" in answers[0]["problem"]
