"""Somebody else writes to the bucket: nothing of it is run, and nothing in the project changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cloud_project import CloudProject, jobs_of

BESIDE = (".renate/", ".dvc/", ".git/")


class Bucket:
    """The bucket, as somebody sees it who may write there."""

    def __init__(self, cloud: Any, name: str) -> None:
        self.s3, self.name = cloud.inside("s3"), name

    def keys(self, begin: str = "updates/") -> list[str]:
        listed = self.s3.list_objects_v2(Bucket=self.name, Prefix=begin)
        return [each["Key"] for each in listed.get("Contents", [])]

    def read(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.name, Key=key)["Body"].read()

    def swap(self, key: str) -> bytes:
        """Put other bytes of the same size in the place of an object; return what was there."""
        before = self.read(key)
        self.write(key, bytes([before[0] ^ 1]) + before[1:])
        return before

    def write(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket=self.name, Key=key, Body=content)

    def the(self, begin: str, end: str = "") -> str:
        (key,) = (key for key in self.keys(begin) if key.endswith(end))
        return key

    @property
    def told(self) -> dict[str, Any]:
        """What the job is told."""
        return json.loads(self.read(self.the("updates/jobs/", "job.json")))

    def object(self, digest: str) -> str:
        return f"updates/objects/{digest[:2]}/{digest[2:]}"


@pytest.fixture
def there(cloud, bucket) -> Bucket:
    return Bucket(cloud, bucket)


def files_of(project: CloudProject) -> dict[str, str]:
    """The SHA-256 of each file of a project, but for those that pass."""
    found = project.hashes(".")
    return {name: each for name, each in found.items() if not name.startswith(BESIDE)}


def input_of(there: Bucket) -> str:
    listed = there.told["files"]
    name = next(each for each in listed if each.startswith("work/prepared/"))
    return there.object(listed[name]["sha256"])


SWAPS: dict[str, Callable[[Bucket], str]] = {
    "the library": lambda there: f"updates/objects/{there.told['wheel']['object']}",
    "an input": input_of,
    "job.json": lambda there: there.the("updates/jobs/", "job.json"),
}


def refused_train(project: CloudProject, cloud: Any, there: Bucket, what: str) -> str:
    """Run `train`, for whose job something is swapped after all was sent, and before it begins."""
    swapped: list[str] = []

    def swap() -> None:
        swapped.append(SWAPS[what](there))
        there.swap(swapped[0])

    before = files_of(project)
    cloud.before("CreateTrainingJob", swap)
    said = project.run("renate-stages", "train", code=2 if what == "an input" else 1)
    name = "job.json" if what == "job.json" else swapped[0].removeprefix("updates/")
    problem = (
        "not the one that this job was submitted with"
        if what == "job.json"
        else ("does not match the SHA-256 in its name")
    )
    assert any(name in line and problem in line for line in said.splitlines())
    assert "To fix this: run `dvc repro` again" in said
    assert "update 1:" not in said, "the stage did not run"
    assert files_of(project) == before
    assert not [key for key in there.keys("updates/jobs/") if key.endswith("outputs.json")]
    return swapped[0]


@pytest.mark.parametrize("what", ["the library", "job.json"])
def test_a_job_that_gets_another_program_than_was_sent_does_not_begin(ready, cloud, there, what):
    refused_train(ready, cloud, there, what)


def test_a_job_that_gets_other_inputs_does_not_begin_and_they_are_sent_again(ready, cloud, there):
    key = refused_train(ready, cloud, there, "an input")
    mark = cloud.mark()
    ready.run("renate-stages", "train")
    assert f"s3://{there.name}/{key}" in cloud.uploads(mark)
    assert (ready.root / "state" / "state.json").is_file()

    ready.run("rm", "-r", "state", "plots", "metrics/update.json")
    before = files_of(ready)
    listed = there.the("updates/jobs/", "outputs.json")
    made = json.loads(there.read(listed))["files"]
    key = there.object(made["state/model.safetensors"]["sha256"])
    there.swap(key)
    said = ready.run("renate-stages", "train", code=2)
    assert key in said and "SHA-256 differs" in said, "results are verified too"
    assert f"To fix this: delete s3://{there.name}/{listed}" in said
    assert files_of(ready) == before
    assert len(jobs_of(cloud, ready)) == 2
