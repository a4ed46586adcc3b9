"""The tracker's side process: started when needed, ended with the stage, errors reported."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from renate_stages.tracking import new_run, reopened_run, runs, side_process

STAGE = """
import sys
from pathlib import Path
from renate_stages.tracking import RunIdentity, new_run

identity = RunIdentity("digits", "update 3", key=sys.argv[2])
with new_run(Path(sys.argv[1]), identity) as tracker:
    tracker.log_metrics({"accuracy": 0.5})
"""
KILLED_STAGE = (
    STAGE
    + """
    import os, time
    child = os.fork()  # like a data loader's worker, it inherits the pipe and outlives the stage
    if child:
        print(child, tracker._process._process.pid, flush=True)
    time.sleep(120)
"""
)


def start(stage: str, project: Path, key: str, **streams: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", stage, str(project), key]
    return subprocess.Popen(command, text=True, **streams)  # type: ignore[call-overload]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.1)


def test_four_concurrent_stages_log_to_a_new_store(tmp_path, store_in):
    stages = [start(STAGE, tmp_path, key * 64, stderr=subprocess.PIPE) for key in "abcd"]
    errors = [stage.communicate(timeout=120)[1] for stage in stages]
    assert errors == [""] * 4
    assert [stage.returncode for stage in stages] == [0] * 4
    found = store_in(tmp_path).runs()
    assert [run.info.status for run in found] == ["FINISHED"] * 4
    assert [run.data.metrics for run in found] == [{"accuracy": 0.5}] * 4
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", ".renate"}


def test_killed_stage_leaves_a_killed_run_and_no_writer_process(project, store):
    stage = start(KILLED_STAGE, project, "ab" * 32, stdout=subprocess.PIPE)
    with stage:
        assert stage.stdout is not None
        child, writer = map(int, stage.stdout.readline().split())
        try:
            stage.kill()
            wait_until(lambda: not is_running(writer))
            assert is_running(child)
        finally:
            os.kill(child, signal.SIGKILL)
    assert store.run().info.status == "KILLED"
    assert store.run().data.metrics == {"accuracy": 0.5}
    assert "renate.complete" not in store.run().data.tags


def test_unreachable_server_causes_one_warning_and_the_stage_completes(tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: refuses connections
        uri = f"http://me:secret@127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        stage = start(STAGE, tmp_path, "ab" * 32, stderr=subprocess.PIPE)
        (line,) = stage.communicate(timeout=60)[1].splitlines()  # MLflow retries for minutes
    assert stage.returncode == 0
    assert line.startswith("warning: ")
    assert "the server does not respond" in line
    assert "secret" not in line
    assert list(tmp_path.iterdir()) == []


def test_disabled_tracking_starts_no_process_and_imports_no_mlflow(tmp_path, monkeypatch, identity):
    imports = "import sys, renate_stages.tracking; print(*sys.modules)"
    command = [sys.executable, "-c", imports]
    modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert not {"mlflow", "sqlalchemy", "requests", "torch", "numpy"} & set(modules)

    monkeypatch.setattr(runs, "SideProcess", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://")
    for opened in (new_run, reopened_run):
        with opened(tmp_path, identity, enabled=False) as tracker:
            assert not tracker.started
            assert not tracker.found
            assert tracker.run_id is None
            tracker.log_parameters({"a": 1})
            tracker.log_metrics({"b": 1.0}, step=1)
            tracker.log_artifact(tmp_path / "c")
            tracker.set_tags({"d": "e"})
    assert list(tmp_path.iterdir()) == []


def test_logging_to_a_missing_run_is_dropped_without_a_warning(project, identity, capsys, store):
    report = project / "report.md"
    report.write_text("# report")
    with reopened_run(project, identity) as tracker:
        assert tracker.started  # the search for the run has not ended yet
        for _ in range(3):
            tracker.log_artifact(report)
        assert not tracker.found
        tracker.log_artifact(report)
    assert capsys.readouterr().err == ""
    assert store.runs() == []


@pytest.fixture
def fake_writer(tmp_path, monkeypatch):
    """Replace the writer, which imports MLflow, with a short script."""

    def put(script: str) -> None:
        file = tmp_path / "fake_writer.py"
        file.write_text(f"import json, sys\n{script}")
        monkeypatch.setattr(side_process, "WRITER", file)

    return put


def test_writer_crash_is_reported_with_exit_code_and_last_error_line(
    fake_writer, project, identity, capsys
):
    fake_writer("sys.exit('noise\\nno room left')")
    with new_run(project, identity) as tracker:
        assert not tracker.found
        for step in range(100):
            tracker.log_metrics({"loss": 1.0}, step)
    (line,) = capsys.readouterr().err.splitlines()
    assert "ended with code 1: no room left" in line


def test_commands_are_sent_without_waiting_for_answers(fake_writer, project, identity, capsys):
    fake_writer(
        "lines = sys.stdin.readlines()\n"
        "print(json.dumps({'run_id': f'{len(lines)} {json.loads(lines[-1])}'}))"
    )
    process = side_process.SideProcess(project)
    process.send({"do": "open"})
    process.send({"do": "metrics", "values": {"loss": float("nan")}})
    process.close({"do": "close"})
    assert process.answers == {"run_id": "3 {'do': 'close'}"}
    assert process.problems == []


def test_interrupt_from_the_terminal_does_not_reach_the_writer_process(fake_writer, project):
    fake_writer("import os; print(json.dumps({'run_id': os.getsid(0)}))")
    process = side_process.SideProcess(project)
    session = process.wait_for("run_id")
    process.close({"do": "close"})
    assert session != os.getsid(0)
