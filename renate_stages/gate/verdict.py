"""Two models on the same holdouts, held against the rules: `metrics/verdict.json`.

The figures, with a[i] the metric on holdout i, n[i] its rows:

    average          mean over i of a[i]
    overall          sum over i of n[i] a[i] / sum over i of n[i]
    worst_holdout    `min`: the lowest a[i]; `max_drop`: the holdout that lost most to the champion.
                     Not the difference of the two lowest: the champion never learnt the newest
                     holdout, and against its figure there every loss elsewhere would pass.
    classes          likewise, over the accuracy of each class on all holdouts as one
    negative_flips   share of all rows that the champion had right and the update has wrong
    positive_flips   the reverse

The figures themselves are held against the rules; the interval (95 %, paired bootstrap) says how
much of a difference is noise. It is known where the metric is the share of right answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages import files
from renate_stages.errors import NoVerdictError
from renate_stages.evaluation.comparison import difference_interval, flips, within_noise
from renate_stages.evaluation.examined import Examined
from renate_stages.gate.rules import CLASSES, FLIPS, SCOPES, Rule
from renate_stages.randomness import Generators

NOT_KNOWN = "not known"
ModelScores = Mapping[int, Examined]


@dataclass(frozen=True)
class Measured:
    """What there is to judge.

    Args:
        update: Number of the update.
        new: Its model on each holdout.
        champion_update: Number of the champion's update, 0 where there is no champion.
        champion: The champion's model on the same holdouts; None: there is none, or it fails.
        problem: Why the champion could not be measured.
    """

    update: int
    new: ModelScores
    champion_update: int = 0
    champion: ModelScores | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate says of an update; `content` is `metrics/verdict.json`."""

    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return bool(self.content["passed"])

    @property
    def update(self) -> int:
        return int(self.content["update"])

    @property
    def champion(self) -> str:
        """The champion that it was measured against, as a user speaks of it."""
        number = self.content["champion_update"]
        return f"update {number}" if number else "no champion"

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """Read `metrics/verdict.json`.

        Raises:
            NoVerdictError: If there is none, or it is not one.
        """
        if not path.is_file():
            raise NoVerdictError(f"{path.name} is missing")
        return cls.of(files.read_json(path))

    @classmethod
    def of(cls, content: Any) -> Verdict:
        """Check what was read.

        Raises:
            NoVerdictError: If it is not a verdict.
        """
        needed = {"passed", "update", "champion_update", "rules", "figures"}
        if not isinstance(content, dict) or not needed <= content.keys():
            raise NoVerdictError("verdict.json is no verdict")
        return cls(content)

    @property
    def rules(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Figure, limit and outcome of each rule."""
        return [
            (figure, limit, outcome)
            for figure, limits in self.content["rules"].items()
            for limit, outcome in limits.items()
        ]

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        failed = [f"{figure} {limit}" for figure, limit, each in self.rules if not each["passed"]]
        if failed:
            said = f"refused: {', '.join(failed)}"
        elif not self.rules:
            said = "passed: export.promote has no rules"
        else:
            said = f"passed: {len(self.rules)} rule(s)"
        return f"update {self.update} against {self.champion}: {said}"

    def table(self) -> list[tuple[str, ...]]:
        """Return a row for each rule: rule, allowed, update, champion, change, by how much."""
        return [
            (
                f"{figure} {limit}",
                _shown(each["allowed"]),
                _shown(each["value"]) + _place(figure, each["at"]),
                _shown(each["champion"]),
                _change(each),
                _outcome(each),
            )
            for figure, limit, each in self.rules
        ]


COLUMNS = ("rule", "allowed", "update", "champion", "change (95 %)", "verdict")


def section(verdict: Verdict) -> list[str]:
    """Return the report's section on the gate, as lines of Markdown."""
    problem = verdict.content.get("problem")
    lines = ["## Gate", "", f"{verdict.headline[0].upper()}{verdict.headline[1:]}.", ""]
    if problem:
        lines += [f"The champion could not be measured: {problem}", ""]
    if verdict.rules:
        lines += [
            f"| {' | '.join(COLUMNS)} |",
            f"|{'|'.join('---' for _ in COLUMNS)}|",
            *(f"| {' | '.join(row)} |" for row in verdict.table()),
            "",
        ]
    return lines


def judge(
    rules: Iterable[Rule],
    measured: Measured,
    metric: str,
    lower_is_better: Iterable[str],
    generators: Generators,
) -> Verdict:
    """Hold an update against the champion and the rules.

    A rule that needs a champion counts where there is one; one whose figure is not known fails.

    Args:
        rules: Of `export.promote`.
        measured: Both models on the same holdouts.
        metric: The headline metric, whose figures are written whether ruled on or not.
        lower_is_better: Names of the metrics of which less is better.
        generators: Of the update; one of its own draws the resamples of each figure.
    """
    lower = set(lower_is_better)
    rules = tuple(rules)
    names = {f"{scope}_{metric}" for scope in SCOPES} | {rule.figure for rule in rules} | {*FLIPS}
    figures = {
        name: _figure(name, measured, lower, generators.numpy(f"gate.{name}"))
        for name in sorted(names)
    }
    outcomes: dict[str, dict[str, Any]] = {}
    for rule in rules:
        outcome = _outcome_of(rule, figures[rule.figure], measured)
        outcomes.setdefault(rule.figure, {})[rule.limit] = outcome
    return Verdict(
        {
            "passed": all(o["passed"] for limits in outcomes.values() for o in limits.values()),
            "update": measured.update,
            "champion_update": measured.champion_update,
            "problem": measured.problem,
            "rules": outcomes,
            "figures": {name: parts["own"] for name, parts in figures.items()},
        }
    )


def _outcome_of(
    rule: Rule, figure: Mapping[str, Mapping[str, Any]], measured: Measured
) -> dict[str, Any]:
    against = rule.limit in ("max_drop", "max_rise")
    part = figure["lost"] if against and "lost" in figure else figure["own"]
    found = _difference(part) if against else part["value"]
    margin = None
    if found is not None:
        sign = 1 if rule.limit in ("min", "max_drop") else -1
        bound = -sign * rule.allowed if against else rule.allowed
        margin = _rounded(sign * (found - bound))
    counts = measured.champion_update > 0 or not rule.relative
    passed = not counts or (margin is not None and margin >= 0)
    return {**part, "allowed": rule.allowed, "margin": margin, "passed": passed}


def _figure(
    name: str, measured: Measured, lower: set[str], generator: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Return a figure as its `own` part and, where the two differ, that which lost most."""
    new, champion = measured.new, measured.champion
    if name in FLIPS:
        return {"own": _entry(_flips(name, new, champion), None)}
    if name == CLASSES:
        return _worst(_by_class(new), _by_class(champion), False, {}, generator)
    scope = next(scope for scope in SCOPES if name.startswith(f"{scope}_"))
    metric = name.removeprefix(f"{scope}_")
    ours, theirs = _values(new, metric), _values(champion, metric)
    scores = _paired_scores(metric, new, champion)
    if scope == "worst_holdout":
        return _worst(ours, theirs, metric in lower, scores, generator)
    average = scope == "average"
    rows = {number: 1 if average else each.rows for number, each in new.items()}
    bounds = _interval(scores, generator, average=average)
    return {"own": _entry(_mean(ours, rows), _mean(theirs, rows), bounds=bounds)}


def _worst(
    ours: Mapping[int, float],
    theirs: Mapping[int, float],
    lower: bool,
    scores: Mapping[int, tuple[np.ndarray, np.ndarray]],
    generator: np.random.Generator,
) -> dict[str, dict[str, Any]]:
    sign = -1 if lower else 1
    known = {n: v for n, v in ours.items() if not math.isnan(v)}
    if not known:
        return {"own": _entry(None, None)}
    worst = min(known, key=lambda n: (sign * known[n], n))
    parts = {"own": _entry(ours[worst], theirs.get(worst), at=worst)}
    changes = {
        n: sign * (known[n] - theirs[n]) for n in known if not math.isnan(theirs.get(n, math.nan))
    }
    if changes:
        lost = min(changes, key=lambda n: (changes[n], n))
        bounds = _interval({n: scores[n] for n in [lost] if n in scores}, generator, average=True)
        parts["lost"] = _entry(ours[lost], theirs[lost], at=lost, bounds=bounds)
    return parts


def _flips(name: str, new: ModelScores, champion: ModelScores | None) -> float | None:
    before, after = _right(champion or {}), _right(new)
    if not before.keys() & after.keys():
        return None
    found = flips(before, after)
    return found.negative if name == "negative_flips" else found.positive


def _right(examined: ModelScores) -> dict[int, np.ndarray]:
    return {
        number: each.predictions.correct
        for number, each in examined.items()
        if each.predictions is not None
    }


def _by_class(examined: ModelScores | None) -> dict[int, float]:
    """Return the accuracy on the rows of each class, over all holdouts as one."""
    answers = [each.predictions for each in (examined or {}).values() if each.predictions]
    if not answers:
        return {}
    labels = np.concatenate([each.labels for each in answers])
    right = np.concatenate([each.correct for each in answers])
    return {int(label): float(right[labels == label].mean()) for label in np.unique(labels)}


def _values(examined: ModelScores | None, metric: str) -> dict[int, float]:
    return {n: each.metrics.get(metric, math.nan) for n, each in (examined or {}).items()}


def _paired_scores(
    metric: str, new: ModelScores, champion: ModelScores | None
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return the champion's and the new score of each row, where the metric is their mean."""
    if champion is None:
        return {}
    before, after = _right(champion), _right(new)
    for model, right in ((champion, before), (new, after)):
        for number, each in model.items():
            value = each.metrics.get(metric, math.nan)
            if number not in right or not math.isclose(right[number].mean(), value, abs_tol=1e-6):
                return {}
    return {number: (before[number], after[number]) for number in after}


def _interval(
    scores: Mapping[int, tuple[np.ndarray, np.ndarray]],
    generator: np.random.Generator,
    *,
    average: bool,
) -> tuple[float, float] | None:
    if not scores:
        return None
    before = {number: pair[0] for number, pair in scores.items()}
    after = {number: pair[1] for number, pair in scores.items()}
    return difference_interval(before, after, generator, average=average)


def _mean(values: Mapping[int, float], weights: Mapping[int, int]) -> float | None:
    if not values or any(math.isnan(value) for value in values.values()):
        return None
    total = sum(weights[number] for number in values)
    return sum(weights[number] * value for number, value in values.items()) / total


def _entry(
    value: float | None,
    champion: float | None,
    *,
    at: int | None = None,
    bounds: tuple[float, float] | None = None,
) -> dict[str, Any]:
    low, high = bounds or (None, None)
    entry = {"value": value, "champion": champion, "low": low, "high": high}
    return {**{name: _rounded(each) for name, each in entry.items()}, "at": at}


def _difference(entry: Mapping[str, Any]) -> float | None:
    """Return the update's value minus the champion's, where both are known."""
    if entry["value"] is None or entry["champion"] is None:
        return None
    return _rounded(entry["value"] - entry["champion"])


def _rounded(value: float | None) -> float | None:
    """Return what JSON can hold, without the noise of sums: -0.01 for 0.94 - 0.95."""
    return None if value is None or not math.isfinite(value) else round(float(value), 8) + 0.0


def _shown(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.4f}"


def _place(figure: str, at: int | None) -> str:
    return "" if at is None else f" ({'class' if figure == CLASSES else 'holdout'} {at})"


def _change(outcome: Mapping[str, Any]) -> str:
    change = _difference(outcome)
    if change is None:
        return ""
    if outcome["low"] is None:
        return f"{change:+.4f}"
    noise = ", within noise" if within_noise((outcome["low"], outcome["high"])) else ""
    return f"{change:+.4f} ({outcome['low']:+.4f} to {outcome['high']:+.4f}{noise})"


def _outcome(outcome: Mapping[str, Any]) -> str:
    if outcome["margin"] is None:
        return "no champion" if outcome["passed"] else f"FAILED: {NOT_KNOWN}"
    if outcome["passed"]:
        return f"passed by {outcome['margin']:.4f}"
    return f"FAILED by {-outcome['margin']:.4f}"
