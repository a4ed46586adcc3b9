"""A stage that runs elsewhere: what travels, what is found again, and what a failure leaves."""

from __future__ import annotations

import json
import sys

import pytest
from jobs_elsewhere import MADE, Place
from small_project import edit_params, snapshot

from renate_stages import cli, files
from renate_stages.errors import (
    DamagedOutputError,
    InvalidParamsError,
    MissingExtraError,
    MissingFileError,
    RemoteJobFailedError,
    RemoteJobStoppedError,
)
from renate_stages.hashes import Hashes
from renate_stages.params import Params
from renate_stages.remote import elsewhere, retries
from renate_stages.remote import job as job_module
from renate_stages.remote.backend import JobState
from renate_stages.remote.job import OUTPUTS, Job


def train(project, place, say=lambda line: None) -> None:
    elsewhere.run(project, Params.load(project.params), "train", place.connect, say)


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
    assert said[-1].endswith("brought 3 files, 18 bytes")


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
    told = json.loads((own / "configuration" / "job.json").read_text())
    for name in ("renate_config.py", "params.yaml", "tuned.yaml", "work/tuning/search.json"):
        assert told["files"][name] == files.entry_of((ready.root / name).read_bytes())
    manifest = json.loads((own / "inputs.manifest").read_text())
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
    assert "a job with the same inputs has made it" in said[0]


def test_without_reuse_it_is_made_again(ready, place):
    train(ready, place)
    params = Params.load(ready.params)
    remote = params.remote.model_copy(update={"reuse": False})
    again = params.model_copy(update={"remote": remote})
    elsewhere.run(ready, again, "train", place.connect, lambda line: None)
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
        (lambda made: made | {"../params.yaml": made["state/state.json"]}, "does not write"),
        (lambda made: made | {"state/../params.yaml": made["state/state.json"]}, "does not write"),
        (lambda made: made | {"renate_config.py": made["state/state.json"]}, "does not write"),
        (lambda made: made | {"state/state.json": {"sha256": 7}}, "its entry of"),
        (lambda made: {n: e for n, e in made.items() if n != "metrics/update.json"}, "it lacks"),
        (lambda made: [], "it lists no files"),
        (lambda made: None, "it lists no files"),
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
    with pytest.raises(InvalidParamsError, match=r"volume_gb is 30, and train reads 64 GiB"):
        train(ready, place)
    assert not place.bucket.exists()


def test_machines_are_as_many_as_the_training_has_nodes(ready, place):
    edit_params(ready, remote__sagemaker={"instance_count": 2})
    with pytest.raises(InvalidParamsError, match="each node is an instance"):
        train(ready, place)


def test_without_the_sdk_the_extra_is_named(ready, monkeypatch):
    monkeypatch.setattr(elsewhere, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"renate-stages\[sagemaker,s3\]"):
        elsewhere.connect(Params.load(ready.params))


def test_a_backend_that_lacks_something_is_refused_before_data_is_prepared(
    ready, monkeypatch, capsys
):
    monkeypatch.setenv("RENATE_STAGES_BACKEND", "sagemaker")
    monkeypatch.chdir(ready.root)
    monkeypatch.setattr(sys, "argv", ["renate-stages", "prepare"])
    before = snapshot(ready)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "remote.sagemaker.image_uri" in capsys.readouterr().err
    assert snapshot(ready) == before
