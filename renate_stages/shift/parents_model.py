"""Measure the parent's model on the new rows, and estimate its accuracy where labels are missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from renate_stages.errors import EmptyHoldoutError, ModelMismatchError, UncomparableRowsError
from renate_stages.memory.spec import IGNORED
from renate_stages.params import Params
from renate_stages.shift.estimate import LEAST_ROWS, Rows, expected_accuracy, joined, past_estimates
from renate_stages.shift.rows import Sample
from renate_stages.state import State
from renate_stages.user.config import UserConfig

if TYPE_CHECKING:
    from renate_stages.evaluation.examined import Examined
    from renate_stages.models import RenateModule
    from renate_stages.tasks import Task

Answers = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Labels, or `IGNORED`, predicted classes and confidences of rows, each `(n,)`."""


@dataclass
class ParentsModel:
    """The parent's model with the functions that it needs; everything is computed on first use.

    Args:
        user: The user's functions.
        params: The update's parameters.
        parent: The state with the model.
        labels: Number of named labels; the model may have fewer outputs.
        skipped: Gets the reason if the model cannot be used, by what is skipped.
    """

    user: UserConfig
    params: Params
    parent: State
    labels: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    @cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """The constant hyperparameters, and the middle of each search space."""
        return dict(self.params.fixed().hyperparameters)

    @cached_property
    def model(self) -> RenateModule | None:
        """The model; None if the parent has no model, or it cannot be built."""
        if not self.parent.has_model:
            return None
        from renate_stages.models.stored import build_model

        try:
            return build_model(
                self.user, self.hyperparameters, self.parent.folder, self.params.update.task_id
            )
        except ModelMismatchError as error:
            self.skipped["model"] = str(error).split("\n")[0]
            return None

    @property
    def task(self) -> Task | None:
        """The task of the parent; None: decided by the first batch."""
        from renate_stages.tasks import named

        return named(self.parent.provenance.task or self.params.task)

    def examined(self, sample: Sample, place: str) -> Examined | None:
        """Return the model's results on a sample; None if no row of it has a label.

        Args:
            sample: Rows with targets.
            place: What the sample is, for messages.
        """
        from renate_stages.evaluation.evaluator import examine
        from renate_stages.evaluation.widened import widened
        from renate_stages.user import optimization

        assert self.model is not None
        metrics_fn = None
        if "metrics_fn" in self.user.functions:
            metrics_fn = partial(self.user.call, "metrics_fn", self.hyperparameters)
        try:
            with widened(self.model, self.labels):
                return examine(
                    self.model,
                    {1: sample.dataset(self.user.test_transforms(self.hyperparameters))},
                    loss_fn=optimization.loss_fn(self.user, self.hyperparameters),
                    metrics_fn=metrics_fn,
                    task=self.task,
                    task_ids={1: self.params.update.task_id},
                    places={1: place},
                    batch_size=self.params.evaluation.batch_size,
                    keep_rows=True,
                )[1]
        except EmptyHoldoutError:
            return None

    def answers(self, sample: Sample) -> Answers | None:
        """Return the model's predictions for a sample, also for rows without labels.

        Returns:
            The answers; None if the task has no single class label for each row.
        """
        import torch

        from renate_stages.evaluation.evaluator import called, evaluation_mode
        from renate_stages.evaluation.widened import widened
        from renate_stages.tasks.detect import detect

        assert self.model is not None
        dataset = sample.dataset(self.user.test_transforms(self.hyperparameters))
        task, size, parts = self.task, self.params.evaluation.batch_size, []
        with widened(self.model, self.labels), evaluation_mode(self.model, torch.device("cpu")):
            for start in range(0, len(dataset), size):
                stop = min(start + size, len(dataset))
                inputs, targets = dataset.__getitems__(list(range(start, stop)))[:2]
                outputs = called(self.model, inputs, self.params.update.task_id)
                task = task or detect(outputs, targets, own_loss=False)
                answer = task.answer(outputs, targets)
                if answer is None:
                    return None
                parts.append([part.cpu().numpy() for part in answer])
        labels, predicted, confidence = (np.concatenate(each) for each in zip(*parts, strict=True))
        return labels, predicted, confidence

    def classes(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Return predicted and true classes of a sample, both `(n,)`, for tests of predictions.

        Raises:
            UncomparableRowsError: If there is no model that predicts classes.
        """
        answers = self.answers(sample) if self.model is not None else None
        if answers is None:
            raise UncomparableRowsError(
                "the parent has no model that predicts classes", "remove bbse from shift.tests"
            )
        return answers[1], answers[0]

    def labelled_classes(self, sample: Sample) -> np.ndarray:
        """Return pairs of predicted and true classes, `(n, 2)`, of the rows that have a label.

        Raises:
            UncomparableRowsError: As for `classes`, or if no row has a label.
        """
        predicted, labels = self.classes(sample)
        counted = labels != IGNORED
        if not counted.any():
            raise UncomparableRowsError(
                "the parent's examples have no labels", "remove bbse from shift.tests"
            )
        return np.stack([predicted[counted], labels[counted]], axis=1)

    def estimate(
        self, new: Sample, examined: Examined | None, generator: np.random.Generator
    ) -> dict[str, Any] | None:
        """Return the estimated accuracy on new rows without labels; see `shift.estimate`.

        Args:
            new: The new rows; those with labels are left out.
            examined: The model's results on those with labels; None if no row has one.
            generator: Draws the rows of past holdouts to calibrate on.

        Returns:
            `accuracy`, the number of `rows` without labels and, by the number of each past holdout, the
            estimated and the actual accuracy, and the largest error among them. None if all rows have
            labels, the task has no single class label, or there are too few rows in holdouts.
        """
        if examined is not None:
            predictions = examined.predictions
            if predictions is None or predictions.counted is None:
                return None  # no single class label, or no row without a label
        answers = self.answers(new)
        if answers is None:
            return None
        unlabelled = answers[0] == IGNORED
        holdouts = self._past_holdouts(generator)
        calibration = joined(holdouts)
        if len(calibration[0]) < LEAST_ROWS:
            self.skipped["estimated_performance"] = (
                f"the parent's holdouts have {len(calibration[0])} rows with labels, and it needs "
                f"{LEAST_ROWS}"
            )
            return None
        past = past_estimates(holdouts)
        return {
            "accuracy": expected_accuracy(calibration, answers[2][unlabelled]),
            "error": max((abs(one - other) for one, other in past.values()), default=None),
            "holdout": {
                str(number): {"estimated": one, "accuracy": other}
                for number, (one, other) in past.items()
            },
            "rows": int(unlabelled.sum()),
        }

    def _past_holdouts(self, generator: np.random.Generator) -> dict[int, Rows]:
        """Return confidence and correctness on the labelled rows of each holdout of the parent."""
        found = {}
        for number, store in sorted(self.parent.split("holdouts").items()):
            if not len(store):
                continue
            drawn = [(store, np.arange(len(store)))]
            answers = self.answers(Sample.draw(drawn, self.params.shift.max_rows, generator))
            if answers is not None:
                labels, predicted, confidence = answers
                counted = labels != IGNORED
                found[number] = (confidence[counted], (labels == predicted)[counted])
        return found


def parents_metrics(parent: State) -> dict[str, float | None]:
    """Return each metric of the parent's model over all rows of its holdouts."""
    history, number = parent.evaluations(), parent.provenance.update
    measured = [name for name in history.metrics if number in history.matrix(name)]
    return {name: history.summary(number, name)["overall"] for name in measured}  # pyright: ignore[reportReturnType]
