"""The verdict on an update, as a paragraph of the report."""

from __future__ import annotations

from typing import Any

import pytest
from small_results import results_of

from renate_stages.evaluation import EvaluationHistory
from renate_stages.params import EvaluationParams
from renate_stages.reporting.change import verdict


def render(
    before: dict[int, float] | None,
    after: dict[int, float],
    ends: tuple[float, float] | None = None,
    **evaluation: Any,
) -> str:
    settings = EvaluationParams(**evaluation)
    name, rows, history = settings.metric, dict.fromkeys(after, 10), EvaluationHistory()
    history = history.with_update(
        2, "after", results_of({n: {name: v} for n, v in after.items()}, rows)
    )
    figures: dict[str, Any] = {name: {"overall": sum(after.values()) / len(after), "change": None}}
    if before is not None:
        values = {n: {name: v} for n, v in before.items()}
        history = history.with_update(2, "before", results_of(values, rows))
        figures[name]["change"] = (sum(after.values()) - sum(before.values())) / len(after)
        figures["flips"] = {"negative": 0.012, "positive": 0.25}
    if ends:
        figures[name]["interval"] = {"change": dict(zip(("low", "high"), ends, strict=True))}
    (paragraph,) = verdict(history, 2, settings, figures)
    return paragraph


@pytest.mark.parametrize(
    "ends, word",
    [((0.1, 0.3), "Better"), ((-0.1, 0.4), "Within noise"), ((0.0, 0.3), "Within noise")],
)
def test_verdict_depends_on_the_confidence_interval(ends: tuple[float, float], word: str) -> None:
    text = render({1: 0.9, 2: 0.3}, {1: 0.8, 2: 0.8}, ends)
    assert text == (
        f"**{word}**: accuracy on all 2 holdouts 0.6000 → 0.8000 (+0.2000; "
        f"95 % interval {ends[0]:+.4f} to {ends[1]:+.4f}). "
        "Accuracy on the new data 0.3000 → 0.8000; on the 1 earlier holdout 0.9000 → 0.8000. "
        "Of all predictions, 1.2 % were correct and are now wrong, and "
        "25.0 % were wrong and are now correct."
    )


def test_loss_is_named_because_it_can_rise_while_the_metric_stays() -> None:
    history = EvaluationHistory()
    for phase, losses in (("before", {1: 0.2, 2: 0.4}), ("after", {1: 0.4, 2: 0.5})):
        measured = {n: {"accuracy": 0.8, "loss": value} for n, value in losses.items()}
        history = history.with_update(2, phase, results_of(measured, {1: 10, 2: 10}))  # type: ignore[arg-type]
    for metric, named in (("accuracy", True), ("loss", False)):
        (text,) = verdict(history, 2, EvaluationParams(metric=metric), {})
        assert text.endswith("Loss, as the mean over holdouts, 0.3000 → 0.4500.") == named


def test_earlier_holdouts_get_a_separate_verdict() -> None:
    history = EvaluationHistory()
    for phase, values in (("before", {1: 0.9, 2: 0.0}), ("after", {1: 0.8, 2: 1.0})):
        measured = {n: {"accuracy": v} for n, v in values.items()}
        results = results_of(measured, {1: 10, 2: 10})
        history = history.with_update(2, phase, results)  # type: ignore[arg-type]
    headline = {
        "overall": 0.9,
        "change": 0.45,
        "change_on_earlier": -0.1,
        "interval": {
            "change": {"low": 0.4, "high": 0.5},
            "change_on_earlier": {"low": -0.15, "high": -0.05},
        },
    }
    (text,) = verdict(history, 2, EvaluationParams(), {"accuracy": headline})
    assert text.startswith("**Better**: accuracy on all 2 holdouts 0.4500 → 0.9000")
    assert text.endswith(
        "on the 1 earlier holdout 0.9000 → 0.8000. There: **worse**, "
        "95 % interval -0.1500 to -0.0500."
    )


def test_lower_metric_values_are_better_with_mode_min() -> None:
    text = render({2: 0.5}, {2: 0.3}, metric="loss", mode="min")
    assert text.startswith("**Better**, without an interval: loss on the one holdout 0.5000 → 0.30")
    assert render({2: 0.5}, {2: 0.7}, (0.1, 0.3), metric="wer", mode="min").startswith("**Worse**")
    assert render({2: 0.5}, {2: 0.5}).startswith("**Unchanged**")


def test_verdict_on_the_first_update_has_no_comparison() -> None:
    assert render(None, {2: 0.75}) == "First update: accuracy on the new data 0.7500."


def test_update_without_metrics_is_reported_as_forgetting_examples() -> None:
    (text,) = verdict(EvaluationHistory(), 2, EvaluationParams(), {})
    assert text.startswith("This update forgets examples")
