"""Run one update: measure the parent's model, train, measure the new model, keep examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.data import StoredDataset
from renate_stages.data.ranks import ranks
from renate_stages.errors import (
    DivergedError,
    InvalidParamsError,
    MetricError,
    NotFiniteError,
    SliceError,
    UnmeasuredMetricError,
    did_you_mean,
)
from renate_stages.evaluation.examined import Examined, ExaminedHoldouts
from renate_stages.evaluation.figures import TAKEN, Answers, update_figures
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.evaluation.plasticity_history import PlasticityHistory
from renate_stages.evaluation.slices import slices_of
from renate_stages.evaluation.widened import widened
from renate_stages.memory import evolve
from renate_stages.models import RenateModule
from renate_stages.models.stored import write_checkpoint, write_model
from renate_stages.params import Params
from renate_stages.params.rules import CLASSES
from renate_stages.params.rules import WHERE as RULES
from renate_stages.preprocessing import link_preprocessing
from renate_stages.randomness import Generators
from renate_stages.state import Provenance, State, state
from renate_stages.state.prepared import PreparedData
from renate_stages.state.retention import Kept
from renate_stages.training.launch import check_processes
from renate_stages.training.plasticity import PlasticityProbe
from renate_stages.training.resume import Resume
from renate_stages.training.update_data import UpdateData
from renate_stages.training.updated_model import UpdatedModel, write_learner
from renate_stages.training.updater import Updater
from renate_stages.user.config import UserConfig

DIVERGED = 100  # times the loss before training


@dataclass(frozen=True)
class MeasuredUpdate:
    """The results of one update, in memory; `write_state` writes them to disk.

    Args:
        params: Parameters of the update.
        parent: The state that the update started from.
        kept: The parent's examples and the new ones, without those that must not be kept.
        updated: The model, trained or carried over, and its learner.
        history: Every metric of every update on every holdout, including this update.
        provenance: The new state's own entries in its manifest.
        answers: Predictions of the parent's model and the new model for each row of the holdouts.
        plasticity: Plasticity of the model before and after each update, including this one.
    """

    params: Params
    parent: State
    kept: Kept
    updated: UpdatedModel
    history: EvaluationHistory
    provenance: Provenance
    answers: Answers
    plasticity: PlasticityHistory = field(default_factory=PlasticityHistory)

    @classmethod
    def run(
        cls,
        user: UserConfig,
        params: Params,
        parent: State,
        kept: Kept,
        *,
        key: str,
        resume: Resume | None = None,
        say: Callable[[str], None] = print,
    ) -> MeasuredUpdate:
        """Run an update and measure three models: untrained, the parent's, and the new one.

        An update of kind `forget` does not train. It removes rows from the stores and, if the
        learner supports it, their effect from the model; then it measures the model on the
        remaining rows.

        Args:
            user: The user's functions.
            params: Parameters of the update, without search spaces.
            parent: The state to start from.
            kept: Its examples and the new ones, without those that must not be kept; see
                `Retention.apply`.
            key: Digest of all inputs, for the new state's manifest.
            resume: Folder for the checkpoints of the training; None: without checkpoints.
            say: Prints one line for the user.

        Raises:
            RenateStagesError: If an input cannot be used; before training, where possible.
        """
        number = params.update.number
        labels = kept.data.labels or parent.provenance.labels
        updater = Updater(user, params, params.hyperparameters, say, labels)
        updater.task.inherit(parent)
        if params.update.kind != "forget":
            check_processes(params.trainer, ranks().count)
        holdouts = kept.splits("holdouts")
        task_ids = {**parent.provenance.task_ids, str(number): params.update.task_id}

        def measure(model: RenateModule, *updates: int) -> ExaminedHoldouts:
            datasets = {n: updater.test_set(holdouts[n]) for n in updates or holdouts}
            with widened(model, len(labels)):  # the parent may know fewer labels
                ids = {n: task_ids[str(n)] for n in datasets}
                return updater.examine(model, datasets, ids, keep_rows=True)

        def untrained() -> RenateModule:
            model = updater.build_model(None)
            updater.make_room(model, updater.test_set(kept.data.train))
            return model

        slices = slices_of(params.evaluation.slices, holdouts)
        start = updater.build_model(parent.folder) if parent.has_model else untrained()
        before = measure(start)
        probe = PlasticityProbe(updater, kept.data.train)
        plastic_before = probe.measure(start)
        del start
        for each in before.values():
            check_metrics(params, each, labels)
        history = kept.parent.evaluations()
        initial = ExaminedHoldouts({}, {})
        if number in holdouts:
            initial = measure(untrained(), number)
            history = history.with_update(number, "initial", initial)
        update = UpdateData.of(kept, parent)
        if params.update.kind == "forget":
            updated = updater.carry_over(update)
        else:
            updated = updater.update(update, resume=resume)
        after = measure(updated.model)
        if not all(math.isfinite(after[n].metrics["loss"]) for n in after if n == number):
            raise NotFiniteError(len(updated.curves))  # the last step diverged
        if params.update.kind != "forget":
            check_convergence(params, before, after, initial.together.get("loss", 0))

        history = history.with_update(number, "before", before)
        history = history.with_update(number, "after", after)
        plasticity = parent.plasticity()
        if params.update.kind != "forget":
            plasticity = plasticity.with_update(
                number, plastic_before, probe.measure(updated.model)
            )
        answers = Answers(after, before if parent.has_model else None, slices, labels)
        provenance = Provenance(
            kind=params.update.kind,
            update=number,
            parent=parent.identity,
            inputs=key,
            learner=params.learner,
            classes=classes_of(parent, kept.data) if updater.task.loss.task.labelled else (),
            task=updater.task.name,
            task_ids=task_ids,
            labels=labels,
            fingerprint=kept.data.fingerprint or parent.provenance.fingerprint,
        )
        return cls(params, parent, kept, updated, history, provenance, answers, plasticity)

    def write_state(
        self,
        target: Path,
        tuning_history: Path | None = None,
        *,
        replace: bool = True,
        checkpoint: bool = False,
    ) -> None:
        """Write the new state atomically; link the parent's examples instead of copying them.

        Args:
            target: Folder of the new state.
            tuning_history: Trials of this and earlier updates; None: the parent's, if it has any.
            replace: Whether a folder at `target` may be replaced.
            checkpoint: Whether to write the model in torch's format too, for `model_fn`.

        Raises:
            FolderTakenError: If `target` exists and may not be replaced.
        """
        with files.whole_directory(target, replace=replace) as folder:
            write_model(folder, self.updated.model)
            if checkpoint:
                write_checkpoint(folder, folder / state.CHECKPOINT)
            write_learner(folder, self.updated.learner)
            link_preprocessing(self.kept.data.folder, folder)
            (kept, added), chosen = self.updated.selection, self.updated.chosen
            evolve(
                folder / "memory",
                self.kept.parent.memory(),
                kept,
                self.kept.data.train,
                added,
                self.params.update.number,
                metadata=chosen.fields,
                added_metadata=chosen.added_fields,
            )
            for name in state.SPLITS:
                state.write_split(folder, name, self.kept.splits(name))
            self.history.write(folder / "evaluations.csv")
            self.plasticity.write(folder / state.PLASTICITY)
            trials = tuning_history or self.parent.folder / state.TUNING_HISTORY
            if trials.is_file():
                files.link_or_copy(trials, folder / state.TUNING_HISTORY)
            state.write_manifest(folder, self.provenance, self.parent, self.kept.left)

    def summary(self) -> dict[str, Any]:
        """Return the figures of `metrics/update.json`; see `update_figures`."""
        number, chosen = self.params.update.number, self.updated.selection
        generators = Generators(self.params.seed, number)
        figures = update_figures(
            number, self.history, self.params.evaluation, self.answers, generators
        )
        plasticity = self.plasticity.summary(number)
        return {
            "update": number,
            **({} if plasticity is None else {"plasticity": plasticity}),
            "memory": {"rows": len(chosen.kept) + len(chosen.added)},
            "training": {"epochs": len(self.updated.curves), "steps": self.updated.steps},
            **figures,
        }


def check_metrics(params: Params, examined: Examined, labels: Sequence[str]) -> None:
    """Check, before training, that the metrics can be reported after it.

    Raises:
        UnmeasuredMetricError: If the headline metric is not measured.
        InvalidParamsError: If a rule of the gate has a metric that is not measured, or a label that
            does not exist.
        MetricError: If `metrics/update.json` already uses the name of a metric.
        SliceError: If slices are requested but the targets are not class labels.
    """
    headline, slices = params.evaluation.metric, params.evaluation.slices
    if headline not in examined.metrics:
        raise UnmeasuredMetricError(headline, examined.metrics)
    for rule in params.rules:
        if rule.metric is not None and rule.metric not in examined.metrics:
            hint = did_you_mean(rule.metric, examined.metrics)
            known = ", ".join(sorted(examined.metrics))
            problem = f"{rule.metric!r} is not measured{hint} (measured: {known})"
            raise InvalidParamsError(RULES, [f"{RULES}.{rule.name}: {problem}"])
        if rule.figure == CLASSES and rule.part and not _is_label(rule.part[0], labels):
            (label,) = rule.part
            hint = did_you_mean(label, labels)
            known = ", ".join(map(repr, labels[:8])) or "whole numbers"
            problem = f"{label!r} is not a label{hint} (labels: {known})"
            raise InvalidParamsError(RULES, [f"{RULES}.{CLASSES}: {problem}"])
    for name in examined.metrics:
        if name in TAKEN:
            problem = "metrics/update.json already uses this name"
            raise MetricError(name, problem, "rename the metric")
    if slices and examined.predictions is None:
        raise SliceError(
            slices[0], "accuracy by slice needs class labels, but the targets are not class labels"
        )


def _is_label(label: str, names: Sequence[str]) -> bool:
    return label in names if names else label.isdecimal()


def check_convergence(
    params: Params, before: ExaminedHoldouts, after: ExaminedHoldouts, untrained: float
) -> None:
    """Check that training did not make the model much worse than it was.

    Some learners improve predictions while their loss rises, so both must be worse.

    Args:
        params: Parameters with the headline metric.
        before: Results of the model that training started from.
        after: Results of the trained model.
        untrained: Loss of an untrained model on the new holdout.

    Raises:
        DivergedError: If the loss is more than `DIVERGED` times that before training and that of an
            untrained model, and the headline metric is not better.
    """
    if not after:
        return
    metric, sign = params.evaluation.metric, 1 if params.evaluation.mode == "max" else -1
    start = max(before.together["loss"], untrained)
    is_better = sign * (after.together[metric] - before.together[metric]) > 0
    if after.together["loss"] > DIVERGED * start > 0 and not is_better:
        raise DivergedError(before.together["loss"], after.together["loss"])


def classes_of(parent: State, data: PreparedData) -> tuple[int, ...]:
    """Return the classes of the parent and of the new data, in ascending order."""
    found = set(parent.provenance.classes)
    for store in (data.train, data.val, data.test):
        found |= set(StoredDataset(store).classes() or ())
    return tuple(sorted(found))
