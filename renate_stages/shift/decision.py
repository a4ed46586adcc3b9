"""Decide whether the new data needs an update: `should_update` in params.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from renate_stages.params import Params
from renate_stages.shift.data_metrics import DataMetrics, Interval, ShiftFigures, first_of

NEW_LABELS = "new_labels"


@dataclass(frozen=True)
class Ruling:
    """The result of one rule of the policy.

    Args:
        rule: The rule's name.
        fires: Whether it asks for an update; None if that is unknown.
        reason: The reason with its figures, in one line.
    """

    rule: str
    fires: bool | None
    reason: str

    def __str__(self) -> str:
        answer = {True: "yes", False: "no", None: "unknown"}[self.fires]
        return f"{self.rule}: {answer}: {self.reason}"


@dataclass(frozen=True)
class Decision:
    """Whether to update, and why.

    Args:
        update: The decision.
        rulings: The result of each rule of the policy.
    """

    update: bool
    rulings: tuple[Ruling, ...]


def decide(params: Params, data: DataMetrics, age: float | None) -> Decision:
    """Apply the policy; a rule with an unknown result does not ask for an update.

    With `when: all`, the rule `new_labels` counts only if it is the only rule: otherwise there could be
    no update without new labels.

    If there is no earlier update to compare with, the decision is to update.

    Args:
        params: Parameters with the policy and the headline metric.
        data: Figures of the update's data.
        age: Days since the parent was made; None if unknown.
    """
    if not params.update.parent and (data.shift is None or data.shift.model is None):
        return Decision(
            True, (Ruling("first", True, "there is no earlier update to compare with"),)
        )
    rulings = tuple(_rulings(params, data, age))
    is_all = params.should_update.when == "all"
    counted = [each for each in rulings if not is_all or each.rule != NEW_LABELS] or rulings
    fires = [ruling.fires is True for ruling in counted]
    combined = all(fires) and bool(fires) if is_all else any(fires)
    return Decision(combined, rulings)


def _rulings(params: Params, data: DataMetrics, age: float | None) -> Iterator[Ruling]:
    """Yield the result of each rule: labels that no training can have taught, then performance."""
    policy, figures = params.should_update, data.shift or ShiftFigures()
    if policy.new_labels:
        yield _new_labels(data, policy.when == "all")
    if policy.performance_drop is not None:
        yield _performance_drop(params, figures, policy.performance_drop)
    if policy.shift:
        yield _shift(params, figures)
    if policy.amount_of_data is not None:
        rows = data.train.rows if data.train else 0
        reason = f"{rows} new training rows, the threshold is {policy.amount_of_data}"
        yield Ruling("amount_of_data", rows >= policy.amount_of_data, reason)
    if policy.age is not None:
        days = "of unknown age" if age is None else f"{age:.1f} days old"
        reason = f"update {params.update.parent} is {days}, the threshold is {policy.age:g} days"
        yield Ruling("age", None if age is None else age >= policy.age, reason)


def _new_labels(data: DataMetrics, is_all: bool) -> Ruling:
    """Judge by training and test rows with labels that the parent has not seen."""
    labels = data.labels
    if labels is None or labels.new is None:
        return Ruling(NEW_LABELS, None, "metrics/data.json has no count of rows with new labels")
    if not labels.new_rows:
        reason = "no training or test row has a label that the parent has not seen"
        return Ruling(NEW_LABELS, False, reason)
    reason = (
        f"{labels.new_rows} training and test rows have labels that the parent has not seen: "
        f"{first_of([name for name, rows in labels.by_rows.items() if rows])}"
    )
    if is_all:
        reason += " (with when: all, the other rules decide, if there are any)"
    return Ruling(NEW_LABELS, True, reason)


def _shift(params: Params, figures: ShiftFigures) -> Ruling:
    """Judge the tests: a shift must be significant and have an effect of some size.

    A shift alone does not call for an update if labels show that the model does as well as before.
    """
    if not figures.tests and not figures.thresholds:
        return Ruling("shift", None, "metrics/data.json has no shift tests")
    alpha, thresholds = params.shift.alpha, params.shift.thresholds
    least = params.should_update.min_effect
    judged = [(name, test, least) for name, test in figures.tests.items()]
    judged += [(n, test, thresholds.get(n, least)) for n, test in figures.thresholds.items()]
    results = "; ".join(
        f"{name} p {_shown(test.corrected_p_value)}, effect {_shown(test.effect_size)}"
        + (f" of {limit:g}" if name in figures.thresholds else "")
        for name, test, limit in judged
    )
    significant = [each for each in judged if _at_most(each[1].corrected_p_value, alpha)]
    large = [name for name, test, limit in significant if not _below(test.effect_size, limit)]
    if not large:
        if any(test.corrected_p_value is None for _, test, _ in judged):
            return Ruling("shift", None, results)  # a test without a figure is unknown
        found = "no effect" if significant else "none"
        size = f" is at least {least:g}" if significant else ""
        return Ruling("shift", False, f"{results} ({found} at level {alpha:g}{size})")
    reason = f"{results} ({', '.join(large)} at level {alpha:g}, effect at least {least:g})"
    held = _performance_held(params, figures)
    if held is not None and params.should_update.shift != "always":
        return Ruling("shift", False, f"{reason}, but {held}")
    return Ruling("shift", True, reason)


def _performance_held(params: Params, figures: ShiftFigures) -> str | None:
    """Return a clause if labels show that the parent's model does as well as before, else None.

    The whole interval of its metric on the new rows must be within the allowed drop: with few labels it is
    wide, and the shift counts.
    """
    metric, most = params.evaluation.metric, params.should_update.performance_drop
    old, interval = figures.parent.get(metric), figures.interval
    if most is None or old is None or interval is None:
        return None
    lower_is_better = metric in params.evaluation.lower_is_better
    worst = interval.high if lower_is_better else interval.low
    if worst is None or (worst - old if lower_is_better else old - worst) > most:
        return None
    return (
        f"the parent's {metric} on the new data did not get worse: with 95 % confidence it is at "
        f"{'most' if lower_is_better else 'least'} {worst:.3f}, and it was {old:.3f} on its holdouts"
    )


def _at_most(value: float | None, limit: float) -> bool:
    return value is not None and value <= limit


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}"


def _performance_drop(params: Params, figures: ShiftFigures, most: float) -> Ruling:
    """Judge by the parent's metric on new rows with labels; a drop within noise does not count."""
    metric = params.evaluation.metric
    new, old = (known.get(metric) for known in (figures.model or {}, figures.parent))
    if new is None or old is None:
        return _estimated_drop(params, figures, most)
    drop = new - old if metric in params.evaluation.lower_is_better else old - new
    reason = (
        f"the parent's {metric} is {new:.3f} on the new data and {old:.3f} on its holdouts, the "
        f"threshold for the drop is {most:g}"
    )
    interval = figures.interval
    if drop > most and interval is not None and _contains(interval, old):
        reason += (
            f", but with so few labels the drop is within noise: 95 % interval "
            f"{interval.low:.3f} to {interval.high:.3f}"
        )
        return Ruling("performance_drop", False, reason)
    return Ruling("performance_drop", drop > most, reason)


def _contains(interval: Interval, value: float) -> bool:
    low, high = interval.low, interval.high
    return low is not None and high is not None and low <= value <= high


def _estimated_drop(params: Params, figures: ShiftFigures, most: float) -> Ruling:
    """Judge by the estimate for rows without labels; unknown without one."""
    metric, estimate = params.evaluation.metric, figures.estimated_performance
    old = figures.parent.get(metric)
    new = estimate.accuracy if estimate is not None and metric == "accuracy" else None
    if estimate is None or new is None or old is None:
        reason = f"metrics/data.json has no {metric} of the parent's model on new data"
        return Ruling("performance_drop", None, reason)
    error = (
        "" if estimate.error is None else f", off by at most {estimate.error:.3f} on past holdouts"
    )
    reason = (
        f"the new data has no labels; the parent's accuracy on it is estimated as {new:.3f} from the "
        f"model's confidence{error}; it was {old:.3f} on its holdouts, the threshold for the drop is "
        f"{most:g}"
    )
    return Ruling("performance_drop", old - new > most, reason)
