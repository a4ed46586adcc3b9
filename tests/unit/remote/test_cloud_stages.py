"""A stage that runs elsewhere: what travels, what is found again, and what a failure leaves."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from jobs_elsewhere import MADE, Place
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


def train(project, place, say=lambda line: None) -> None:
    cloud.run(project, Params.load(project.params), "train", place.connect, say)


def outputs_of(place: Place):
    return next(place.bucket.glob(f"jobs/*/{OUTPUTS}"))


def test_what_a_job_made_is_put_in_place(ready, place):
    train(ready, place)
    for name, content in MADE.items():
        assert (ready.root / name).read_bytes() == content
    assert len(place.submitted) == 1


def test_an_output_that_was_there_is_replaced_whole(ready, place):
    files.write_text(ready.state / "of_before.json", "{}")
    train(ready, place)
    assert sorted(path.name for path in ready.state.iterdir()) == ["memory", "state.json"]


def test_a_result_that_lies_here_is_linked_and_does_not_travel(ready, place):
    said: list[str] = []
    train(ready, place, said.append)
    shard = "memory/00001-00.inputs.npy"
    assert (ready.state / shard).samefile(ready.parent / shard)
    assert said[-1].endswith("downloaded 3 files, 18 bytes")


def test_inputs_travel_once_and_then_only_those_that_changed(ready, place):
    said: list[str] = []
    train(ready, place, said.append)
    files.write_text(ready.prepared / "index.json", "other data")
    train(ready, place, said.append)
    sent = [line.split("; sent ")[1] for line in said if "; sent " in line]
    assert len(sent) == 2
    assert sent[1] == "1 files, 10 bytes"


def test_what_a_job_is_told_names_every_input_by_its_content(ready, place):
    train(ready, place)
    (own,) = (place.bucket / "jobs").iterdir()
    described = own / "configuration" / place.digests[0] / "job.json"
    assert files.sha256(described) == place.digests[0], "the request anchors what the job is told"
    told = json.loads(described.read_text())
    for name in ("renate_config.py", "params.yaml", "tuned.yaml", "work/tuning/search.json"):
        assert told["files"][name] == files.entry_of((ready.root / name).read_bytes())
    manifest = json.loads((own / "inputs" / f"{place.digests[0]}.manifest").read_text())
    assert manifest[0] == {"prefix": f"{place.bucket}/objects/"}
    for name in manifest[1:]:
        assert files.sha256(place.bucket / "objects" / name) == name.replace("/", "")


def test_a_running_job_with_the_same_inputs_is_attached_to(ready, place):
    job = Job.of(ready, Params.load(ready.params), "train")
    place.known = [JobState(f"{job.service_name}-7", "running", "Training")]
    place.finish(job.folder, f"{job.service_name}-7")
    train(ready, place)
    assert place.submitted == []
    assert (ready.state / "state.json").read_bytes() == MADE["state/state.json"]


def test_what_a_job_made_while_nobody_waited_is_taken(ready, place):
    train(ready, place)
    (ready.state / "state.json").unlink()
    said: list[str] = []
    train(ready, place, said.append)
    assert len(place.submitted) == 1
    assert (ready.state / "state.json").is_file()
    assert "a job with the same inputs has produced them" in said[0]


def test_results_of_inputs_that_were_edited_meanwhile_stay_there(ready, place, monkeypatch):
    """DVC takes the hashes of the inputs when the stage has ended, as they are then."""
    follow, code = cloud.follow, ready.user_config.read_text()

    def edited(*given):
        ready.user_config.write_text(code + "# edited\n")
        return follow(*given)

    with monkeypatch.context() as patched:
        patched.setattr(cloud, "follow", edited)
        with pytest.raises(ChangedInputsError, match=r"renate_config\.py changed while train"):
            train(ready, place)
    assert not ready.state.exists()
    files.write_text(ready.user_config, code)
    said: list[str] = []
    train(ready, place, said.append)
    assert "a job with the same inputs has produced them" in said[0] and ready.state.is_dir()


def test_a_job_may_run_while_other_parameters_are_edited(ready, place, monkeypatch):
    follow = cloud.follow

    def edited(*given):
        edit_params(ready, tuning__max_trials=7)
        return follow(*given)

    monkeypatch.setattr(cloud, "follow", edited)
    train(ready, place)
    assert ready.state.is_dir()


def test_a_job_is_logged_with_the_commit_that_it_was_sent_from(ready, monkeypatch):
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


def test_without_reuse_it_is_made_again(ready, place):
    train(ready, place)
    params = Params.load(ready.params)
    remote = params.remote.model_copy(update={"reuse": False})
    again = params.model_copy(update={"remote": remote})
    cloud.run(ready, again, "train", place.connect, lambda line: None)
    assert len(place.submitted) == 2


def test_a_job_that_failed_tells_its_traceback_and_changes_nothing(ready, place):
    place.states = [JobState("", "failed", "Failed", "AlgorithmError: exit code: 1")]
    place.failure = {"exit_code": 1, "lines": ["Traceback:", "ValueError: no such thing"]}
    before = snapshot(ready)
    with pytest.raises(RemoteJobFailedError) as caught:
        train(ready, place)
    assert "  | ValueError: no such thing" in str(caught.value)
    assert caught.value.exit_code == 1
    assert snapshot(ready) == before


def test_a_users_mistake_there_is_one_here(ready, place):
    place.states = [JobState("", "failed", "Failed", "AlgorithmError")]
    place.failure = {"exit_code": 2, "lines": ["error: learning_rate: found -1"]}
    with pytest.raises(RemoteJobFailedError) as caught:
        train(ready, place)
    assert caught.value.exit_code == 2


def test_why_an_earlier_job_failed_is_not_told_of_this_one(ready, place):
    place.states = [JobState("", "failed", "Failed", "AlgorithmError")]
    place.failure = {"exit_code": 2, "lines": ["error: of the first"]}
    with pytest.raises(RemoteJobFailedError, match="of the first"):
        train(ready, place)
    place.finish = lambda folder, job: None  # the second one dies without a word
    place.states = [JobState("", "failed", "Failed", "CapacityError: none left")]
    with pytest.raises(RemoteJobFailedError, match="CapacityError: none left") as caught:
        train(ready, place)
    assert "of the first" not in str(caught.value)


def test_a_job_that_failed_is_run_again(ready, place):
    place.states = [JobState("", "failed", "Failed", "AlgorithmError")]
    place.failure = {"exit_code": 1, "lines": ["once"]}
    with pytest.raises(RemoteJobFailedError):
        train(ready, place)
    place.failure, place.states = None, [JobState("", "completed", "Completed")]
    train(ready, place)
    assert len(place.submitted) == 2


def test_a_stopped_job_changes_nothing(ready, place):
    place.states = [JobState("", "stopped", "MaxRuntimeExceeded", "it took longer than allowed")]
    before = snapshot(ready)
    with pytest.raises(RemoteJobStoppedError, match="longer than allowed"):
        train(ready, place)
    assert snapshot(ready) == before


def test_a_result_whose_bytes_are_others_is_refused_and_changes_nothing(ready, place, monkeypatch):
    monkeypatch.setattr(retries, "PAUSES", (0,))
    train(ready, place)
    (ready.state / "state.json").unlink()
    entry = json.loads(outputs_of(place).read_text())["files"]["state/state.json"]
    digest = entry["sha256"]
    (place.bucket / "objects" / digest[:2] / digest[2:]).write_bytes(b'{"new": 2}')
    before = snapshot(ready)
    with pytest.raises(Exception, match="SHA-256 differs"):
        train(ready, place)
    assert snapshot(ready) == before


@pytest.mark.parametrize(
    ("change", "said"),
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
def test_a_list_of_results_that_cannot_be_is_refused(ready, place, change, said):
    train(ready, place)
    path = outputs_of(place)
    told = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps({**told, "files": change(told["files"])}))
    before = snapshot(ready)
    with pytest.raises(DamagedOutputError, match=said):
        train(ready, place)
    assert snapshot(ready) == before


def test_an_input_that_is_missing_is_said_before_anything_travels(ready, place):
    (ready.root / "forget.yaml").unlink()
    with pytest.raises(MissingFileError, match=r"forget\.yaml"):
        train(ready, place)
    assert not place.bucket.exists()


def test_a_disk_that_is_too_small_is_said_before_anything_travels(ready, place, monkeypatch):
    monkeypatch.setattr(job_module, "_under", lambda project, names: {"big": ready.params})
    monkeypatch.setattr(Hashes, "entries", lambda *_: {"big": {"sha256": "0" * 64, "size": 2**36}})
    with pytest.raises(InvalidParamsError, match=r"volume_gb is 30, but train reads 64 GiB"):
        train(ready, place)
    assert not place.bucket.exists()


def test_machines_are_as_many_as_the_training_has_nodes(ready, place):
    edit_params(ready, remote__sagemaker={"instance_count": 2})
    with pytest.raises(InvalidParamsError, match="each node is an instance"):
        train(ready, place)


def test_without_the_sdk_the_extra_is_named(ready, monkeypatch):
    monkeypatch.setattr(cloud, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"renate-stages\[sagemaker,s3\]"):
        cloud.connect(Params.load(ready.params))


def test_a_backend_that_lacks_something_is_refused_before_data_is_prepared(
    ready, monkeypatch, capsys
):
    monkeypatch.setenv("RENATE_STAGES_BACKEND", "sagemaker")
    monkeypatch.chdir(ready.root)
    monkeypatch.setattr(sys, "argv", ["renate-stages", "prepare"])
    before = snapshot(ready)
    with pytest.raises(SystemExit, match="2"):
        main.main()
    assert "remote.sagemaker.image_uri" in capsys.readouterr().err
    assert snapshot(ready) == before


def fails(place: Place, **told) -> None:
    place.states = [JobState("", "failed", "Failed", "AlgorithmError: exit code: 1")]
    place.failure = {"exit_code": 1, "lines": ["once"], **told}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"exit_code": 0}, "exit_code"),
        ({"exit_code": "1"}, "exit_code"),
        ({"lines": ["x" * 3000]}, "lines"),
        ({"lines": ["x"] * 300}, "lines"),
        ({"damaged": ["../../x"]}, "damaged"),
        ({"run": "rm"}, "run: Extra inputs"),
    ],
)
def test_a_failure_that_no_job_writes_is_not_repeated(ready, place, told, said):
    fails(place, **told)
    before = snapshot(ready)
    with pytest.raises(RemoteJobFailedError, match="AlgorithmError: exit code: 1") as caught:
        train(ready, place)
    assert "it is not a valid message of a job" in str(caught.value) and said in str(caught.value)
    assert caught.value.exit_code == 1
    assert snapshot(ready) == before


def test_what_a_job_printed_does_nothing_to_a_terminal(ready, place):
    fails(place, lines=["\x1b[2Jno \x1b]0;owned\x07http://me:secret@host"])
    place.lines = [BEGIN, "\x1b[31mepoch 1\x1b[0m http://me:secret@host/x"]
    said: list[str] = []
    with pytest.raises(RemoteJobFailedError) as caught:
        train(ready, place, said.append)
    assert "  | no http://***@host\n" in str(caught.value)
    assert "epoch 1 http://***@host/x" in said


@pytest.mark.parametrize("name", [OUTPUTS, FAILURE])
def test_a_file_of_any_size_is_not_read_into_memory(ready, place, name):
    train(ready, place)
    folder = outputs_of(place).parent
    if name == FAILURE:
        outputs_of(place).unlink()
        fails(place)
    place.finish = lambda folder, job: None
    with (folder / name).open("wb") as stream:
        stream.truncate(10 * 2**30)  # sparse: it takes no room here
    error = OversizedFileError if name == OUTPUTS else RemoteJobFailedError
    with pytest.raises(error, match=f"{name} has at least 10737418240 bytes, but at most"):
        train(ready, place)


def test_an_object_with_other_bytes_is_sent_again_before_a_job_is_paid_for(ready, place):
    train(ready, place)
    outputs_of(place).unlink()
    entry = files.entry_of(ready.params.read_bytes())
    object_ = place.bucket / "objects" / name_of(entry)
    object_.write_bytes(b"x" * entry["size"])
    train(ready, place)
    assert files.sha256(object_) == entry["sha256"]


def test_what_a_job_reports_as_damaged_is_sent_again_though_the_service_proves_nothing(
    ready, place, monkeypatch
):
    monkeypatch.setattr(services.Folder, "agrees", lambda *_: None)  # as with objects under KMS
    names = [name_of(files.entry_of(path.read_bytes())) for path in (ready.params, ready.tuned)]
    fails(place, damaged=[names[0]])
    with pytest.raises(RemoteJobFailedError):
        train(ready, place)
    for name in names:
        content = (place.bucket / "objects" / name).read_bytes()
        (place.bucket / "objects" / name).write_bytes(b"x" * len(content))
    place.failure, place.states = None, [JobState("", "completed", "Completed")]
    train(ready, place)
    whole = [
        files.sha256(place.bucket / "objects" / name) == name.replace("/", "") for name in names
    ]
    assert whole == [True, False], "of the other, the job would report it"


def test_a_result_that_lies_here_but_was_changed_is_fetched(ready, place, monkeypatch):
    shard, fetch = "memory/00001-00.inputs.npy", cloud.fetch

    def change(*given) -> None:
        (ready.parent / shard).unlink()
        (ready.parent / shard).write_bytes(b"another")
        fetch(*given)

    monkeypatch.setattr(cloud, "fetch", change)
    train(ready, place)
    assert (ready.state / shard).read_bytes() == b"a shard"


def test_a_result_of_another_size_is_not_fetched(ready, place):
    train(ready, place)
    entry = json.loads(outputs_of(place).read_text())["files"]["state/state.json"]
    with (place.bucket / "objects" / name_of(entry)).open("wb") as stream:
        stream.truncate(10 * 2**30)
    before = snapshot(ready)
    with pytest.raises(DamagedOutputError, match=r"has 10737418240 bytes; expected 10 bytes"):
        train(ready, place)
    assert snapshot(ready) == before


def test_a_folder_is_not_replaced_by_a_file(ready, place):
    ready.state.mkdir()
    (ready.state / "state.json").write_text("{}")
    place.made = {**{n: c for n, c in MADE.items() if not n.startswith("state/")}, "state": b"x"}
    before = snapshot(ready)
    with pytest.raises(DamagedOutputError, match="it lists 'state' as a file"):
        train(ready, place)
    assert snapshot(ready) == before


def test_a_forged_recording_leaks_nothing_and_the_results_are_used(
    ready, place, monkeypatch, capsys, tmp_path
):
    """Somebody writes to the bucket: no local file is logged, and no other server is asked."""
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
    place.tracked = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    train(ready, place)
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
