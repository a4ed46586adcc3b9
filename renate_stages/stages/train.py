"""`renate-stages train`: train the restored model on the prepared data."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

from renate_stages import files, lineage, tracking
from renate_stages.memory.forget_list import ForgetList
from renate_stages.params import Params
from renate_stages.preprocessing import read_preprocessing
from renate_stages.processes import heavy_imports
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.reporting.search_plots import Searched
from renate_stages.state import TUNING_HISTORY, State
from renate_stages.state.inputs import StageInputs, read_tuned, update_inputs
from renate_stages.state.prepared import PreparedData
from renate_stages.state.retention import Retention
from renate_stages.tracking import update_run
from renate_stages.tracking.update_run import logged_parameters, run_identity
from renate_stages.training import launch
from renate_stages.user.config import UserConfig


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Measure the parent's model, train it, measure the new one; write `state/`, metrics, plots.

    Raises:
        RenateStagesError: If an input cannot be used; in that case nothing is written.
    """
    stage = StageInputs.read(project, "train")
    first = launch.rank() == 0  # only the first of several processes checks, logs and writes
    if first:
        lineage.check_inputs(project, "train")
    params = Params.load(project.params).fixed(read_tuned(project.tuned))
    parent = State.open(project.restored, examples=project.parent)
    data = PreparedData.open(project.prepared)
    searched = Searched.read(project.tuning, params.update.number)
    forget = ForgetList.read(project.forget_list)
    inputs = update_inputs(project, params, parent, data)
    identity = run_identity(project, params, key=inputs.key, parent=parent.identity)

    tracked = params.tracking.enabled and first
    with tracking.new_run(project.root, identity, enabled=tracked) as tracker:
        with heavy_imports():  # import torch and Lightning while another process imports MLflow
            user = UserConfig.of(project, "train", named=params.named_model)
            user.preprocessing = read_preprocessing(project.prepared)
            stage.check(user)
            from renate_stages.data.ranks import joined
            from renate_stages.reporting.plot_files import write_plots
            from renate_stages.training.cost import cost_of
            from renate_stages.training.measured_update import MeasuredUpdate
            from renate_stages.training.rehearsal import rehearse
            from renate_stages.training.resume import Resume

        tracker.log_parameters(logged_parameters(params))
        resume = Resume.of_update(project, inputs, user.files, say)
        with (
            project.empty_scratch(launch.own("kept")) as scratch,
            joined(params.trainer.accelerator),
        ):
            generators = Generators(params.seed, params.update.number)
            kept = Retention(forget, params.retention, generators).apply(parent, data, scratch)
            if params.update.kind != "forget":
                rehearse(user, params, parent, kept, scratch / "rehearsal")
                shutil.rmtree(scratch / "rehearsal", ignore_errors=True)  # a copy of the model
            update = MeasuredUpdate.run(
                user, params, parent, kept, key=inputs.key, resume=resume, say=say
            )
            if not first:
                return
            summary = update.summary()
            stage.check(user)
            update.write_state(
                project.state,
                project.tuning / TUNING_HISTORY,
                checkpoint=project.outside is not None,  # as users of Renate expect
            )
        files.write_json(project.update_metrics, summary)
        write_plots(project, update, searched)
        stage.check(user)
        shutil.rmtree(project.checkpoints, ignore_errors=True)
        figures = summary | {"cost": cost_of(update.updated, project.state)}
        update_run.log_figures(params, update.updated.curves, figures, tracker)
        tracker.set_tags({"renate.state": State.open(project.state).identity})
    task = update.provenance.task or params.task
    say(describe(params, summary, task if task == params.task else f"{task} ({params.task})"))


def describe(params: Params, summary: Mapping[str, Any], task: str) -> str:
    """Return a summary of the training in two lines.

    Args:
        params: Parameters of the update.
        summary: The figures of `metrics/update.json`.
        task: Name of the task.
    """

    def shown(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.3f}"

    headline = summary.get(params.evaluation.metric, {"holdout": {}, "overall": None})
    holdouts = ", ".join(f"{name}: {shown(value)}" for name, value in headline["holdout"].items())
    return (
        f"update {summary['update']}: {summary['training']['steps']} steps, "
        f"{params.evaluation.metric} {shown(headline['overall'])} over all holdouts ({holdouts})\n"
        f"task: {task}, memory: {summary['memory']['rows']} examples"
    )
