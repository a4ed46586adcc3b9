"""Publish an update to MLflow: `renate-stages publish` and the aliases of model versions.

Stages log to a run while they execute. `publish` makes the same run, and the version of the
registered model, from the files of any checkout: for results that come from DVC's cache, from
`dvc exp apply` or from CI. Run and version are found by the state's identity, so nothing is added
twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from renate_stages import lineage, tracking
from renate_stages.errors import OtherUpdateError, PublishError
from renate_stages.evaluation.update_metrics import read_update_metrics
from renate_stages.export import program_files
from renate_stages.params import Params
from renate_stages.preprocessing import read_preprocessing
from renate_stages.project import Project
from renate_stages.reporting.pictures import pictures_at_hand
from renate_stages.reporting.plots import read_curves
from renate_stages.state import State
from renate_stages.state.inputs import read_tuned
from renate_stages.tracking.update_run import (
    log_figures,
    log_results,
    logged_parameters,
    note,
    run_identity,
    state_tags,
)

CHALLENGER = "challenger"
OFF = "tracking.enabled in params.yaml is false, so nothing was changed in MLflow"


def publish(project: Project, params: Params, say: Callable[[str], None] = print) -> None:
    """Publish those parts of the finished update that MLflow does not have yet.

    A new version of the registered model gets the alias `challenger`. Missing pictures of the report
    are drawn first, for example in a fresh checkout; also if tracking is disabled.

    Args:
        project: With `state/`, `metrics/`, `plots/`, `export/`, `tuned.yaml` and `reports/` of the
            update.
        params: The content of params.yaml.
        say: Function that prints a line about each step.

    Raises:
        ChangedFolderError: If `state/` or `export/` does not match `dvc.lock`.
        OtherUpdateError: If the state does not belong to the open update.
        PublishError: If MLflow refuses a request or cannot be reached.
        RenateStagesError: If a file is missing or cannot be read.
    """
    params = params.fixed(read_tuned(project.tuned))
    for folder in (project.state, project.export):
        if folder.is_dir():
            lineage.check(project, folder)
    state = State.open(project.state)
    made, number = state.provenance, params.update.number
    if made.update != number:
        raise OtherUpdateError(made.update, number)
    drawn = pictures_at_hand(project, params, state)
    if not params.tracking.enabled:
        say(OFF)
        return
    identity = run_identity(project, params, key=made.inputs or "", parent=made.parent)
    program = program_files.read_description(project.export)
    preprocessing = read_preprocessing(project.export)
    takes_rows = preprocessing is not None and bool(preprocessing.raw_columns)
    model = params.tracking.registered_model
    with tracking.publication(project.root, identity, model, state.identity) as publication:
        lacking = publication.lacking
        if "figures" in lacking:
            publication.log_parameters(logged_parameters(params))
            summary = read_update_metrics(project.update_metrics)
            log_figures(params, read_curves(project.plots), summary, publication)
        if "results" in lacking:
            log_results(project, drawn, publication)
            publication.set_tags(state_tags(project, state))
        version = new = None
        if program.program is not None or takes_rows:
            tags = {"update.number": number, **state_tags(project, state)}
            about = (
                f"One version for each update of the experiment {params.tracking.experiment}. "
                "`champion` serves, `challenger` is the latest."
            )
            tags = {name: str(value) for name, value in tags.items()}
            version, new = publication.register(
                project.export, tags, note(project), about, preprocessing
            )
            if new:
                publication.point(CHALLENGER)
    say(f"run {identity.name}: " + ("published" if lacking else "already published"))
    if version is None:
        say(
            f"no model version was made: export/{program_files.PROGRAM} does not exist "
            f"({program.reason})"
        )
    else:
        say(f"{model}, version {version}: " + ("published" if new else "already published"))


def point(project: Project, params: Params, alias: str, state: str | None) -> None:
    """Move an alias of the registered model to the version of a state.

    If MLflow fails, a warning is printed and no error is raised, because the champion is determined
    by the project's own files, and MLflow only copies it.

    Args:
        project: The project.
        params: Its parameters; if `tracking.enabled` is false, only a message is printed.
        alias: `champion` or `challenger`.
        state: The state's identity; None removes the alias.

    Raises:
        TrackingUriError: If MLflow cannot use the store in `MLFLOW_TRACKING_URI`.
    """
    if not params.tracking.enabled:
        print(OFF)
        return
    model = params.tracking.registered_model
    try:
        version = tracking.move_alias(project.root, model, alias, state)
    except PublishError as error:
        print(f"warning: the alias {alias} was not moved: {error}", file=sys.stderr)
        return
    if state is not None and version is None:
        print(
            f"warning: {model} has no version for the state {state[:8]}, so the alias {alias} was "
            "not moved; to make a version, run `renate-stages publish` in a checkout of that update",
            file=sys.stderr,
        )
