"""The program inside a cloud job: its project folder, stage command, uploads and start script."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from renate_stages import files
from renate_stages.remote import start
from renate_stages.remote.container import __main__ as container
from renate_stages.remote.messages import JobDescription, recording_in
from renate_stages.storage.objects import name_of

WRITES = "import pathlib, sys; p = pathlib.Path('state'); p.mkdir(); (p / 'state.json').write_text"
STAGE = f"{WRITES}(open('params.yaml').read()); print('done')"
FAILS = "import sys; print('line 1'); sys.exit('error: learning_rate')"


@pytest.fixture
def run_job(tmp_path, monkeypatch):
    """Run a job in local folders, with a given small program as its stage."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
    content = b"seed: 3\n"
    entry = files.entry_of(content)
    inputs = tmp_path / "input" / "data" / "inputs"
    files.write_text(inputs / name_of(entry), content.decode())

    def run(program: str, hosts: tuple[str, ...] = ("algo-1",), current: str = "algo-1") -> int:
        job = {
            "stage": "train",
            "key": "0123",
            "url": str(tmp_path / "bucket"),
            "command": [],
            "files": {"params.yaml": entry},
            "writes": ["state"],
            "nodes": 1,
            "variables": {},
            "requirements": [],
            "wheel": {"name": "ours-1-py3-none-any.whl", "object": name_of(entry)},
        }
        monkeypatch.setattr(
            container, "stage_command", lambda root, job, host: [sys.executable, "-c", program]
        )
        path = tmp_path / "job.json"
        files.write_json(path, job)
        environment = {
            **os.environ,
            "SM_INPUT_DIR": str(tmp_path / "input"),
            "SM_OUTPUT_FAILURE": str(tmp_path / "output" / "failure"),
            "SM_CURRENT_HOST": current,
            "SM_HOSTS": json.dumps(hosts),
            "TRAINING_JOB_NAME": "renate-train-0123-1",
        }
        return container.main(path, inputs, environment)

    return run


def read_message(folder: Path, name: str) -> dict:
    return json.loads((folder / "bucket" / "jobs" / "train-0123" / name).read_text())


def test_stage_outputs_are_uploaded_and_listed(run_job, tmp_path):
    assert run_job(STAGE) == 0
    listed = read_message(tmp_path, "outputs.json")
    assert listed["job"] == "renate-train-0123-1"
    entry = listed["files"]["state/state.json"]
    assert (tmp_path / "bucket" / "objects" / name_of(entry)).read_bytes() == b"seed: 3\n"


def test_failed_stage_reports_its_last_lines_and_uploads_no_outputs(run_job, tmp_path):
    assert run_job(FAILS) == 1
    assert read_message(tmp_path, "failure.json")["lines"] == ["line 1", "error: learning_rate"]
    assert (tmp_path / "output" / "failure").read_text() == "line 1\nerror: learning_rate"
    assert not (tmp_path / "bucket" / "jobs" / "train-0123" / "outputs.json").exists()


def test_only_the_first_host_uploads_outputs(run_job, tmp_path):
    assert run_job(STAGE, ("algo-1", "algo-2"), "algo-2") == 0
    assert not (tmp_path / "bucket").exists()


def test_inputs_are_symlinked_if_hard_links_are_not_possible(run_job, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    assert run_job(STAGE) == 0
    assert (tmp_path / "project" / "params.yaml").is_symlink()


def test_checkpoints_are_saved_in_the_folder_that_the_service_keeps(run_job, tmp_path):
    saves = "import pathlib; pathlib.Path('.renate/resume/last').write_text('1'); "
    assert run_job(saves + STAGE) == 0
    assert (tmp_path / "checkpoints" / "resume" / "last").read_text() == "1"


def test_each_host_starts_torchrun_with_its_node_rank(tmp_path):
    (tmp_path / "params.yaml").write_text("trainer: {devices: 4, num_nodes: 2}\n")
    host = container.Host("algo-2", ("algo-1", "algo-2"))
    job = JobDescription.model_construct(nodes=2, command=["train"])
    command = container.stage_command(tmp_path, job, host)
    assert command[1:] == [
        "-m",
        "torch.distributed.run",
        "--nnodes=2",
        "--node-rank=1",
        "--nproc-per-node=4",
        "--master-addr=algo-1",
        "--master-port=7777",
        "-m",
        "renate_stages",
        "train",
    ]


def test_damaged_input_is_reported_and_the_stage_does_not_run(run_job, tmp_path):
    (path,) = (each for each in (tmp_path / "input").rglob("*") if each.is_file())
    name = path.relative_to(tmp_path / "input" / "data" / "inputs").as_posix()
    for content in (b"seed: 4\n", b"", None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        assert run_job(STAGE) == 2
        found = read_message(tmp_path, "failure.json")
        assert found["damaged"] == [name]
        assert found["lines"][0] == f"objects/{name} does not match the SHA-256 in its name"
        assert found["lines"][0] in (tmp_path / "output" / "failure").read_text()
        assert not (tmp_path / "project").exists(), "no project was written, and no stage has run"
        path.touch()


def test_restarted_job_replaces_modified_inputs_in_its_folder(run_job, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "params.yaml").write_text("seed: 4\n")
    assert run_job(STAGE) == 0
    assert (tmp_path / "project" / "state" / "state.json").read_text() == "seed: 3\n"


def test_tracking_records_are_uploaded_with_outputs_and_failures(run_job, tmp_path):
    log = "import os; open(os.environ['RENATE_STAGES_TRACKING_FILE'], 'a').write('{}\\n'); "
    assert run_job(log + STAGE) == 0
    entry = read_message(tmp_path, "outputs.json")["tracked"]
    folder = tmp_path / "bucket" / "jobs" / "train-0123"
    assert (folder / recording_in(entry)).read_bytes() == b"{}\n"
    assert run_job(log + FAILS) == 1
    assert read_message(tmp_path, "failure.json")["tracked"] == entry, "old records are removed"


def test_oversized_tracking_records_are_dropped_and_outputs_are_uploaded(
    run_job, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(container.tracking, "RECORDING_BYTES", 2)
    log = "import os; open(os.environ['RENATE_STAGES_TRACKING_FILE'], 'a').write('{}\\n'); "
    assert run_job(log + STAGE) == 0
    assert read_message(tmp_path, "outputs.json")["tracked"] is None
    assert "warning: what was logged is not in MLflow" in capsys.readouterr().out


class TestStartScript:
    """`start.py` has no dependencies, and installs only files listed in a verified job request."""

    @pytest.fixture
    def start_calls(self, tmp_path, monkeypatch):
        wheel = b"a wheel"
        entry = files.entry_of(wheel)
        inputs, configuration = tmp_path / "inputs", tmp_path / "configuration"
        files.write_text(inputs / name_of(entry), wheel.decode())
        job = {
            "requirements": [],
            "wheel": {"name": "ours-1-py3-none-any.whl", "object": name_of(entry)},
        }
        files.write_json(configuration / "job.json", job)
        installed: list[tuple[str, ...]] = []
        monkeypatch.setattr(start, "pip", lambda *given, say: installed.append(given))
        monkeypatch.setattr(os, "execv", lambda *given: installed.append(("run",)))
        monkeypatch.setenv("SM_CHANNEL_CONFIGURATION", str(configuration))
        monkeypatch.setenv("SM_CHANNEL_INPUTS", str(inputs))
        monkeypatch.setenv("SM_OUTPUT_FAILURE", str(tmp_path / "failure"))
        monkeypatch.setenv(start.DIGEST, files.sha256(configuration / "job.json"))
        return installed

    def test_start_installs_the_library_and_runs_the_container_program(self, start_calls):
        start.main()
        assert [each[0] for each in start_calls] == ["--no-index", "run"]

    @pytest.mark.parametrize("name", ["configuration/job.json", "inputs/*/*"])
    def test_start_refuses_modified_job_files(self, start_calls, tmp_path, name):
        (path,) = tmp_path.glob(name)
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content.replace(b"w", b"W", 1))
        with pytest.raises(SystemExit, match="1"):
            start.main()
        assert start_calls == []
        assert "To fix this: run `dvc repro` again" in (tmp_path / "failure").read_text()

    def test_start_refuses_a_request_without_a_job_digest(self, start_calls, monkeypatch):
        monkeypatch.delenv(start.DIGEST)
        with pytest.raises(SystemExit, match="1"):
            start.main()
        assert start_calls == []
