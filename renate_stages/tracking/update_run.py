"""What makes the MLflow run of an update findable, and readable in the list of runs."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from renate_stages import lineage, tracking
from renate_stages.params import Params, TuningParams
from renate_stages.project import Project

LOGGED: dict[str, Any] = {
    "data": {"test_fraction", "validation_fraction"},
    "evaluation": True,
    "example": True,
    "hyperparameters": True,
    "learner": True,
    "retention": True,
    "seed": True,
    "shift": True,
    "should_update": True,
    "trainer": True,
    "tuning": set(TuningParams.model_fields) - {"scheduler_arguments"},
    "update": True,
}
"""What of `params.yaml` is logged to MLflow: what a result depends on, and is no place for secrets.

Left out: `data.arguments`, `tuning.scheduler_arguments` and `remote`, whose values are free and may
be addresses and keys; what `export` and `tracking` say changes no result. A block that is added to
`params.yaml` is logged only if it is added here.
"""


def logged_parameters(params: Params) -> dict[str, Any]:
    """Return the parameters of a run in MLflow, the same for a search and for an update."""
    return params.model_dump(include=LOGGED)


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


def search_identity(
    project: Project, params: Params, *, key: str, parent: str | None
) -> tracking.RunIdentity:
    """Return the identity of the run that an update's trials are nested under.

    It is in an experiment of its own, so that the list of updates stays short.

    Args:
        project: See `run_identity`.
        params: With the space that is searched.
        key: Digest of the search's inputs.
        parent: See `run_identity`.
    """
    identity = run_identity(project, params, key=key, parent=parent)
    about = "Each run is the search of an update; its trials are nested under it."
    return replace(
        identity,
        name=f"tuning of {identity.name}",
        experiment=f"{identity.experiment}-trials",
        experiment_tags={"mlflow.note.content": about},
    )
