"""Apply the gate's rules to an update and the champion: `metrics/verdict.json`.

Rules compare the figures themselves with their limits. The intervals only show how much of a
difference may be noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import model_validator

from renate_stages import files
from renate_stages.errors import NoVerdictError
from renate_stages.evaluation.comparison import within_noise
from renate_stages.files import typed
from renate_stages.files.typed import Content, Ends, Figure, Finite, UpdateNumber
from renate_stages.gate.figures import Measured, difference, figure, rounded
from renate_stages.gate.parts import KINDS, Part, absent, accuracies
from renate_stages.params.rules import FLIPS, SCOPES, Rule
from renate_stages.randomness import Generators

NOT_KNOWN = "unknown"
ITSELF = (
    "There is no comparison, because this model is the champion. To see the comparison before its "
    "promotion, run `git show COMMIT:reports/update.md` with the commit from `renate-stages champion`."
)
COLUMNS = ("rule", "allowed", "update", "champion", "change (95 %)", "verdict")


class _Outcome(Ends):
    """The outcome of a rule; see `_outcome_of`."""

    value: Figure
    champion: Figure
    at: int | str | None
    allowed: Finite
    margin: Figure
    passed: bool
    why: str | None = None


class _Content(Content):
    """The whole file; values that old releases did not write have defaults."""

    passed: bool
    update: UpdateNumber
    champion_update: UpdateNumber
    is_champion: bool = False
    problem: str | None = None
    rules: dict[str, dict[str, _Outcome]]
    figures: dict[str, Any]

    @model_validator(mode="after")
    def _agrees_with_its_rules(self) -> _Content:
        outcomes = [outcome.passed for limits in self.rules.values() for outcome in limits.values()]
        if self.passed != all(outcomes):
            raise ValueError(f"passed is {self.passed}, but its rules give {all(outcomes)}")
        return self


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict on an update; `content` is `metrics/verdict.json`."""

    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return bool(self.content["passed"])

    @property
    def update(self) -> int:
        return int(self.content["update"])

    @property
    def champion(self) -> str:
        """The champion at the time of the verdict, for messages."""
        number = self.content["champion_update"]
        return f"update {number}" if number else "no champion"

    @property
    def is_champion(self) -> bool:
        """Whether the update itself was the champion, so that there was no comparison."""
        return bool(self.content.get("is_champion"))  # old releases did not write this key

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """Read `metrics/verdict.json`.

        Raises:
            NoVerdictError: If the file is missing.
            MalformedFileError: If it is malformed.
        """
        if not path.is_file():
            raise NoVerdictError(f"{path.name} is missing")
        return cls._of(files.read_json(path, typed.RUN_AGAIN), path)

    @classmethod
    def parse(cls, text: str, where: str) -> Verdict:
        """Parse the text of `metrics/verdict.json`.

        Args:
            text: The text.
            where: Its origin, for messages.

        Raises:
            MalformedFileError: If it is malformed.
        """
        return cls._of(typed.parse_json(text, where, typed.RUN_AGAIN), where)

    @classmethod
    def _of(cls, content: Any, where: Path | str) -> Verdict:
        typed.checked(_Content, content, where, "a verdict of the gate", typed.RUN_AGAIN)
        return cls(content)

    @property
    def rules(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Figure, limit and outcome of each rule."""
        return [
            (name, limit, outcome)
            for name, limits in self.content["rules"].items()
            for limit, outcome in limits.items()
        ]

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        failed = [f"{name} {limit}" for name, limit, each in self.rules if not each["passed"]]
        applied = sum(each["margin"] is not None for _, _, each in self.rules)
        skipped = len(self.rules) - applied
        if failed:
            result = f"refused: {', '.join(failed)}"
        elif not self.rules:
            result = "passed: export.promote has no rules"
        elif not applied:
            reason = (
                "itself is the champion" if self.is_champion else "has no champion to compare with"
            )
            result = f"not judged: none of the {skipped} rule(s) applies, since the update {reason}"
        else:
            result = f"passed: {applied} rule(s){f', {skipped} not applied' if skipped else ''}"
        role = ", the champion" if self.is_champion else f" against {self.champion}"
        return f"update {self.update}{role}: {result}"

    @property
    def failures(self) -> list[str]:
        """The failed rules, each with its place and margin."""
        return [
            f"{name} {limit}{_place(name, each)}: {_outcome(each)}"
            for name, limit, each in self.rules
            if not each["passed"]
        ]

    def table(self) -> list[tuple[str, ...]]:
        """Return a row for each rule: rule, allowed, update, champion, change, verdict."""
        none = "is the champion" if self.is_champion else "no champion"
        return [
            (
                f"{name} {limit}",
                _shown(each["allowed"]),
                _shown(each["value"]) + _place(name, each),
                _shown(each["champion"]),
                _change(each),
                _outcome(each, none),
            )
            for name, limit, each in self.rules
        ]


def section(verdict: Verdict) -> list[str]:
    """Return the report's section on the gate, as lines of Markdown."""
    problem = verdict.content.get("problem")
    lines = ["## Gate", "", f"{verdict.headline[0].upper()}{verdict.headline[1:]}.", ""]
    if problem:
        lines += [f"The champion could not be measured: {problem}", ""]
    if verdict.is_champion:
        lines += [ITSELF, ""]
    if verdict.rules:
        lines += [
            f"| {' | '.join(COLUMNS)} |",
            f"|{'|'.join('---' for _ in COLUMNS)}|",
            *(f"| {' | '.join(map(_cell, row))} |" for row in verdict.table()),
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
    """Compare an update with the champion by the rules.

    A rule that needs a champion is skipped without one, or if the update itself is the champion.
    A rule with an unknown figure fails. A rule on a part without rows always fails, and has a `why`.

    Args:
        rules: The rules in `export.promote`.
        measured: Measurements of both models on the same holdouts.
        metric: The headline metric, whose figures are always written.
        lower_is_better: Names of the metrics for which lower is better.
        generators: The update's generators; each figure has its own for the resamples.
    """
    lower = set(lower_is_better)
    rules = tuple(rules)
    always = (*(f"{scope}_{metric}" for scope in SCOPES), *FLIPS)
    wanted: dict[str, tuple[str, Part]] = {name: (name, ()) for name in always}
    wanted |= {rule.name: (rule.figure, rule.part) for rule in rules}
    figures = {
        name: figure(of, measured, lower, generators.numpy(f"gate.{name}"), part)
        for name, (of, part) in sorted(wanted.items())
    }
    outcomes: dict[str, dict[str, Any]] = {}
    for rule in rules:
        outcome = _outcome_of(rule, figures[rule.name], measured)
        outcomes.setdefault(rule.name, {})[rule.limit] = outcome
    return Verdict(
        {
            "passed": all(o["passed"] for limits in outcomes.values() for o in limits.values()),
            "update": measured.update,
            "champion_update": measured.champion_update,
            "is_champion": measured.relation == "itself",
            "problem": measured.problem,
            "rules": outcomes,
            "figures": {name: parts["own"] for name, parts in figures.items()},
        }
    )


def _outcome_of(
    rule: Rule, parts: Mapping[str, Mapping[str, Any]], measured: Measured
) -> dict[str, Any]:
    against = rule.limit in ("max_drop", "max_rise")
    part = parts["lost"] if against and "lost" in parts else parts["own"]
    value = difference(part) if against else part["value"]
    margin = None
    if value is not None:
        sign = 1 if rule.limit in ("min", "max_drop") else -1
        bound = -sign * rule.allowed if against else rule.allowed
        margin = rounded(sign * (value - bound))
    compared = measured.champion_update > 0 and measured.relation != "itself"
    counts = compared or not rule.relative
    why = None
    if rule.part:  # also without a comparison, because a misspelt name must never pass
        known = accuracies(rule.figure, measured.new, measured.slices)
        why = absent(rule.figure, rule.part, known)
    passed = why is None and (not counts or (margin is not None and margin >= 0))
    return {**part, "allowed": rule.allowed, "margin": margin, "passed": passed, "why": why}


def _shown(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.4f}"


def _place(name: str, outcome: Mapping[str, Any]) -> str:
    at = outcome["at"]
    return "" if at is None else f" ({KINDS.get(name.partition('.')[0], 'holdout')} {at})"


def _cell(text: str) -> str:
    """Escape a text for a Markdown table, because a slice's value may contain anything."""
    return " ".join(text.replace("|", "\\|").split())


def _change(outcome: Mapping[str, Any]) -> str:
    change = difference(outcome)
    if change is None:
        return ""
    if outcome["low"] is None:
        return f"{change:+.4f}"
    noise = ", within noise" if within_noise((outcome["low"], outcome["high"])) else ""
    return f"{change:+.4f} ({outcome['low']:+.4f} to {outcome['high']:+.4f}{noise})"


def _outcome(outcome: Mapping[str, Any], without: str = "") -> str:
    """Return the outcome of a rule as text; `without` is the text if nothing was compared."""
    if outcome["passed"]:
        return without if outcome["margin"] is None else f"passed by {outcome['margin']:.4f}"
    if outcome["margin"] is None:
        return f"FAILED: {outcome.get('why') or NOT_KNOWN}"
    return f"FAILED by {-outcome['margin']:.4f}"
