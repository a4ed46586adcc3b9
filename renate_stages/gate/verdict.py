"""Apply the gate's rules to two models: `metrics/verdict.json`.

The figures themselves are held against the rules; the interval says how much of a difference is noise.
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

NOT_KNOWN = "not known"
ITSELF = (
    "Nothing is compared, since the champion is this very model. The comparison that it was promoted "
    "on: `git show COMMIT:reports/update.md`, with the commit that `renate-stages champion` names."
)
COLUMNS = ("rule", "allowed", "update", "champion", "change (95 %)", "verdict")


class _Outcome(Ends):
    """How a rule ended; see `_outcome_of`."""

    value: Figure
    champion: Figure
    at: int | str | None
    allowed: Finite
    margin: Figure
    passed: bool
    why: str | None = None


class _Content(Content):
    """The file; what an older release did not write has a default."""

    passed: bool
    update: UpdateNumber
    champion_update: UpdateNumber
    is_champion: bool = False
    problem: str | None = None
    rules: dict[str, dict[str, _Outcome]]
    figures: dict[str, Any]

    @model_validator(mode="after")
    def _agrees_with_its_rules(self) -> _Content:
        each = [outcome.passed for limits in self.rules.values() for outcome in limits.values()]
        if self.passed != all(each):
            raise ValueError(f"passed is {self.passed}, and its rules say {all(each)}")
        return self


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
        """The champion that there was, as a user speaks of it."""
        number = self.content["champion_update"]
        return f"update {number}" if number else "no champion"

    @property
    def is_champion(self) -> bool:
        """Whether the update was champion itself when it was judged, and so compared with none."""
        return bool(self.content.get("is_champion"))  # an older release does not say

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """Read `metrics/verdict.json`.

        Raises:
            NoVerdictError: If there is none.
            MalformedFileError: If it is something else.
        """
        if not path.is_file():
            raise NoVerdictError(f"{path.name} is missing")
        return cls._of(files.read_json(path, typed.RUN_AGAIN), path)

    @classmethod
    def parse(cls, text: str, where: str) -> Verdict:
        """Read the text of `metrics/verdict.json`, from the place that errors name.

        Raises:
            MalformedFileError: If it is something else.
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
        if failed:
            said = f"refused: {', '.join(failed)}"
        elif not self.rules:
            said = "passed: export.promote has no rules"
        else:
            said = f"passed: {len(self.rules)} rule(s)"
        beside = ", the champion" if self.is_champion else f" against {self.champion}"
        return f"update {self.update}{beside}: {said}"

    @property
    def failures(self) -> list[str]:
        """Each rule that failed, where, and by how much."""
        return [
            f"{name} {limit}{_place(name, each)}: {_outcome(each)}"
            for name, limit, each in self.rules
            if not each["passed"]
        ]

    def table(self) -> list[tuple[str, ...]]:
        """Return a row for each rule: rule, allowed, update, champion, change, by how much."""
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
    """Hold an update against the champion and the rules.

    A rule that needs a champion counts where there is one, and it is not the update itself. One
    whose figure is not known fails; one on a part that no row is in always does, and says `why`.

    Args:
        rules: Of `export.promote`.
        measured: Both models on the same holdouts.
        metric: The headline metric, whose figures are written whether ruled on or not.
        lower_is_better: Names of the metrics of which less is better.
        generators: Of the update; one of its own draws the resamples of each figure.
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
    found = difference(part) if against else part["value"]
    margin = None
    if found is not None:
        sign = 1 if rule.limit in ("min", "max_drop") else -1
        bound = -sign * rule.allowed if against else rule.allowed
        margin = rounded(sign * (found - bound))
    compared = measured.champion_update > 0 and measured.relation != "itself"
    counts = compared or not rule.relative
    why = None
    if rule.part:  # also where nothing is compared: a name that fits nothing never passes
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
    """Return a text as a cell of Markdown: a slice's value may hold anything."""
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
    """Say how a rule ended; `without`: what is said of one that has nothing to compare with."""
    if outcome["passed"]:
        return without if outcome["margin"] is None else f"passed by {outcome['margin']:.4f}"
    if outcome["margin"] is None:
        return f"FAILED: {outcome.get('why') or NOT_KNOWN}"
    return f"FAILED by {-outcome['margin']:.4f}"
