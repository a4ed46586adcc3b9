"""Fixtures: a simulated cloud, cloud projects, and three updates published to MLflow."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cloud_project import CloudProject, copy_of, in_cloud, project_in
from published_updates import Published
from warm_commands import SIDE_PROCESS, WarmSideProcess, folder

from renate_stages.actions import publish
from renate_stages.files import yaml_file
from renate_stages.project import Project
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import state
from renate_stages.tracking import side_process

if TYPE_CHECKING:
    from cloud import Cloud

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """Yield the simulated AWS; each test uses its own `bucket` in it."""
    from cloud import Cloud

    with Cloud() as started:
        started.stop_grace = 3.0
        yield started


@pytest.fixture
def bucket(cloud: Cloud) -> Iterator[str]:
    """Yield the name of a new bucket; after the test, clear faults and end the bucket's jobs."""
    name = f"renate-{secrets.token_hex(6)}"
    cloud.inside("s3").create_bucket(Bucket=name)
    yield name
    cloud.clear_faults()
    cloud.end_jobs(name)


@pytest.fixture(scope="session")
def sagemaker_python() -> Path:
    """Return the Python interpreter of a separate environment with the SageMaker SDK."""
    environment = Path(sys.prefix).parent / ".venv-sagemaker"
    if not list(environment.glob("lib/python*/site-packages/sagemaker/train")):
        pytest.skip("the SageMaker SDK is not installed: make .venv-sagemaker/.installed")
    return environment / "bin" / "python"


@pytest.fixture(scope="module")
def generated(tmp_path_factory, cloud, sagemaker_python) -> CloudProject:
    """Return a project whose next stage is `train`; tests work on copies of it."""
    cloud.image.warm_up()
    folder = tmp_path_factory.mktemp("generated")
    project = project_in(folder, cloud, "no-bucket-yet", sagemaker_python)
    shutil.copytree(project.root, folder / "new", symlinks=True)
    project.stop_tracking()
    for stage in ("prepare", "restore-state", "tune"):
        project.run("renate-stages", stage)
    return project


@pytest.fixture
def project(generated, tmp_path, bucket) -> CloudProject:
    """Return a new project, in which no stage has run."""
    return copy_of(generated.root.with_name("new"), generated, bucket, tmp_path / "copy")


@pytest.fixture
def ready(generated, tmp_path, bucket) -> CloudProject:
    """Return a project without tracking, whose next stage is `train`, run in the cloud."""
    return in_cloud(copy_of(generated.root, generated, bucket, tmp_path / "copy"))


@pytest.fixture(scope="session")
def mlflow_in_process() -> None:
    """Import what MLflow's client needs, without its dependencies' deprecation warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.store.model_registry import sqlalchemy_store  # noqa: F401
        from mlflow.store.tracking import sqlalchemy_store as _  # noqa: F401


@pytest.fixture(scope="session")
def published(tmp_path_factory, worker_id) -> Published:
    """Return three updates published to one MLflow store; tests must not change them."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent  # shared by all xdist workers
    made = Published(shared / "published")
    with (shared / "published.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first worker creates it, the others wait
        if not (made.folder / "ready").exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "path", list(sys.path))
                patch.setenv("MLFLOW_TRACKING_URI", made.uri)
                patch.delenv("DVC_ROOT", raising=False)
                patch.chdir(shared)
                warm = WarmSideProcess(folder(SIDE_PROCESS))
                patch.setattr(side_process, "subprocess", warm)
                make_three_updates(made)
            (made.folder / "ready").touch()
    return made


def make_three_updates(made: Published) -> None:
    from renate_stages.actions.example_data import write_digits

    project = Project(made.folder / "project")
    project.root.mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", "renate_config.py"):
        shutil.copy(REPOSITORY / name, project.root / name)
    project.parent.mkdir()
    state.write_empty(project.parent)
    space = {"loguniform": [0.01, 0.2]}
    for number in (1, 2, 3):
        if number > 1:
            shutil.rmtree(project.parent)
            shutil.copytree(project.state, project.parent)
            shutil.rmtree(project.incoming)
        write_digits(project.incoming, number)

        def change(content, number=number):
            content["update"] |= {"number": number, "parent": number - 1}
            content["trainer"]["max_epochs"] = 4
            content["tuning"] |= {"scheduler": "random", "max_trials": 3}
            content["hyperparameters"]["learning_rate"] = space if number == 2 else 0.05
            content["tracking"]["enabled"] = number > 1

        yaml_file.edit(project.params, change)
        os.chdir(project.root)  # as `dvc repro` does
        for stage in (prepare, restore_state, tune, train, export):
            stage.run(project, lambda message: None)
        yaml_file.edit(project.params, lambda content: content["tracking"].update(enabled=True))
        shutil.copytree(project.root, made.project(number).root)
        publish.publish(made.project(number), made.params(number), lambda message: None)
    publish.point(made.project(2), made.params(2), "champion", made.identity(2))
