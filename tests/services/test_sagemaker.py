"""Stages that run in SageMaker: the same results, and whatever goes wrong on the way there."""

from __future__ import annotations

import subprocess

import pytest
from cloud_project import BACKEND, CloudProject, project_in

THERE = {BACKEND: "sagemaker"}
SLOWLY = "import time; time.sleep(0.4)  # a test has time to interfere\n"


def in_cloud(project: CloudProject, **variables: str) -> CloudProject:
    """The same project, with stages that run there."""
    given = {**project.variables, **THERE, **variables}
    return CloudProject(project.root, project.python, given)


def jobs_of(cloud, project: CloudProject) -> list[str]:
    """Names of the jobs that a project has submitted, in order."""
    bucket = project.variables["BUCKET"]
    return [
        name
        for name, request in cloud.requests.items()
        if request["OutputDataConfig"]["S3OutputPath"].startswith(f"s3://{bucket}/")
    ]


@pytest.fixture
def project(tmp_path, cloud, bucket, sagemaker_python) -> CloudProject:
    return project_in(tmp_path / "there", cloud, bucket, sagemaker_python, BUCKET=bucket)


@pytest.fixture
def ready(project) -> CloudProject:
    """A project whose next stage is `train`, which runs in the cloud; nothing is tracked."""
    project.stop_tracking()
    for stage in ("prepare", "restore-state", "tune"):
        project.run("renate-stages", stage)
    return in_cloud(project)


def test_where_stages_ran_changes_nothing_else(project, cloud, bucket):
    there = in_cloud(project)
    objects = f"s3://{bucket}/updates/objects/"
    first = cloud.mark()
    there.run("dvc", "repro")
    there.commit("Update 1")
    there.run("renate-stages", "next")
    there.put_digits(2)
    there.change(
        hyperparameters__learning_rate={"loguniform": [0.02, 0.2]},
        tuning__max_trials=2,
        tuning__n_workers=2,
    )
    known = set(there.hashes(".").values())
    second = cloud.mark()
    said = there.run("dvc", "repro")

    tune, train = jobs_of(cloud, there)[1:]  # in update 1 there was nothing to search
    assert tune.startswith("renate-tune-") and train.startswith("renate-train-")
    assert "update 2:" in said  # the stage's own lines
    assert "Training" in said and "Completed" in said  # the job's states
    assert [run["status"] for run in there.runs] == ["FINISHED"] * 5
    assert {run["remote.job"] for run in there.runs if "remote.job" in run} == set(
        jobs_of(cloud, there)
    )

    sent = {name.replace("/", "") for name in cloud.uploads(second, under=objects)}
    assert sent and not sent & {
        name.replace("/", "") for name in cloud.calls_before(second, objects)
    }
    brought = {name.replace("/", "") for name in cloud.downloads(second, under=objects)}
    assert brought and not brought & known
    size = sum(path.stat().st_size for path in (there.root / "state").rglob("*.np*"))
    assert 0 < sum(cloud.downloads(second, under=objects).values()) < size

    lock = there.read("dvc.lock")
    project.run("dvc", "repro", "--force", "--single-item", "tune", "train")
    assert there.read("dvc.lock") == lock
    assert len(jobs_of(cloud, there)) == 3
