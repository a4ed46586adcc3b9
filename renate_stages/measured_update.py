"""One update as a whole: measure the parent's model, train it, measure the new one, keep all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renate_stages import files, state
from renate_stages.data import StoredDataset
from renate_stages.errors import NotFiniteError, UnmeasuredMetricError
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.memory import ExampleStore, evolve
from renate_stages.models import RenateModule
from renate_stages.models.stored import write_model
from renate_stages.params import Params
from renate_stages.prepared import PreparedData
from renate_stages.state import Provenance, State
from renate_stages.updater import ModelUpdater, UpdatedModel, write_learner
from renate_stages.user_config import UserConfig


@dataclass(frozen=True)
class MeasuredUpdate:
    """What one update gave, in memory; `write_state` keeps it.

    Args:
        params: Of the update.
        parent: The state it started from.
        data: The new examples.
        updated: The trained model and its learner.
        history: Every metric of every update on every holdout, this one's included.
        provenance: What the new state's manifest says of itself.
    """

    params: Params
    parent: State
    data: PreparedData
    updated: UpdatedModel
    history: EvaluationHistory
    provenance: Provenance

    @classmethod
    def run(
        cls,
        user: UserConfig,
        params: Params,
        hyperparameters: Mapping[str, Any],
        parent: State,
        data: PreparedData,
        inputs: str,
    ) -> MeasuredUpdate:
        """Run an update. Three models are measured: untrained, the parent's, and the new one.

        Args:
            user: The user's functions.
            params: Of the update.
            hyperparameters: The chosen constants.
            parent: The state to start from.
            data: The new examples.
            inputs: Digest of all inputs, for the new state's manifest.

        Raises:
            RenateStagesError: If something does not fit; before training wherever it can be seen.
        """
        number = params.update.number
        updater = ModelUpdater(user, params, hyperparameters)
        holdouts = {**parent.split("holdouts"), number: data.test}
        task_ids = {**parent.provenance.task_ids, str(number): params.update.task_id}
        rows = {update: len(store) for update, store in holdouts.items()}

        def measure(model: RenateModule, *updates: int) -> dict[int, dict[str, float]]:
            datasets = {n: updater.test_set(holdouts[n]) for n in updates or holdouts}
            return updater.evaluate(model, datasets, {n: task_ids[str(n)] for n in datasets})

        before = measure(updater.build_model(parent.folder if parent.has_model else None))
        if params.evaluation.metric not in before[number]:
            raise UnmeasuredMetricError(params.evaluation.metric, before[number])
        initial = measure(updater.build_model(None), number)
        updated = updater.update(parent, data.train, validation_of(parent, data, number))
        after = measure(updated.model)
        if not math.isfinite(after[number]["loss"]):  # the last step's harm shows only here
            raise NotFiniteError(len(updated.curves))

        history = parent.evaluations().with_update(number, "initial", initial, rows)
        history = history.with_update(number, "before", before, rows)
        history = history.with_update(number, "after", after, rows)
        provenance = Provenance(
            kind="update",
            update=number,
            parent=parent.identity,
            inputs=inputs,
            learner=params.learner,
            classes=classes_of(parent, data),
            task_ids=task_ids,
        )
        return cls(params, parent, data, updated, history, provenance)

    def write_state(self, target: Path) -> None:
        """Write the new state whole; examples that the parent has are linked, not copied."""
        number = self.params.update.number
        with files.whole_directory(target) as folder:
            write_model(folder, self.updated.model)
            write_learner(folder, self.updated.learner)
            chosen = self.updated.selection
            evolve(
                folder / "memory",
                self.parent.memory(),
                chosen.kept,
                self.data.train,
                chosen.added,
                number,
            )
            holdouts = {**self.parent.split("holdouts"), number: self.data.test}
            state.write_split(folder, "holdouts", holdouts)
            validation = validation_of(self.parent, self.data, number)
            state.write_split(folder, "validation", validation)
            self.history.write(folder / "evaluations.csv")
            state.write_manifest(folder, self.provenance)

    def summary(self) -> dict[str, Any]:
        """Return the figures of `metrics/update.json`.

        The headline metric and the loss have transfer and forgetting; of other metrics, whose
        better direction is not known, only the averages and each holdout's value stay.
        """
        number, evaluation = self.params.update.number, self.params.evaluation
        chosen = self.updated.selection
        figures: dict[str, Any] = {
            "update": number,
            "memory": {"rows": len(chosen.kept) + len(chosen.added)},
            "training": {"epochs": len(self.updated.curves), "steps": self.updated.steps},
        }
        for metric in self.history.metrics:
            if number not in self.history.matrix(metric):
                continue
            better = metric not in evaluation.lower_is_better
            summary = self.history.summary(number, metric, higher_is_better=better)
            if metric not in (evaluation.metric, "loss"):
                summary = {name: summary[name] for name in ("average", "overall", "holdout")}
            figures[metric] = summary
        return figures


def validation_of(parent: State, data: PreparedData, number: int) -> dict[int, ExampleStore]:
    """Return the validation stores of earlier updates and, where it has rows, of this one."""
    return parent.split("validation") | ({number: data.val} if len(data.val) else {})


def classes_of(parent: State, data: PreparedData) -> tuple[int, ...]:
    """Return the parent's classes and those of the new data, ascending."""
    found = set(parent.provenance.classes)
    for store in (data.train, data.val, data.test):
        found |= set(StoredDataset(store).classes() or ())
    return tuple(sorted(found))
