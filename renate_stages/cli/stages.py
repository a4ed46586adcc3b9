"""The stages of the pipeline, as `dvc.yaml` calls them."""

from __future__ import annotations

import typer

from renate_stages.project import Project
from renate_stages.training import launch


def prepare() -> None:
    """Stage 1: turn data/incoming into stores of examples."""
    from renate_stages.params import Params
    from renate_stages.remote import cloud
    from renate_stages.stages import prepare as stage

    project = Project.find()
    cloud.check_backend(Params.load(project.params))  # before hours of preparing, not after
    with project.lock("prepare"):
        stage.run(project)


def restore_state() -> None:
    """Stage 2: check the parent's state and restore its model and learner."""
    from renate_stages.stages import restore_state as stage

    project = Project.find()
    with project.lock("restore-state"):
        stage.run(project)


def tune() -> None:
    """Stage 3: choose the hyperparameters."""
    from renate_stages.stages import tune as stage

    project = Project.find()
    if _ran_as_job(project, "tune"):
        return
    with project.lock("tune"):
        stage.run(project)
    print("hyperparameters in tuned.yaml, trials in work/tuning/")


def train() -> None:
    """Stage 4: train the parent's model on the new data, and evaluate both models."""
    from renate_stages.params import Params
    from renate_stages.stages import train as stage

    project = Project.find()
    if _ran_as_job(project, "train"):
        return
    params = Params.load(project.params)
    if launch.is_to_launch(params):
        with project.lock("train"), project.empty_scratch("launched") as scratch:
            command = ["-m", "renate_stages", "train"]
            raise typer.Exit(launch.start(command, params.trainer.devices, scratch))
    with launch.held(project, "train"):
        stage.run(project)
    print("model and memory in state/, figures in metrics/update.json")


def export() -> None:
    """Stage 5: write the deployable model, the gate's verdict and the report."""
    from renate_stages.stages import export as stage

    project = Project.find()
    with project.lock("export"):
        stage.run(project)
    print("model in export/, report in reports/update.md")


def _ran_as_job(project: Project, stage: str) -> bool:
    """Run a stage as a job in the cloud if `remote` in params.yaml asks for it.

    Returns:
        Whether it ran as a job; otherwise the caller runs it on this machine.
    """
    from renate_stages.params import Params
    from renate_stages.remote import cloud

    params = Params.load(project.params)
    if cloud.backend_of(params, stage) == "local":
        return False
    with project.lock(stage):
        cloud.run(project, params, stage)
    return True
