"""Describe an update's change from its parent in words: better, worse, or within noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from renate_stages.evaluation.comparison import within_noise

if TYPE_CHECKING:
    from renate_stages.evaluation.history import EvaluationHistory
    from renate_stages.params import EvaluationParams

LOSS = "loss"


def verdict(
    history: EvaluationHistory,
    update: int,
    evaluation: EvaluationParams,
    figures: Mapping[str, Any],
) -> list[str]:
    """Return a paragraph with the verdict in one word, the size of the change, and its parts.

    Args:
        history: The history, including this update's evaluations.
        update: Number of the update.
        evaluation: Parameters with the headline metric and its better direction.
        figures: The content of `metrics/update.json`; may be empty, as in old releases.
    """
    metric = evaluation.metric
    after = history.matrix(metric).get(update, {})
    if update not in after:
        return ["This update forgets examples. It has no new data and no training."]
    before = history.matrix(metric, "before").get(update, {})
    old = [holdout for holdout in after if holdout != update]
    headline = figures.get(metric, {})
    lines = [_new_and_old(metric, before, after, update, old)]
    higher = evaluation.mode == "max"
    if headline.get("change") is not None and headline.get("overall") is not None:
        lines.insert(0, _word(headline, metric, len(after), higher=higher))
        lines[-1] += _on_earlier(headline, higher=higher)
        if flips := _flips(figures):
            lines.append(flips)
    elif interval := _between(headline.get("interval", {}).get("overall", {})):
        lines.append(f"{interval[0].upper()}{interval[1:]}.")
    if metric != LOSS:
        lines += _loss(history, update)
    return [" ".join(lines)]


def _loss(history: EvaluationHistory, update: int) -> list[str]:
    """Return a sentence on the loss, which can rise while the metric stays."""
    after = history.matrix(LOSS).get(update, {})
    before = history.matrix(LOSS, "before").get(update, {})
    if not after or before.keys() != after.keys():
        return []
    means = (sum(each.values()) / len(each) for each in (before, after))
    return ["Loss, as the mean over holdouts, {:.4f} → {:.4f}.".format(*means)]


def _word(headline: Mapping[str, Any], metric: str, holdouts: int, *, higher: bool) -> str:
    change, ends = headline["change"], headline.get("interval", {}).get("change", {})
    start = headline["overall"] - change
    where = "the one holdout" if holdouts == 1 else f"all {holdouts} holdouts"
    by = f"{metric} on {where} {start:.4f} → {headline['overall']:.4f} ({change:+.4f}"
    word = _judged(change, ends, higher=higher).capitalize()
    if ends.get("low") is None:
        return f"**{word}**, without an interval: {by})."
    return f"**{word}**: {by}; {_between(ends, sign='+')})."


def _on_earlier(headline: Mapping[str, Any], *, higher: bool) -> str:
    """Judge the earlier holdouts alone, because gains on new data can hide losses on old data."""
    change = headline.get("change_on_earlier")
    ends = headline.get("interval", {}).get("change_on_earlier", {})
    if change is None or ends.get("low") is None:
        return ""
    return f" There: **{_judged(change, ends, higher=higher)}**, {_between(ends, sign='+')}."


def _judged(change: float, ends: Mapping[str, Any], *, higher: bool) -> str:
    if ends.get("low") is not None and within_noise((ends["low"], ends["high"])):
        return "within noise"
    return "unchanged" if change == 0 else "better" if (change > 0) == higher else "worse"


def _between(ends: Mapping[str, float | None], sign: str = "") -> str:
    if ends.get("low") is None or ends.get("high") is None:
        return ""
    return f"95 % interval {ends['low']:{sign}.4f} to {ends['high']:{sign}.4f}"


def _flips(figures: Mapping[str, Any]) -> str:
    shares = figures.get("flips") or {}
    if shares.get("negative") is None or shares.get("positive") is None:
        return ""
    return (
        f"Of all predictions, {100 * shares['negative']:.1f} % were correct and are now wrong, and "
        f"{100 * shares['positive']:.1f} % were wrong and are now correct."
    )


def _new_and_old(
    metric: str,
    before: Mapping[int, float],
    after: Mapping[int, float],
    update: int,
    old: list[int],
) -> str:
    """Return the metric on the new data's holdout and on those of earlier updates."""
    new = f"{metric} on the new data {_from_to(before.get(update), after[update])}"
    if not old:
        return f"First update: {new}."
    known = all(holdout in before for holdout in old)
    mean_before = sum(before[holdout] for holdout in old) / len(old) if known else None
    mean_after = sum(after[holdout] for holdout in old) / len(old)
    name = "holdout" if len(old) == 1 else "holdouts"
    change = _from_to(mean_before, mean_after)
    return f"{new[0].upper()}{new[1:]}; on the {len(old)} earlier {name} {change}."


def _from_to(before: float | None, after: float) -> str:
    return f"{after:.4f}" if before is None else f"{before:.4f} → {after:.4f}"
