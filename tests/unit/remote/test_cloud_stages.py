"""Stages that run as cloud jobs: uploads, reuse of finished jobs, outputs and failures."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from jobs_elsewhere import MADE, FakeProvider
from small_project import edit_params, snapshot

from renate_stages import files
from renate_stages.cli import main
from renate_stages.errors import (
    ChangedInputsError,
    DamagedOutputError,
    InvalidParamsError,
    MissingExtraError,
    MissingFileError,
    OversizedFileError,
    RemoteJobFailedError,
    RemoteJobStoppedError,
)
from renate_stages.files.hashes import Hashes
from renate_stages.params import Params
from renate_stages.remote import cloud, results
from renate_stages.remote import job as job_module
from renate_stages.remote.backend import JobState
from renate_stages.remote.job import FAILURE, OUTPUTS, Job
from renate_stages.remote.start import BEGIN
from renate_stages.storage import retries, services
from renate_stages.storage.objects import name_of
from renate_stages.tracking import RunIdentity


def train(project, provider, say=lambda line: None) -> None:
    cloud.run(project, Params.load(project.params), "train", provider.connect, say)


def outputs_of(provider: FakeProvider):
    return next(provider.bucket.glob(f"jobs/*/{OUTPUTS}"))


def test_job_outputs_are_written_into_the_project(ready, provider):
    train(ready, provider)
    for name, content in MADE.items():
        assert (ready.root / name).read_bytes() == content
    assert len(provider.submitted) == 1


def test_existing_output_folder_is_replaced_completely(ready, provider):
    files.write_text(ready.state / "of_before.json", "{}")
    train(ready, provider)
    assert sorted(path.name for path in ready.state.iterdir()) == ["memory", "state.json"]


def test_job_output_equal_to_a_local_file_is_linked_and_not_downloaded(ready, provider):
    shown: list[str] = []
    train(ready, provider, shown.append)
    shard = "memory/00001-00.inputs.npy"
    assert (ready.state / shard).samefile(ready.parent / shard)
    assert shown[-1].endswith("downloaded 3 files, 18 bytes")


def test_only_changed_inputs_are_uploaded_for_the_next_job(ready, provider):
    shown: list[str] = []
    train(ready, provider, shown.append)
    files.write_text(ready.prepared / "index.json", "other data")
    train(ready, provider, shown.append)
    sent = [line.split("; sent ")[1] for line in shown if "; sent " in line]
    assert len(sent) == 2
    assert sent[1] == "1 files, 10 bytes"


def test_job_description_lists_every_input_by_sha256(ready, provider):
    train(ready, provider)
    (own,) = (provider.bucket / "jobs").iterdir()
    described = own / "configuration" / provider.digests[0] / "job.json"
    assert files.sha256(described) == provider.digests[0], "digest of the job payload"
    payload = json.loads(described.read_text())
    for name in ("renate_config.py", "params.yaml", "tuned.yaml", "work/tuning/search.json"):
        assert payload["files"][name] == files.entry_of((ready.root / name).read_bytes())
    manifest = json.loads((own / "inputs" / f"{provider.digests[0]}.manifest").read_text())
    assert manifest[0] == {"prefix": f"{provider.bucket}/objects/"}
    for name in manifest[1:]:
        assert files.sha256(provider.bucket / "objects" / name) == name.replace("/", "")


def test_stage_attaches_to_a_running_job_with_the_same_inputs(ready, provider):
    job = Job.of(ready, Params.load(ready.params), "train")
    provider.known = [JobState(f"{job.service_name}-7", "running", "Training")]
    provider.finish(job.folder, f"{job.service_name}-7")
    train(ready, provider)
    assert provider.submitted == []
    assert (ready.state / "state.json").read_bytes() == MADE["state/state.json"]


def test_outputs_of_a_finished_job_with_the_same_inputs_are_reused(ready, provider):
    train(ready, provider)
    (ready.state / "state.json").unlink()
    shown: list[str] = []
    train(ready, provider, shown.append)
    assert len(provider.submitted) == 1
    assert (ready.state / "state.json").is_file()
    assert "a job with the same inputs has produced them" in shown[0]


def test_job_outputs_are_not_downloaded_if_inputs_changed_meanwhile(ready, provider, monkeypatch):
    """DVC hashes the inputs only after the stage has ended, and would record the edited ones."""
    follow, code = cloud.follow, ready.user_config.read_text()

    def edited(*given):
        ready.user_config.write_text(code + "# edited\n")
        return follow(*given)

    with monkeypatch.context() as patched:
        patched.setattr(cloud, "follow", edited)
        with pytest.raises(ChangedInputsError, match=r"renate_config\.py changed while train"):
            train(ready, provider)
    assert not ready.state.exists()
    files.write_text(ready.user_config, code)
    shown: list[str] = []
    train(ready, provider, shown.append)
    assert "a job with the same inputs has produced them" in shown[0] and ready.state.is_dir()


def test_unrelated_params_may_be_edited_while_a_job_runs(ready, provider, monkeypatch):
    follow = cloud.follow

    def edited(*given):
        edit_params(ready, tuning__max_trials=7)
        return follow(*given)

    monkeypatch.setattr(cloud, "follow", edited)
    train(ready, provider)
    assert ready.state.is_dir()


def test_job_run_is_tagged_with_the_git_commit_at_submission(ready, monkeypatch):
    tags = {"git.commit": "a", "git.branch": "main", "git.dirty": "true"}
    monkeypatch.setattr("renate_stages.tracking.provenance_tags", lambda _: tags)
    params = Params.load(ready.params)
    job = Job.of(ready, params, "tune")
    parent = SimpleNamespace(identity="a state")
    monkeypatch.setattr(results.State, "open", lambda *_, **__: parent)
    later = {"git.commit": "b", "git.dirty": "false", "git.branch": "other"}
    monkeypatch.setattr("renate_stages.tracking.provenance_tags", lambda _: later)
    found = results.identity_of(ready, params, job, "ab" * 32, "job-1").tags
    assert {name: found[name] for name in tags} == tags and found["remote.job"] == "job-1"


def test_disabled_reuse_submits_a_new_job_for_the_same_inputs(ready, provider):
    train(ready, provider)
    params = Params.load(ready.params)
    remote = params.remote.model_copy(update={"reuse": False})
    again = params.model_copy(update={"remote": remote})
    cloud.run(ready, again, "train", provider.connect, lambda line: None)
    assert len(provider.submitted) == 2


def test_failed_job_error_shows_its_traceback_and_changes_no_file(ready, provider):
    provider.states = [JobState("", "failed", "Failed", "AlgorithmError: exit code: 1")]
    provider.failure = {"exit_code": 1, "lines": ["Traceback:", "ValueError: no such thing"]}
    before = snapshot(ready)
    with pytest.raises(RemoteJobFailedError) as caught:
        train(ready, provider)
    assert "  | ValueError: no such thing" in str(caught.value)
    assert caught.value.exit_code == 1
    assert snapshot(ready) == before


def test_user_error_in_a_job_exits_with_code_2(ready, provider):
    provider.states = [JobState("", "failed", "Failed", "AlgorithmError")]
    provider.failure = {"exit_code": 2, "lines": ["error: learning_rate: found -1"]}
    with pytest.raises(RemoteJobFailedError) as caught:
        train(ready, provider)
    assert caught.value.exit_code == 2


def test_failure_message_of_an_earlier_job_is_not_reported_for_a_later_job(ready, provider):
    provider.states = [JobState("", "failed", "Failed", "AlgorithmError")]
    provider.failure = {"exit_code": 2, "lines": ["error: of the first"]}
    with pytest.raises(RemoteJobFailedError, match="of the first"):
        train(ready, provider)
    provider.finish = lambda folder, job: None  # the second job ends without a message
    provider.states = [JobState("", "failed", "Failed", "CapacityError: none left")]
    with pytest.raises(RemoteJobFailedError, match="CapacityError: none left") as caught:
        train(ready, provider)
    assert "of the first" not in str(caught.value)


def test_failed_job_is_submitted_again(ready, provider):
    provider.states = [JobState("", "failed", "Failed", "AlgorithmError")]
    provider.failure = {"exit_code": 1, "lines": ["once"]}
    with pytest.raises(RemoteJobFailedError):
        train(ready, provider)
    provider.failure, provider.states = None, [JobState("", "completed", "Completed")]
    train(ready, provider)
    assert len(provider.submitted) == 2


def test_stopped_job_changes_no_file(ready, provider):
    provider.states = [JobState("", "stopped", "MaxRuntimeExceeded", "longer than allowed")]
    before = snapshot(ready)
    with pytest.raises(RemoteJobStoppedError, match="longer than allowed"):
        train(ready, provider)
    assert snapshot(ready) == before


def test_damaged_job_output_is_refused_and_changes_no_file(ready, provider, monkeypatch):
    monkeypatch.setattr(retries, "PAUSES", (0,))
    train(ready, provider)
    (ready.state / "state.json").unlink()
    entry = json.loads(outputs_of(provider).read_text())["files"]["state/state.json"]
    digest = entry["sha256"]
    (provider.bucket / "objects" / digest[:2] / digest[2:]).write_bytes(b'{"new": 2}')
    before = snapshot(ready)
    with pytest.raises(Exception, match="SHA-256 differs"):
        train(ready, provider)
    assert snapshot(ready) == before


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda made: made | {"../params.yaml": made["state/state.json"]}, "relative path"),
        (lambda made: made | {"state/../params.yaml": made["state/state.json"]}, "relative path"),
        (lambda made: made | {"renate_config.py": made["state/state.json"]}, "does not write"),
        (lambda made: made | {"state/./a": made["state/state.json"]}, "relative path"),
        (lambda made: made | {"/state/a": made["state/state.json"]}, "relative path"),
        (lambda made: made | {"state/a\x1b[2J": made["state/state.json"]}, "relative path"),
        (lambda made: made | {"state/state.json/a": made["state/state.json"]}, "as a file"),
        (lambda made: made | {"state": made["state/state.json"]}, "'state' as a file"),
        (lambda made: made | {"state/state.json": {"sha256": 7, "size": 1}}, "sha256"),
        (lambda made: made | {"state/state.json": {"sha256": "0" * 63, "size": 1}}, "sha256"),
        (lambda made: made | {"state/state.json": {"sha256": "../" * 21 + "a", "size": 1}}, "sha"),
        (lambda made: made | {"state/state.json": {"sha256": "0" * 64, "size": -1}}, "size"),
        (lambda made: made | {"state/state.json": {"sha256": "0" * 64, "size": 1, "do": 1}}, "do"),
        (lambda made: {n: e for n, e in made.items() if n != "metrics/update.json"}, "it lacks"),
        (lambda made: {n: made[n] for n in ("metrics/update.json", "plots/classes.csv")}, "state"),
        (lambda made: [], "files: Input should be"),
        (lambda made: None, "files: Input should be"),
    ],
)
def test_invalid_list_of_job_outputs_is_refused(ready, provider, change, shown):
    train(ready, provider)
    path = outputs_of(provider)
    payload = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps({**payload, "files": change(payload["files"])}))
    before = snapshot(ready)
    with pytest.raises(DamagedOutputError, match=shown):
        train(ready, provider)
    assert snapshot(ready) == before


def test_missing_input_is_reported_before_any_upload(ready, provider):
    (ready.root / "forget.yaml").unlink()
    with pytest.raises(MissingFileError, match=r"forget\.yaml"):
        train(ready, provider)
    assert not provider.bucket.exists()


def test_too_small_volume_is_reported_before_any_upload(ready, provider, monkeypatch):
    monkeypatch.setattr(job_module, "_under", lambda project, names: {"big": ready.params})
    monkeypatch.setattr(Hashes, "entries", lambda *_: {"big": {"sha256": "0" * 64, "size": 2**36}})
    with pytest.raises(InvalidParamsError, match=r"volume_gb is 30, but train reads 64 GiB"):
        train(ready, provider)
    assert not provider.bucket.exists()


def test_instance_count_must_equal_the_number_of_nodes(ready, provider):
    edit_params(ready, remote__sagemaker={"instance_count": 2})
    with pytest.raises(InvalidParamsError, match="each node is an instance"):
        train(ready, provider)


def test_missing_sagemaker_sdk_error_names_the_extra(ready, monkeypatch):
    monkeypatch.setattr(cloud, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"renate-stages\[sagemaker,s3\]"):
        cloud.connect(Params.load(ready.params))


def test_incomplete_backend_params_are_refused_before_data_is_prepared(ready, monkeypatch, capsys):
    monkeypatch.setenv("RENATE_STAGES_BACKEND", "sagemaker")
    monkeypatch.chdir(ready.root)
    monkeypatch.setattr(sys, "argv", ["renate-stages", "prepare"])
    before = snapshot(ready)
    with pytest.raises(SystemExit, match="2"):
        main.main()
    assert "remote.sagemaker.image_uri" in capsys.readouterr().err
    assert snapshot(ready) == before


def let_jobs_fail(provider: FakeProvider, **payload) -> None:
    provider.states = [JobState("", "failed", "Failed", "AlgorithmError: exit code: 1")]
    provider.failure = {"exit_code": 1, "lines": ["once"], **payload}


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        ({"exit_code": 0}, "exit_code"),
        ({"exit_code": "1"}, "exit_code"),
        ({"lines": ["x" * 3000]}, "lines"),
        ({"lines": ["x"] * 300}, "lines"),
        ({"damaged": ["../../x"]}, "damaged"),
        ({"run": "rm"}, "run: Extra inputs"),
    ],
)
def test_invalid_failure_message_of_a_job_is_not_shown(ready, provider, payload, shown):
    let_jobs_fail(provider, **payload)
    before = snapshot(ready)
    with pytest.raises(RemoteJobFailedError, match="AlgorithmError: exit code: 1") as caught:
        train(ready, provider)
    assert "it is not a valid message of a job" in str(caught.value) and shown in str(caught.value)
    assert caught.value.exit_code == 1
    assert snapshot(ready) == before


def test_escape_codes_and_credentials_are_removed_from_job_output(ready, provider):
    let_jobs_fail(provider, lines=["\x1b[2Jno \x1b]0;owned\x07http://me:secret@host"])
    provider.lines = [BEGIN, "\x1b[31mepoch 1\x1b[0m http://me:secret@host/x"]
    shown: list[str] = []
    with pytest.raises(RemoteJobFailedError) as caught:
        train(ready, provider, shown.append)
    assert "  | no http://***@host\n" in str(caught.value)
    assert "epoch 1 http://***@host/x" in shown


@pytest.mark.parametrize("name", [OUTPUTS, FAILURE])
def test_oversized_job_message_is_refused_and_not_read_into_memory(ready, provider, name):
    train(ready, provider)
    folder = outputs_of(provider).parent
    if name == FAILURE:
        outputs_of(provider).unlink()
        let_jobs_fail(provider)
    provider.finish = lambda folder, job: None
    with (folder / name).open("wb") as stream:
        stream.truncate(10 * 2**30)  # a sparse file takes no disk space
    error = OversizedFileError if name == OUTPUTS else RemoteJobFailedError
    with pytest.raises(error, match=f"{name} has at least 10737418240 bytes, but at most"):
        train(ready, provider)


def test_damaged_input_object_is_uploaded_again_before_submission(ready, provider):
    train(ready, provider)
    outputs_of(provider).unlink()
    entry = files.entry_of(ready.params.read_bytes())
    object_ = provider.bucket / "objects" / name_of(entry)
    object_.write_bytes(b"x" * entry["size"])
    train(ready, provider)
    assert files.sha256(object_) == entry["sha256"]


def test_input_that_a_job_reports_as_damaged_is_uploaded_again_without_checksums(
    ready, provider, monkeypatch
):
    monkeypatch.setattr(services.Folder, "agrees", lambda *_: None)  # as under KMS encryption
    names = [name_of(files.entry_of(path.read_bytes())) for path in (ready.params, ready.tuned)]
    let_jobs_fail(provider, damaged=[names[0]])
    with pytest.raises(RemoteJobFailedError):
        train(ready, provider)
    for name in names:
        content = (provider.bucket / "objects" / name).read_bytes()
        (provider.bucket / "objects" / name).write_bytes(b"x" * len(content))
    provider.failure, provider.states = None, [JobState("", "completed", "Completed")]
    train(ready, provider)
    whole = [
        files.sha256(provider.bucket / "objects" / name) == name.replace("/", "") for name in names
    ]
    assert whole == [True, False], "only a job would report the other object as damaged"


def test_job_output_is_downloaded_if_the_equal_local_file_was_changed(ready, provider, monkeypatch):
    shard, fetch = "memory/00001-00.inputs.npy", cloud.fetch

    def change(*given) -> None:
        (ready.parent / shard).unlink()
        (ready.parent / shard).write_bytes(b"another")
        fetch(*given)

    monkeypatch.setattr(cloud, "fetch", change)
    train(ready, provider)
    assert (ready.state / shard).read_bytes() == b"a shard"


def test_job_output_of_wrong_size_is_not_downloaded(ready, provider):
    train(ready, provider)
    entry = json.loads(outputs_of(provider).read_text())["files"]["state/state.json"]
    with (provider.bucket / "objects" / name_of(entry)).open("wb") as stream:
        stream.truncate(10 * 2**30)
    before = snapshot(ready)
    with pytest.raises(DamagedOutputError, match=r"has 10737418240 bytes; expected 10 bytes"):
        train(ready, provider)
    assert snapshot(ready) == before


def test_output_folder_is_not_replaced_by_a_file(ready, provider):
    ready.state.mkdir()
    (ready.state / "state.json").write_text("{}")
    provider.made = {**{n: c for n, c in MADE.items() if not n.startswith("state/")}, "state": b"x"}
    before = snapshot(ready)
    with pytest.raises(DamagedOutputError, match="it lists 'state' as a file"):
        train(ready, provider)
    assert snapshot(ready) == before


def test_forged_tracking_records_leak_nothing_and_job_outputs_are_used(
    ready, provider, monkeypatch, capsys, tmp_path
):
    """An attacker writes to the bucket: no local file is logged, and no server is contacted."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    edit_params(ready, tracking__enabled=True)
    key = "ab" * 32
    monkeypatch.setattr(results, "identity_of", lambda *_: RunIdentity("digits", "update-1", key))
    lines = [
        {"do": "open", "key": key, "at": 1, "store": {"uri": "http://127.0.0.1:9"}},
        {"do": "open", "key": key, "at": 1},
        {"do": "artifact", "path": str(ready.user_config), "folder": None, "at": 2},
        {"do": "artifact", "path": "renate_config.py", "folder": None, "at": 2},
        {"do": "_make_database", "database": str(tmp_path / "made"), "at": 2},
        {"do": "tags", "values": {"renate.state": "cd" * 32}, "at": 3},
        {"do": "metrics", "values": {"loss": 0.5}, "step": 1, "timestamp": 4, "at": 4},
        {"do": "close", "status": "FINISHED", "error": None, "at": 5},
    ]
    provider.tracked = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    train(ready, provider)
    assert (ready.state / "state.json").read_bytes() == MADE["state/state.json"]
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert "5 of 8 records of the job were refused" in warning
    assert "record 1: open.store: Extra inputs are not permitted" in warning
    with closing(sqlite3.connect(tmp_path / "runs.db")) as store:
        ((status, folder),) = store.execute("select status, artifact_uri from runs").fetchall()
        assert store.execute("select key, value from metrics").fetchall() == [("loss", 0.5)]
        tags = dict(store.execute("select key, value from tags").fetchall())
    assert status == "FINISHED" and tags["renate.state"] == files.sha256(ready.state / "state.json")
    artifacts = Path(folder.removeprefix("file://"))
    assert not artifacts.exists() or not list(artifacts.rglob("*"))
    assert not (tmp_path / "made").exists()
