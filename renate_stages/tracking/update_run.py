"""The MLflow run of an update: its identity, parameters, figures and artifacts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from renate_stages import lineage, tracking
from renate_stages.params import Params, TuningParams
from renate_stages.project import Project
from renate_stages.state import State

LOGGED: dict[str, Any] = {
    "data": {
        "scenario": {"name", "chunk_id"},
        "split": True,
        "split_by": True,
        "test_fraction": True,
        "validation_fraction": True,
    },
    "evaluation": True,
    "example": True,
    "hyperparameters": True,
    "learner": True,
    "model": True,
    "retention": True,
    "seed": True,
    "shift": True,
    "should_update": True,
    "task": True,
    "trainer": True,
    "tuning": set(TuningParams.model_fields) - {"scheduler_arguments"},
    "update": True,
}
"""The keys of `params.yaml` that are logged to MLflow.

Keys whose values may contain addresses and secrets are left out: `data.arguments`, `data.module`, the
arguments of a scenario, `tuning.scheduler_arguments` and `remote`. So are `export` and `tracking`, which
change no result. A new block of `params.yaml` is logged only if it is added here.
"""


def logged_parameters(params: Params) -> dict[str, Any]:
    """Return the parameters of a run in MLflow, the same for a search and for an update."""
    return params.model_dump(include=LOGGED)


def run_identity(
    project: Project, params: Params, *, key: str, parent: str | None
) -> tracking.RunIdentity:
    """Return the identity of this update's run; it is the same in each stage that logs to it.

    Args:
        project: The project; Git and DVC provide commit, dirty flag and experiment.
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

    It is in a separate experiment, so that the list of updates stays short.

    Args:
        project: See `run_identity`.
        params: Parameters with the search space.
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


def state_tags(project: Project, state: State) -> dict[str, str]:
    """Return the tags that connect a run or a model version with a state.

    DVC writes the state's hash to `dvc.lock` when `train` has ended. Until then, or if `train` is run
    without DVC, the hash is that of an earlier state and is left out.
    """
    anchor = lineage.anchored(project, project.state)
    hashes = {"dvc.state.md5": anchor.md5} if anchor and not anchor.problems(project) else {}
    return {"renate.state": state.identity, **hashes}


def log_figures(
    params: Params,
    curves: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    tracker: tracking.Tracker,
) -> None:
    """Log the figures of the finished update and the curves of its training.

    The step of the figures is the update's number, so that a chart over several runs shows a figure
    over the updates. The headline metric is logged first, because MLflow's page for comparing runs
    shows metrics in the order in which they were logged.

    Args:
        params: Parameters with the headline metric.
        curves: For each epoch a mapping with `step` and values by name.
        summary: The content of `metrics/update.json`.
        tracker: The tracker of the run.
    """
    update, metric = params.update.number, params.evaluation.metric
    headline = summary.get(metric, {})
    if "overall" in headline:
        tracker.log_metrics({metric: {"overall": headline["overall"]}}, update)
    rest = {name: value for name, value in headline.items() if name != "overall"}
    others = {name: value for name, value in summary.items() if name not in (metric, "update")}
    tracker.log_metrics({metric: rest, **others}, update)
    for row in curves:
        values = {name: value for name, value in row.items() if name not in ("step", "epoch")}
        tracker.log_metrics(values, int(row["step"]))


def log_results(project: Project, pictures: Iterable[Path], tracker: tracking.Tracker) -> None:
    """Log report, plot data and pictures; the run's description is the beginning of the report."""
    for path in (project.report, project.export / "MODEL_CARD.md", project.verdict):
        if path.is_file():  # projects from before the gate have no verdict
            tracker.log_artifact(path, "reports")
    for path in (*sorted(project.plots.glob("*.csv")), project.feature_shift):
        if path.is_file():
            tracker.log_artifact(path, "plots")
    for picture in pictures:
        tracker.log_artifact(picture, "plots")
    tracker.set_tags({"mlflow.note.content": note(project), "renate.exported": "true"})


def note(project: Project) -> str:
    """Return the report's verdict and its sections about gate and holdouts, for a page of MLflow."""
    # The first line is the title, which MLflow's page already has.
    _, _, body = project.report.read_text(encoding="utf-8").partition("\n")
    verdict, *sections = body.split("\n## ")
    parts = [verdict, *(section.partition("\n")[2] for section in sections[:2])]
    return "\n\n".join(part.strip() for part in parts).strip()
