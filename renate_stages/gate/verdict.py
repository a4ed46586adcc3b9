"""The gate's verdict on an update, `reports/verdict.json`: read, checked and shown.

Rules compare the figures themselves with their limits. The intervals only show how much of a
difference may be noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from renate_stages import files
from renate_stages.errors import NoVerdictError
from renate_stages.errors.wording import counted
from renate_stages.evaluation.comparison import within_noise
from renate_stages.files import typed
from renate_stages.files.typed import Content, Ends, Figure, Finite, UpdateNumber
from renate_stages.gate.figures import difference
from renate_stages.gate.parts import KINDS
from renate_stages.params.rules import COMPARING

NOT_KNOWN = "unknown"
ROUNDING = 1e-8  # of margins, which have eight digits
ITSELF = (
    "There is no comparison, because this model is the champion. To see the comparison before its "
    "promotion, run `git show COMMIT:reports/update.md` with the commit from `renate-stages champion`."
)


class _Outcome(Ends):
    """The outcome of a rule; see `judging.judge`."""

    value: Figure
    opponent: Figure
    at: int | str | None
    allowed: Finite
    percent: bool = False
    margin: Figure
    passed: bool
    why: str | None = None

    @property
    def applied(self) -> bool:
        """Whether the rule could be applied; a rule that fails for lack of a figure was applied."""
        return self.margin is not None or not self.passed


class _Content(Content):
    """The whole file; values that old releases did not write have defaults."""

    passed: bool
    update: UpdateNumber
    champion_update: UpdateNumber
    is_champion: bool = False
    against: Literal["champion", "parent"] | None = None
    parent_update: UpdateNumber | None = None
    problem: str | None = None
    rules: dict[str, dict[str, _Outcome]]
    figures: dict[str, Any]

    @model_validator(mode="after")
    def _agrees_with_its_rules(self) -> _Content:
        outcomes = [outcome for limits in self.rules.values() for outcome in limits.values()]
        passed = any(each.applied for each in outcomes) and all(each.passed for each in outcomes)
        if self.passed != passed:
            raise ValueError(f"passed is {self.passed}, but its rules give {passed}")
        return self


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict on an update; `content` is `reports/verdict.json`."""

    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether at least one rule was applied, and all of those passed."""
        return bool(self.content["passed"])

    @property
    def refused(self) -> bool:
        """Whether a rule failed. A verdict may be neither passed nor refused: not judged."""
        return any(not each["passed"] for _, _, each in self.rules)

    @property
    def update(self) -> int:
        return int(self.content["update"])

    @property
    def opponent(self) -> str:
        """The model that the update was compared with, for messages."""
        against = self.content.get("against")
        if against == "parent":
            return f"its parent, {_update(self.content['parent_update'])}"
        return (
            f"the champion, {_update(self.content['champion_update'])}" if against else "no model"
        )

    @property
    def problem(self) -> str | None:
        """Why the opponent could not be measured, as a sentence without a full stop."""
        problem = self.content.get("problem")
        return f"{self.opponent}, could not be measured: {problem}" if problem else None

    @property
    def is_champion(self) -> bool:
        """Whether the update itself was the champion, so that there was no comparison."""
        return bool(self.content.get("is_champion"))  # old releases did not write this key

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """Read `reports/verdict.json`.

        Raises:
            NoVerdictError: If the file is missing.
            MalformedFileError: If it is malformed.
        """
        if not path.is_file():
            raise NoVerdictError(f"{path.name} is missing")
        return cls._of(files.read_json(path, typed.RUN_AGAIN), path)

    @classmethod
    def parse(cls, text: str, where: str) -> Verdict:
        """Parse the text of `reports/verdict.json`.

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

    def metrics(self) -> dict[str, Any]:
        """Return `metrics/gate.json`: what `dvc metrics diff` compares between updates."""
        figures = {
            name: {"value": each["value"], "change": difference(each)}
            for name, each in self.content["figures"].items()
        }
        counts = {
            "rules": len(self.rules),
            "failed": sum(not each["passed"] for _, _, each in self.rules),
        }
        return {"update": self.update, "passed": self.passed, **counts, "figures": figures}

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        failed = [f"{name} {limit}" for name, limit, each in self.rules if not each["passed"]]
        applied = sum(each["margin"] is not None for _, _, each in self.rules)
        skipped = len(self.rules) - applied
        if failed:
            result = f"refused: {', '.join(failed)}"
        elif not self.rules:
            result = "not judged: export.promote has no rules"
        elif not applied:
            reason = (
                "itself is the champion"
                if self.is_champion
                else "has neither champion nor parent model to compare with"
            )
            rules = counted(skipped, "rule")
            result = f"not judged: {rules} not applied, since the update {reason}"
        else:
            result = (
                f"passed: {counted(applied, 'rule')}{f', {skipped} not applied' if skipped else ''}"
            )
        role = f" against {self.opponent}" if self.content.get("against") else ""
        role = ", the champion" if self.is_champion else role
        return f"update {self.update}{role}: {result}"

    @property
    def failures(self) -> list[str]:
        """The failed rules, each with its place and margin."""
        return [
            f"{name} {limit}{_place(name, limit, each)}: {_outcome(each)}"
            for name, limit, each in self.rules
            if not each["passed"]
        ]

    @property
    def columns(self) -> tuple[str, ...]:
        """The header of `table`."""
        opponent = self.content.get("against") or "champion"
        return "rule", "allowed", "update", opponent, "change (95 %)", "verdict"

    def table(self) -> list[tuple[str, ...]]:
        """Return a row for each rule; `columns` names its cells."""
        none = "is the champion" if self.is_champion else "no other model"
        return [
            (
                f"{name} {limit}",
                f"{each['allowed']:g} %" if each.get("percent") else _shown(each["allowed"]),
                _shown(each["value"]) + _place(name, limit, each),
                _shown(each["opponent"]),
                _change(each),
                _outcome(each, none),
            )
            for name, limit, each in self.rules
        ]


def section(verdict: Verdict) -> list[str]:
    """Return the report's section on the gate, as lines of Markdown."""
    lines = ["## Gate", "", f"{verdict.headline[0].upper()}{verdict.headline[1:]}.", ""]
    if problem := verdict.problem:
        lines += [f"{problem[0].upper()}{problem[1:]}", ""]
    if verdict.is_champion:
        lines += [ITSELF, ""]
    if verdict.rules:
        lines += [
            f"| {' | '.join(verdict.columns)} |",
            f"|{'|'.join('---' for _ in verdict.columns)}|",
            *(f"| {' | '.join(map(_cell, row))} |" for row in verdict.table()),
            "",
        ]
    return lines


def _update(number: int) -> str:
    return f"update {number}" if number else "the first state"


def _shown(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.4f}"


def _place(name: str, limit: str, outcome: Mapping[str, Any]) -> str:
    at = outcome["at"]
    if at is None:
        return ""
    place = f"{KINDS.get(name.partition('.')[0], 'holdout')} {at}"
    if limit not in COMPARING or outcome["opponent"] is None or "." in name:
        return f" ({place})"
    return f" ({place} {'lost most' if _worsened(outcome) else 'gained least'})"


def _worsened(outcome: Mapping[str, Any]) -> bool:
    """Return whether the update is worse than the opponent, in a figure with a relative limit."""
    allowed, margin = outcome["allowed"], outcome["margin"]
    if outcome.get("percent"):
        allowed *= abs(outcome["opponent"]) / 100
    return margin is not None and allowed - margin > ROUNDING


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
