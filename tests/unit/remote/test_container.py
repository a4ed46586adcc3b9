"""What runs inside a job: the project it lays out, the stage's command, and what it sends."""

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
def machine(tmp_path, monkeypatch):
    """The folders of a job whose stage is a small program instead of ours."""
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


def told(folder: Path, name: str) -> dict:
    return json.loads((folder / "bucket" / "jobs" / "train-0123" / name).read_text())


def test_what_the_stage_made_is_sent_and_listed_last(machine, tmp_path):
    assert machine(STAGE) == 0
    listed = told(tmp_path, "outputs.json")
    assert listed["job"] == "renate-train-0123-1"
    entry = listed["files"]["state/state.json"]
    assert (tmp_path / "bucket" / "objects" / name_of(entry)).read_bytes() == b"seed: 3\n"


def test_a_failure_is_told_with_its_last_lines_and_sends_no_results(machine, tmp_path):
    assert machine(FAILS) == 1
    assert told(tmp_path, "failure.json")["lines"] == ["line 1", "error: learning_rate"]
    assert (tmp_path / "output" / "failure").read_text() == "line 1\nerror: learning_rate"
    assert not (tmp_path / "bucket" / "jobs" / "train-0123" / "outputs.json").exists()


def test_of_several_machines_the_first_one_sends(machine, tmp_path):
    assert machine(STAGE, ("algo-1", "algo-2"), "algo-2") == 0
    assert not (tmp_path / "bucket").exists()


def test_inputs_are_linked_and_where_they_cannot_be_pointed_to(machine, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    assert machine(STAGE) == 0
    assert (tmp_path / "project" / "params.yaml").is_symlink()


def test_checkpoints_lie_where_the_service_keeps_them(machine, tmp_path):
    saves = "import pathlib; pathlib.Path('.renate/resume/last').write_text('1'); "
    assert machine(saves + STAGE) == 0
    assert (tmp_path / "checkpoints" / "resume" / "last").read_text() == "1"


def test_each_machine_starts_torchrun_with_its_own_rank(tmp_path):
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


def test_an_input_with_other_bytes_is_not_used_and_is_reported(machine, tmp_path):
    (path,) = (each for each in (tmp_path / "input").rglob("*") if each.is_file())
    name = path.relative_to(tmp_path / "input" / "data" / "inputs").as_posix()
    for content in (b"seed: 4\n", b"", None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        assert machine(STAGE) == 2
        found = told(tmp_path, "failure.json")
        assert found["damaged"] == [name]
        assert found["lines"][0] == f"objects/{name} does not match the SHA-256 in its name"
        assert found["lines"][0] in (tmp_path / "output" / "failure").read_text()
        assert not (tmp_path / "project").exists(), "nothing was laid out, and nothing run"
        path.touch()


def test_a_job_that_starts_again_in_the_same_place_uses_whole_inputs(machine, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "params.yaml").write_text("seed: 4\n")
    assert machine(STAGE) == 0
    assert (tmp_path / "project" / "state" / "state.json").read_text() == "seed: 3\n"


def test_what_was_logged_is_sent_beside_the_results(machine, tmp_path):
    log = "import os; open(os.environ['RENATE_STAGES_TRACKING_FILE'], 'a').write('{}\\n'); "
    assert machine(log + STAGE) == 0
    entry = told(tmp_path, "outputs.json")["tracked"]
    folder = tmp_path / "bucket" / "jobs" / "train-0123"
    assert (folder / recording_in(entry)).read_bytes() == b"{}\n"
    assert machine(log + FAILS) == 1
    assert told(tmp_path, "failure.json")["tracked"] == entry, "an earlier recording is gone"


def test_a_recording_that_is_too_large_is_left_and_the_results_are_not(
    machine, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(container.tracking, "RECORDING_BYTES", 2)
    log = "import os; open(os.environ['RENATE_STAGES_TRACKING_FILE'], 'a').write('{}\\n'); "
    assert machine(log + STAGE) == 0
    assert told(tmp_path, "outputs.json")["tracked"] is None
    assert "warning: what was logged is not in MLflow" in capsys.readouterr().out


class TestTheStart:
    """`start.py`, which runs alone: it installs nothing that the request does not name."""

    @pytest.fixture
    def started(self, tmp_path, monkeypatch):
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

    def test_installs_the_library_and_goes_on(self, started):
        start.main()
        assert [each[0] for each in started] == ["--no-index", "run"]

    @pytest.mark.parametrize("name", ["configuration/job.json", "inputs/*/*"])
    def test_refuses_what_is_not_as_it_was_sent(self, started, tmp_path, name):
        (path,) = tmp_path.glob(name)
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content.replace(b"w", b"W", 1))
        with pytest.raises(SystemExit, match="1"):
            start.main()
        assert started == []
        assert "To fix this: run `dvc repro` again" in (tmp_path / "failure").read_text()

    def test_refuses_a_request_that_names_no_job(self, started, monkeypatch):
        monkeypatch.delenv(start.DIGEST)
        with pytest.raises(SystemExit, match="1"):
            start.main()
        assert started == []
