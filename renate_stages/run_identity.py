"""What makes the MLflow run of an update findable, and readable in the list of runs."""

from __future__ import annotations

import os

from renate_stages import lineage, tracking
from renate_stages.params import Params
from renate_stages.project import Project


def run_identity(
    project: Project, params: Params, *, key: str, parent: str | None
) -> tracking.RunIdentity:
    """Return the identity of this update's run, the same in each stage that logs to it.

    Args:
        project: Where Git and DVC are asked for commit, dirty flag and experiment.
        params: Number of the update, learner, MLflow experiment.
        key: Digest of the update's inputs.
        parent: Identity of the state that the update starts from.
    """
    number = params.update.number
    what_if = os.environ.get("DVC_EXP_NAME")
    tags = {
        "update.number": str(number),
        "update.parent": str(params.update.parent),
        "update.parent.state": parent or "",
        "update.task_id": params.update.task_id,
        "learner": params.learner,
        **tracking.provenance_tags(project.root),
    }
    md5 = lineage.pointer_hash(project)
    if md5 is not None:
        tags["dvc.parent.md5"] = md5
    return tracking.RunIdentity(
        experiment=params.tracking.experiment,
        name=f"update-{number}" + (f" · {what_if}" if what_if else ""),
        key=key,
        tags=tags,
        experiment_tags={
            "mlflow.note.content": (
                "One run for each attempt at an update; its description is the verdict. "
                f"Searches: `{params.tracking.experiment}-trials`."
            )
        },
    )
