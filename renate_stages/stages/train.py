"""Train the restored model on the prepared data: `renate-stages train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renate_stages import files, tracking, yaml_file
from renate_stages import state as states
from renate_stages.errors import MissingFileError, UnmeasuredMetricError
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.memory import ExampleStore, evolve
from renate_stages.params import Params
from renate_stages.prepared import PreparedData
from renate_stages.project import Project
from renate_stages.stages.run_identity import run_identity
from renate_stages.state import Provenance, State
from renate_stages.user_config import UserConfig

if TYPE_CHECKING:
    from renate_stages.updater import UpdatedModel

Results = dict[int, dict[str, float]]


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Measure the parent's model, train it, measure the new one; write `state/`, metrics, plots.

    Raises:
        RenateStagesError: If an input cannot be used; nothing is written then.
    """
    params = Params.load(project.params)
    hyperparameters = read_tuned(project)
    parent = State.open(project.restored, examples=project.parent)
    data = PreparedData.open(project.prepared)
    key = inputs_key(project, params, hyperparameters, parent, data)
    identity = run_identity(project, params, key=key, parent=parent.identity)

    with tracking.new_run(project.root, identity, enabled=params.tracking.enabled) as tracker:
        user = UserConfig.load(project.user_config, stage="train")
        from renate_stages.updater import ModelUpdater  # torch and Lightning, for this stage only

        number = params.update.number
        updater = ModelUpdater(user, params, hyperparameters)
        holdouts = {**parent.split("holdouts"), number: data.test}
        validation = parent.split("validation") | ({number: data.val} if len(data.val) else {})
        task_ids = {**parent.provenance.task_ids, str(number): params.update.task_id}
        tracker.log_parameters(
            params.model_dump(exclude={"tracking"}) | {"hyperparameters": hyperparameters}
        )

        def measure(model: Any, on: Mapping[int, ExampleStore]) -> Results:
            tests = {update: updater.test_set(store) for update, store in on.items()}
            return updater.evaluate(model, tests, {n: task_ids[str(n)] for n in tests})

        before = measure(updater.build_model(parent.folder if parent.has_model else None), holdouts)
        require_metric(params.evaluation.metric, before[number])
        initial = measure(updater.build_model(None), {number: data.test})
        updated = updater.update(parent, data.train, validation)
        after = measure(updated.model, holdouts)

        rows = {update: len(store) for update, store in holdouts.items()}
        history = parent.evaluations().with_update(number, "initial", initial, rows)
        history = history.with_update(number, "before", before, rows)
        history = history.with_update(number, "after", after, rows)
        provenance = Provenance(
            kind="update",
            update=number,
            parent=parent.identity,
            inputs=key,
            learner=params.learner,
            classes=classes_of(parent, data),
            task_ids=task_ids,
        )
        write_state(project.state, updated, parent, data, holdouts, validation, history, provenance)
        summary = summarise(params, history, before) | {
            "memory": {"rows": len(State.open(project.state).memory())},
            "training": {"epochs": len(updated.curves), "steps": updated.steps},
        }
        files.write_json(project.update_metrics, summary)
        write_plots(project.plots, history, updated, params)
        for row in updated.curves:
            tracker.log_metrics({k: v for k, v in row.items() if k != "step"}, int(row["step"]))
        tracker.log_metrics(summary, updated.steps)
    say(describe(params, summary))


def read_tuned(project: Project) -> dict[str, Any]:
    """Return the hyperparameters that `tune` chose.

    Raises:
        MissingFileError: If it has not run.
    """
    if not project.tuned.is_file():
        raise MissingFileError(project.tuned, "`tune` has not run", "run `dvc repro`")
    return yaml_file.read(project.tuned)["hyperparameters"] or {}


def inputs_key(
    project: Project,
    params: Params,
    hyperparameters: Mapping[str, Any],
    parent: State,
    data: PreparedData,
) -> str:
    """Return a digest of all that the result depends on: equal inputs have the same key."""
    return files.digest(
        {
            "data": data.digest,
            "hyperparameters": dict(hyperparameters),
            "params": params.model_dump(
                mode="json", include={"evaluation", "learner", "seed", "trainer", "update"}
            ),
            "parent": parent.identity,
            "user_config": files.sha256(project.user_config),
        }
    )


def require_metric(metric: str, measured: Mapping[str, float]) -> None:
    """Refuse a headline metric that is not measured, before any training.

    Raises:
        UnmeasuredMetricError: If it is not among the measured ones.
    """
    if metric not in measured:
        raise UnmeasuredMetricError(metric, measured)


def classes_of(parent: State, data: PreparedData) -> tuple[int, ...]:
    """Return the parent's classes and those of the new data, ascending."""
    from renate_stages.data import StoredDataset

    found = set(parent.provenance.classes)
    for store in (data.train, data.val, data.test):
        labels = StoredDataset(store).classes()
        found |= set() if labels is None else {int(label) for label in labels}
    return tuple(sorted(found))


def write_state(
    target: Path,
    updated: UpdatedModel,
    parent: State,
    data: PreparedData,
    holdouts: Mapping[int, ExampleStore],
    validation: Mapping[int, ExampleStore],
    history: EvaluationHistory,
    provenance: Provenance,
) -> None:
    """Write the new state whole; examples the parent has already are linked, not copied."""
    from renate_stages.models.stored import write_model
    from renate_stages.updater import write_learner

    with files.whole_directory(target) as folder:
        write_model(folder, updated.model)
        write_learner(folder, updated.learner)
        evolve(
            folder / "memory",
            parent.memory(),
            updated.selection.kept,
            data.train,
            updated.selection.added,
            provenance.update,
        )
        states.write_split(folder, "holdouts", holdouts)
        states.write_split(folder, "validation", validation)
        history.write(folder / "evaluations.csv")
        states.write_manifest(folder, provenance)


def summarise(params: Params, history: EvaluationHistory, before: Results) -> dict[str, Any]:
    """Return the figures of `metrics/update.json`: the headline metric first, then the others.

    The headline metric and the loss have transfer and forgetting; of other metrics, whose better
    direction is not known, only the averages and each holdout's value stay.
    """
    number, evaluation = params.update.number, params.evaluation
    figures: dict[str, Any] = {"update": number}
    for metric in before[number]:
        better = metric not in evaluation.lower_is_better
        summary = history.summary(number, metric, higher_is_better=better)
        if metric not in (evaluation.metric, "loss"):
            summary = {name: summary[name] for name in ("average", "overall", "holdout")}
        figures[metric] = summary
    return figures


def write_plots(
    folder: Path, history: EvaluationHistory, updated: UpdatedModel, params: Params
) -> None:
    """Write the data of the plots, as CSV."""
    from renate_stages.evaluation.plots import write_plot_data

    lower = params.evaluation.lower_is_better
    with files.whole_directory(folder) as new:
        write_plot_data(new, history, updated.curves, lower_is_better=lower)


def describe(params: Params, summary: Mapping[str, Any]) -> str:
    """Return what training gave, in two lines."""

    def shown(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.3f}"

    headline = summary[params.evaluation.metric]
    each = ", ".join(f"{name}: {shown(value)}" for name, value in headline["holdout"].items())
    return (
        f"update {summary['update']}: {summary['training']['steps']} steps, "
        f"{params.evaluation.metric} {shown(headline['overall'])} over all holdouts ({each})\n"
        f"memory: {summary['memory']['rows']} examples; results in state/, metrics/update.json"
    )
