"""Decide whether the new data needs an update: `should_update` in params.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from renate_stages.params import Params
from renate_stages.shift.data_metrics import DataMetrics, ShiftFigures


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
    fires = [ruling.fires is True for ruling in rulings]
    combined = any(fires) if params.should_update.when == "any" else all(fires) and bool(fires)
    return Decision(combined, rulings)


def _rulings(params: Params, data: DataMetrics, age: float | None) -> Iterator[Ruling]:
    policy, figures = params.should_update, data.shift or ShiftFigures()
    if policy.shift:
        yield _shift(params, figures)
    if policy.performance_drop is not None:
        yield _performance_drop(params, figures, policy.performance_drop)
    if policy.amount_of_data is not None:
        rows = data.train.rows if data.train else 0
        reason = f"{rows} new training rows, the threshold is {policy.amount_of_data}"
        yield Ruling("amount_of_data", rows >= policy.amount_of_data, reason)
    if policy.age is not None:
        days = "of unknown age" if age is None else f"{age:.1f} days old"
        reason = f"update {params.update.parent} is {days}, the threshold is {policy.age:g} days"
        yield Ruling("age", None if age is None else age >= policy.age, reason)


def _shift(params: Params, figures: ShiftFigures) -> Ruling:
    if not figures.tests:
        return Ruling("shift", None, "metrics/data.json has no shift tests")
    alpha = params.shift.alpha
    results = [
        f"{name} p {_shown(test.corrected_p_value)}, effect {_shown(test.effect_size)}"
        for name, test in figures.tests.items()
    ]
    known = [p for t in figures.tests.values() if (p := t.corrected_p_value) is not None]
    fires = any(p <= alpha for p in known)
    if not fires and len(known) < len(figures.tests):  # a test without a figure is unknown
        return Ruling("shift", None, "; ".join(results))
    conclusion = f"at level {alpha:g}" if fires else f"none at level {alpha:g}"
    return Ruling("shift", fires, f"{'; '.join(results)} ({conclusion})")


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}"


def _performance_drop(params: Params, figures: ShiftFigures, most: float) -> Ruling:
    metric = params.evaluation.metric
    new, old = (known.get(metric) for known in (figures.model or {}, figures.parent))
    if new is None or old is None:
        reason = f"metrics/data.json has no {metric} of the parent's model on new data"
        return Ruling("performance_drop", None, reason)
    drop = new - old if metric in params.evaluation.lower_is_better else old - new
    reason = (
        f"the parent's {metric} is {new:.3f} on the new data and {old:.3f} on its holdouts, the "
        f"threshold for the drop is {most:g}"
    )
    return Ruling("performance_drop", drop > most, reason)
