"""Publish an update to MLflow: `renate-stages publish` and the aliases of model versions.

A stage logs to the run of its own attempt. `publish` makes the same run, and the version of a
registered model, from the files of any checkout: for results that came from DVC's cache, from
`dvc exp apply` or from CI. Both are found by the state's identity, so nothing is added twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from renate_stages import lineage, tracking
from renate_stages.errors import OtherUpdateError, PublishError
from renate_stages.evaluation.update_metrics import read_update_metrics
from renate_stages.export import program_files
from renate_stages.params import Params
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
OFF = "tracking.enabled in params.yaml is false: nothing is changed in MLflow"


def publish(project: Project, params: Params, say: Callable[[str], None] = print) -> None:
    """Put the finished update into MLflow, what of it is not there yet.

    A new version of the registered model gets the alias `challenger`. The pictures beside the report
    are drawn where they are not there, as in a fresh checkout, also where tracking is off.

    Args:
        project: With `state/`, `metrics/`, `plots/`, `export/`, `tuned.yaml`, `reports/` of it.
        params: As in params.yaml.
        say: Is told what was done.

    Raises:
        ChangedFolderError: `state/` or `export/` is not what `dvc.lock` names.
        OtherUpdateError: The state is not that of the open update.
        PublishError: MLflow did not take something.
        RenateStagesError: A file is missing or cannot be read.
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
    model = params.tracking.registered_model
    with tracking.publication(project.root, identity, model, state.identity) as found:
        lacking = found.lacking
        if "figures" in lacking:
            found.log_parameters(logged_parameters(params))
            summary = read_update_metrics(project.update_metrics)
            log_figures(params, read_curves(project.plots), summary, found)
        if "results" in lacking:
            log_results(project, drawn, found)
            found.set_tags(state_tags(project, state))
        version = new = None
        if program.program is not None:
            tags = {"update.number": number, **state_tags(project, state)}
            about = (
                f"One version for each update of the experiment {params.tracking.experiment}. "
                "`champion` serves, `challenger` is the latest."
            )
            version, new = found.register(
                project.export, {k: str(v) for k, v in tags.items()}, note(project), about
            )
            if new:
                found.point(CHALLENGER)
    say(f"run {identity.name}: " + ("published" if lacking else "is there already"))
    if version is None:
        say(f"no model version: there is no export/{program_files.PROGRAM} ({program.reason})")
    else:
        say(f"{model}, version {version}: " + ("published" if new else "is there already"))


def point(project: Project, params: Params, alias: str, state: str | None) -> None:
    """Move an alias of the registered model to the version of a state.

    The project's own files say which update is champion; MLflow's aliases follow. So where MLflow
    does not, one line on stderr says it, and nothing fails.

    Args:
        project: Whose store is meant.
        params: Of which `tracking` counts; where it is disabled, a line says so.
        alias: `champion` or `challenger`.
        state: The state's identity; None removes the alias.

    Raises:
        TrackingUriError: `MLFLOW_TRACKING_URI` is no store that MLflow can use.
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
            f"warning: {model} has no version of the state {state[:8]}, so the alias {alias} was "
            "not moved: `renate-stages publish` in a checkout of that update makes one",
            file=sys.stderr,
        )
