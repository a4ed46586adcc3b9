"""Apply the gate's rules to the measurements of an update and its opponent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from renate_stages.evaluation.figures import interval_generator
from renate_stages.gate.figures import Measured, difference, figure, rounded
from renate_stages.gate.parts import absent, accuracies
from renate_stages.gate.verdict import Verdict
from renate_stages.params.rules import COMPARING, FLIPS, SCOPES, Rule
from renate_stages.randomness import Generators


def judge(
    rules: Iterable[Rule],
    measured: Measured,
    metric: str,
    lower_is_better: Iterable[str],
    generators: Generators,
) -> Verdict:
    """Compare an update with its opponent by the rules.

    A rule that needs an opponent is skipped without one, or if the update itself is the champion.
    A rule with an unknown figure fails. A rule on a part without rows always fails, and has a `why`.
    If no rule was applied, the update has not passed.

    Args:
        rules: The rules in `export.promote`.
        measured: Measurements of both models on the same holdouts.
        metric: The headline metric, whose figures are always written.
        lower_is_better: Names of the metrics for which lower is better.
        generators: The update's generators; each figure has its own for the resamples.
    """
    rules = tuple(rules)
    lower = metric in set(lower_is_better)
    always = [Rule(f"{scope}_{metric}", "min", 0, lower=lower) for scope in SCOPES]
    always += [Rule(name, limit, 0) for name, limit in FLIPS.items()]

    changes = [f"{scope}_{metric}" for scope in ("average", "overall")]  # the report's `change`
    known: dict[tuple[str, bool], dict[str, dict[str, Any]]] = {}

    def parts_of(rule: Rule) -> dict[str, dict[str, Any]]:
        key = rule.name, rule.percent
        if key not in known:
            drawn = generators.numpy(f"gate.{rule.name}")
            if rule.name in changes:
                drawn = interval_generator(generators, "change")
            known[key] = figure(rule.figure, measured, rule.lower, drawn, rule.part, rule.percent)
        return known[key]

    figures = {rule.name: parts_of(rule)["own"] for rule in (*always, *rules)}
    outcomes: dict[str, dict[str, Any]] = {}
    for rule in rules:
        outcome = _outcome_of(rule, parts_of(rule), measured)
        outcomes.setdefault(rule.name, {})[rule.limit] = outcome
    results = [outcome for limits in outcomes.values() for outcome in limits.values()]
    applied = any(each["margin"] is not None or not each["passed"] for each in results)
    return Verdict(
        {
            "passed": applied and all(each["passed"] for each in results),
            "update": measured.update,
            "champion_update": measured.champion_update,
            "is_champion": measured.relation == "itself",
            "against": measured.against,
            "parent_update": measured.parent_update,
            "problem": measured.problem,
            "rules": outcomes,
            "figures": dict(sorted(figures.items())),
        }
    )


def _outcome_of(
    rule: Rule, parts: Mapping[str, Mapping[str, Any]], measured: Measured
) -> dict[str, Any]:
    compares = rule.limit in COMPARING
    part = parts["lost"] if compares and "lost" in parts else parts["own"]
    value = difference(part) if compares else part["value"]
    margin = None
    if value is not None and compares:
        allowed = rule.allowed / 100 * abs(part["opponent"]) if rule.percent else rule.allowed
        margin = rounded(allowed - value if rule.lower else allowed + value)
    elif value is not None:
        margin = rounded(value - rule.allowed if rule.limit == "min" else rule.allowed - value)
    counts = measured.against is not None or not rule.relative
    why = None
    if rule.part:  # also without a comparison, because a misspelt name must never pass
        known = accuracies(rule.figure, measured.new, measured.slices, measured.names)
        why = absent(rule.figure, rule.part, known)
    passed = why is None and (not counts or (margin is not None and margin >= 0))
    return {
        **part,
        "allowed": rule.allowed,
        "percent": rule.percent,
        "margin": margin,
        "passed": passed,
        "why": why,
    }
