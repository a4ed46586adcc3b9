"""`renate-stages remote ...`: commands for the jobs of stages in the cloud."""

from __future__ import annotations

from typing import Annotated

import typer

from renate_stages.errors.redaction import shown
from renate_stages.project import Project

app = typer.Typer(
    name="remote",
    help="Manage the jobs of tune and train in the cloud; see docs/sagemaker.md.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def check(
    submit: Annotated[
        bool, typer.Option("--submit", help="also run a small job: a few minutes, a few cents")
    ] = False,
) -> None:
    """Check what jobs need: account, bucket, role, quota, image. Exit code 1 if a check fails."""
    from renate_stages.params import Params
    from renate_stages.remote.checklist import Checklist

    project = Project.find()
    checklist = Checklist(project, Params.load(project.params), print)
    if not checklist.run(submit=submit):
        raise typer.Exit(1)


@app.command()
def jobs() -> None:
    """List the jobs for the current inputs of this project's stages, the latest first."""
    from renate_stages.params import Params
    from renate_stages.remote import cloud
    from renate_stages.remote.job import Job

    project = Project.find()
    params = Params.load(project.params)
    backend = cloud.connect(params)
    names = [Job.of(project, params, stage).service_name for stage in params.remote.stages]
    found = [state for name in names for state in backend.find(name)]
    for state in found:
        seconds = "" if state.seconds is None else f"  {state.seconds:g} s"
        line = f"{state.name}  {state.status} ({state.phase}){seconds}  {state.reason}"
        print(shown(line).rstrip())
    if not found:
        print("no job has the current inputs of this project")


@app.command()
def stop(
    job: Annotated[str, typer.Argument(help="name of the job, as `remote jobs` lists it")],
) -> None:
    """Ask a job to stop. Its checkpoints are kept: the stage continues from them when run again."""
    from renate_stages.params import Params
    from renate_stages.remote import cloud

    project = Project.find()
    cloud.connect(Params.load(project.params)).stop(job)
    print(f"asked {job} to stop")
