"""Tampered objects in the bucket are not executed and do not change the project."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cloud_project import CloudProject, jobs_of

IGNORED = (".renate/", ".dvc/", ".git/")


class Bucket:
    """The bucket, used by an attacker who may write to its storage."""

    def __init__(self, cloud: Any, name: str) -> None:
        self.s3, self.name = cloud.inside("s3"), name

    def keys(self, begin: str = "updates/") -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=self.name, Prefix=begin)
        return [each["Key"] for each in listed.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.name, Key=key)["Body"].read()

    def swap(self, key: str) -> bytes:
        """Replace an object by other bytes of the same size; return its old bytes from storage."""
        before = self.read(key)
        self.write(key, bytes([before[0] ^ 1]) + before[1:])
        return before

    def write(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=content)

    def only_key(self, begin: str, end: str = "") -> str:
        (key,) = (key for key in self.keys(begin) if key.endswith(end))
        return key

    @property
    def job_json(self) -> dict[str, Any]:
        """Content of job.json, which the job reads."""
        return json.loads(self.read(self.only_key("updates/jobs/", "job.json")))

    def object(self, digest: str) -> str:
        return f"updates/objects/{digest[:2]}/{digest[2:]}"


@pytest.fixture
def storage(cloud, bucket) -> Bucket:
    return Bucket(cloud, bucket)


def files_of(project: CloudProject) -> dict[str, str]:
    """Return the SHA-256 of each file of a project, without ignored files."""
    found = project.hashes(".")
    return {name: each for name, each in found.items() if not name.startswith(IGNORED)}


def input_of(storage: Bucket) -> str:
    listed = storage.job_json["files"]
    name = next(each for each in listed if each.startswith("work/prepared/"))
    return storage.object(listed[name]["sha256"])


SWAPS: dict[str, Callable[[Bucket], str]] = {
    "the library": lambda storage: f"updates/objects/{storage.job_json['wheel']['object']}",
    "an input": input_of,
    "job.json": lambda storage: storage.only_key("updates/jobs/", "job.json"),
}


def assert_train_refuses(project: CloudProject, cloud: Any, storage: Bucket, what: str) -> str:
    """Run `train`, replace an object between upload and job start, and check the refusal."""
    swapped: list[str] = []

    def swap() -> None:
        swapped.append(SWAPS[what](storage))
        storage.swap(swapped[0])

    before = files_of(project)
    cloud.before("CreateTrainingJob", swap)
    output = project.run("renate-stages", "train", code=2 if what == "an input" else 1)
    name = "job.json" if what == "job.json" else swapped[0].removeprefix("updates/")
    problem = (
        "not the one that this job was submitted with"
        if what == "job.json"
        else ("does not match the SHA-256 in its name")
    )
    assert any(name in line and problem in line for line in output.splitlines())
    assert "To fix this: run `dvc repro` again" in output
    assert "update 1:" not in output, "the stage did not run"
    assert files_of(project) == before
    assert not [key for key in storage.keys("updates/jobs/") if key.endswith("outputs.json")]
    return swapped[0]


@pytest.mark.parametrize("what", ["the library", "job.json"])
def test_job_with_tampered_code_or_job_file_does_not_start(ready, cloud, storage, what):
    assert_train_refuses(ready, cloud, storage, what)


def test_job_with_tampered_input_does_not_start_and_rerun_uploads_the_input_again(
    ready, cloud, storage
):
    key = assert_train_refuses(ready, cloud, storage, "an input")
    mark = cloud.mark()
    ready.run("renate-stages", "train")
    assert f"s3://{storage.name}/{key}" in cloud.uploads(mark)
    assert (ready.root / "state" / "state.json").is_file()

    ready.run("rm", "-r", "state", "plots", "metrics/update.json")
    before = files_of(ready)
    listed = storage.only_key("updates/jobs/", "outputs.json")
    made = json.loads(storage.read(listed))["files"]
    key = storage.object(made["state/model.safetensors"]["sha256"])
    storage.swap(key)
    output = ready.run("renate-stages", "train", code=2)
    assert key in output and "SHA-256 differs" in output, "results are verified too"
    assert f"To fix this: delete s3://{storage.name}/{listed}" in output
    assert files_of(ready) == before
    assert len(jobs_of(cloud, ready)) == 2
