"""Compute the figures in `metrics/update.json`; the formulas are in `docs/evaluation.md`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from renate_stages.evaluation import metrics
from renate_stages.evaluation.calibration import calibration_error
from renate_stages.evaluation.comparison import flips
from renate_stages.evaluation.examined import Examined, Predictions
from renate_stages.evaluation.history import EvaluationHistory, known
from renate_stages.evaluation.intervals import metric_difference_interval, metric_interval
from renate_stages.evaluation.slices import Part, by_value
from renate_stages.randomness import Generators
from renate_stages.tasks.labels import shown

if TYPE_CHECKING:
    from renate_stages.params import EvaluationParams

# Other keys of metrics/update.json, which therefore cannot be names of metrics.
TAKEN = (
    *("update", "memory", "training", "plasticity", "flips", "calibration", "classes", "slices"),
)


@dataclass(frozen=True)
class Answers:
    """Predictions of the parent's and the new model for each row of the same holdouts.

    Args:
        after: Results of the new model by holdout.
        before: Results of the parent's model on the same holdouts; None without a parent.
        slices: For each metadata field and holdout, the value of each row, `(rows,)`.
        names: Names of the labels; empty if labels are numbers.
    """

    after: Mapping[int, Examined]
    before: Mapping[int, Examined] | None = None
    slices: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)
    names: Sequence[str] = ()

    @property
    def predictions(self) -> dict[int, Predictions]:
        """The new model's predictions; empty if targets are not class labels."""
        return _predictions(self.after)

    @property
    def correct(self) -> dict[int, np.ndarray]:
        """Whether the new model is correct on each row; empty if targets are not class labels."""
        return {number: each.correct for number, each in self.predictions.items()}

    @property
    def correct_before(self) -> dict[int, np.ndarray]:
        """Whether the parent's model is correct on each row; empty without labels or parent."""
        predictions = _predictions(self.before or {})
        return {number: each.correct for number, each in predictions.items()}

    def calibration(self) -> float:
        """Return the calibration error over all holdouts together; NaN without class labels."""
        answers = self.predictions.values()
        if not answers:
            return math.nan
        confidence = np.concatenate([each.confidence for each in answers])
        return calibration_error(confidence, np.concatenate([each.correct for each in answers]))

    def classes(self) -> dict[str, Part]:
        """Return the accuracy on each class over all holdouts, by name, in the order of numbers."""
        if not self.predictions:
            return {}
        labels = np.concatenate([each.labels for each in self.predictions.values()])
        parts = by_value(labels, np.concatenate(list(self.correct.values())))
        return {shown(int(label), self.names): part for label, part in parts.items()}

    def by_slice(self) -> dict[str, dict[str, Part]]:
        """Return the accuracy on each slice of each field, over all holdouts."""
        correct = self.correct
        if not correct:
            return {}
        rows = np.concatenate([correct[number] for number in sorted(correct)])
        counted = {number: each.counted for number, each in self.predictions.items()}
        return {
            name: by_value(
                np.concatenate(
                    [
                        values[n] if counted[n] is None else values[n][counted[n]]
                        for n in sorted(correct)
                    ]
                ),
                rows,
            )
            for name, values in self.slices.items()
        }


def update_figures(
    update: int,
    history: EvaluationHistory,
    evaluation: EvaluationParams,
    answers: Answers,
    generators: Generators,
) -> dict[str, Any]:
    """Return a block for each metric and, for classifiers, figures from the predictions.

    The headline metric and the loss have transfer and forgetting. Other metrics have only averages
    and the value on each holdout, because it is unknown whether higher is better.

    Args:
        update: Number of the update.
        history: The history, including this update's evaluations.
        evaluation: Parameters with the headline metric.
        answers: Predictions of the parent's model and of the new one.
        generators: The update's generators, which draw the bootstrap intervals.
    """
    figures: dict[str, Any] = {}
    for metric in history.metrics:
        if update not in history.matrix(metric):
            continue
        better = metric not in evaluation.lower_is_better
        summary: dict[str, Any] = history.summary(update, metric, higher_is_better=better)
        if metric == evaluation.metric:
            summary |= _headline(update, history, evaluation, answers, generators)
        elif metric != "loss":
            summary = {name: summary[name] for name in ("average", "overall", "holdout")}
        figures[metric] = summary
    return figures | _row_figures(answers)


def _headline(
    update: int,
    history: EvaluationHistory,
    evaluation: EvaluationParams,
    answers: Answers,
    generators: Generators,
) -> dict[str, Any]:
    """Return the change from the parent, and intervals if values of rows are known."""
    metric = evaluation.metric
    figures: dict[str, Any] = {"change": None, "change_on_earlier": None}
    if answers.before is not None:
        old, new = (history.examined(update, phase).together for phase in ("before", "after"))
        start, end = (history.matrix(metric, phase)[update] for phase in ("before", "after"))
        earlier = {update: {i: end[i] - start[i] for i in end if i < update}}
        if all(math.isnan(start[i]) == math.isnan(end[i]) for i in end):
            figures["change"] = known(new[metric] - old[metric])
        figures["change_on_earlier"] = known(metrics.average(earlier, update))
    if evaluation.reference:
        reached = metrics.intransigence(
            history.matrix(metric),
            update,
            evaluation.reference,
            higher_is_better=evaluation.mode == "max",
        )
        figures["intransigence"] = known(reached)
    ends = _intervals(update, metric, answers, generators)
    if any(ends.values()):
        figures["interval"] = {
            name: dict(
                zip(("low", "high"), map(known, pair) if pair else (None, None), strict=True)
            )
            for name, pair in ends.items()
        }
    return figures


def _intervals(
    update: int, metric: str, answers: Answers, generators: Generators
) -> dict[str, tuple[float, float] | None]:
    """Return the 95 % interval of each figure, each from its own generator; None if unknown."""
    before, after = answers.before or {}, answers.after

    def drawn(name: str) -> np.random.Generator:
        return interval_generator(generators, name)

    ends = {
        "average": metric_interval(metric, after, drawn("average"), average=True),
        "overall": metric_interval(metric, after, drawn("overall"), average=False),
        "change": None,
        "change_on_earlier": None,
    }
    if before:
        ends["change"] = metric_difference_interval(
            metric, before, after, drawn("change"), average=False
        )
    if earlier := {number for number in before if number < update}:
        old, new = ({n: each[n] for n in earlier} for each in (before, after))
        ends["change_on_earlier"] = metric_difference_interval(
            metric, old, new, drawn("change on earlier"), average=True
        )
    return ends


def interval_generator(generators: Generators, figure: str) -> np.random.Generator:
    """Return the generator that draws the resamples of a figure's interval.

    Args:
        generators: The update's generators.
        figure: Such as `change`. The gate uses it too, so that one change has one interval.
    """
    return generators.numpy(f"interval of {figure}")


def _row_figures(answers: Answers) -> dict[str, Any]:
    """Return flips, calibration, classes and slices; empty if targets are not class labels."""
    predictions = answers.predictions
    if not predictions:
        return {}
    errors = {
        str(number): known(calibration_error(each.confidence, each.correct))
        for number, each in predictions.items()
    }
    figures: dict[str, Any] = {
        "flips": {"negative": None, "positive": None},
        "calibration": {"error": known(answers.calibration()), "holdout": errors},
        "classes": _shown(answers.classes()),
    }
    if answers.correct_before:
        changed = flips(answers.correct_before, answers.correct)
        figures["flips"] = {
            "negative": known(changed.negative),
            "positive": known(changed.positive),
            "holdout": {
                str(number): {
                    "negative": known(changed.holdout_negative[number]),
                    "positive": known(changed.holdout_positive[number]),
                }
                for number in changed.holdout_negative
            },
        }
    if answers.slices:
        figures["slices"] = {name: _shown(parts) for name, parts in answers.by_slice().items()}
    return figures


def _shown(parts: Mapping[str, Part]) -> dict[str, float | None]:
    return {value: known(part.accuracy) for value, part in parts.items()}


def _predictions(examined: Mapping[int, Examined]) -> dict[int, Predictions]:
    """Return the predictions by holdout; empty if any holdout has no class labels."""
    predictions = {n: each.predictions for n, each in sorted(examined.items()) if each.predictions}
    return predictions if len(predictions) == len(examined) else {}
