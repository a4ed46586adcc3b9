"""Parse the gate's rules in `export.promote`.

average_accuracy: {min: 0.90, max_drop: 0.01}
overall: {max_worsening: 2%}
worst_holdout: {max_drop: 0.05}
negative_flips: {max: 0.02}
classes: {max_drop: 0.1, 7: {min: 0.8}}
slices: {max_drop: 0.05, camera: {night: {min: 0.8}}}
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from renate_stages.errors import InvalidParamsError, did_you_mean
from renate_stages.files.typed import is_number

Limit = Literal["min", "max", "max_drop", "max_rise", "max_worsening"]
COMPARING = ("max_drop", "max_rise", "max_worsening")  # limits that need a model to compare with
SCOPES = ("average", "overall", "worst_holdout")
CLASSES, SLICES = "classes", "slices"
PARTS = {CLASSES: 1, SLICES: 2}  # figures that have parts, and the depth: label; field, value
CALIBRATION = "calibration_error"
FLIPS: dict[str, Limit] = {"negative_flips": "max", "positive_flips": "min"}
LOSS = "loss"
SHARES = (*FLIPS, *PARTS, CALIBRATION)  # figures that are in [0, 1] for every metric
WHERE = "export.promote"
MORE: tuple[Limit, ...] = ("min", "max_drop", "max_worsening")  # limits if higher is better
LESS: tuple[Limit, ...] = ("max", "max_rise", "max_worsening")


@dataclass(frozen=True)
class Rule:
    """One limit of one figure.

    Args:
        figure: Such as `average_accuracy`, `worst_holdout_accuracy`, `negative_flips`, `slices`.
        limit: `min` and `max` limit the figure itself; `max_drop`, `max_rise` and `max_worsening`
            limit how much worse than the opponent's it may be.
        allowed: The value of the limit.
        part: The part of `classes` or `slices`: `("7",)` is one class, `("camera",)` all values of a
            field, `("camera", "night")` one value, `()` every class or slice.
        lower: Whether lower values of the figure are better.
        percent: Whether `allowed` is a percentage of the opponent's value.
    """

    figure: str
    limit: Limit
    allowed: float
    part: tuple[str, ...] = ()
    lower: bool = False
    percent: bool = False

    @property
    def name(self) -> str:
        """The figure with its part, such as `slices.camera.night`."""
        return ".".join((self.figure, *self.part))

    @property
    def metric(self) -> str | None:
        """The metric of a figure such as `average_accuracy`; None for other figures."""
        scopes = (each for each in SCOPES if self.figure.startswith(f"{each}_"))
        scope = next(scopes, None)
        return None if scope is None else self.figure.removeprefix(f"{scope}_")

    @property
    def relative(self) -> bool:
        """Whether the rule needs an opponent to compare with."""
        return self.limit in COMPARING or self.figure in FLIPS

    @property
    def by_row(self) -> bool:
        """Whether the rule needs the model's prediction for each row, even without an opponent."""
        return self.figure in PARTS or self.figure == CALIBRATION


def read_rules(
    content: Any, metric: str, mode: Literal["max", "min"], fields: Collection[str] = ()
) -> tuple[Rule, ...]:
    """Parse the rules of `export.promote`; return them ordered by name.

    Args:
        content: A mapping from figures to their limits. `average`, `overall` and `worst_holdout`
            without a metric mean the headline metric. For other metrics than the headline and the
            loss, the limits say whether lower values are better. `classes` and `slices` may contain
            limits for all parts, and mappings for a label, a field, or a field and a value with
            other limits.
        metric: The headline metric.
        mode: Whether higher (`max`) or lower (`min`) values of it are better.
        fields: The metadata fields in `evaluation.slices`.

    Raises:
        InvalidParamsError: If there are problems; lists all of them.
    """
    if not isinstance(content, Mapping):
        expected = "a figure and its limits, such as average_accuracy: {max_drop: 0.01}"
        raise InvalidParamsError(WHERE, [f"{WHERE}: expected {expected}, found {content!r}"])
    known = _figures(metric, mode)
    problems: list[str] = []
    found: dict[tuple[str, str], Rule] = {}
    for given, below in content.items():
        figure = f"{given}_{metric}" if given in SCOPES else given
        other = str(given).startswith(tuple(f"{scope}_" for scope in SCOPES))
        if figure not in known and other:
            known[figure] = _of_other_metric(below)
        if figure not in known:
            hint = did_you_mean(str(given), [*known, *SCOPES])
            listed = ", ".join(sorted(known))
            problems.append(f"{WHERE}.{given}: unknown figure{hint} (known here: {listed})")
            continue
        for path, part, limits in _groups(f"{WHERE}.{given}", below, PARTS.get(figure, 0)):
            if problem := _group_problem(figure, part, limits, fields, known[figure]):
                problems.append(f"{path}: {problem}")
                continue
            for limit, value in limits.items():
                allowed, percent = _number(value) if limit in COMPARING else (value, False)
                lower = "max_rise" in known[figure]
                rule = Rule(figure, limit, allowed, part, lower, percent)
                problem = _problem(rule, known[figure])
                if problem is None and (rule.name, limit) in found:
                    problem = f"this limit is set more than once (also as {rule.name})"
                if problem is not None:
                    problems.append(f"{path}.{limit}: {problem}")
                else:
                    found[rule.name, limit] = replace(rule, allowed=float(allowed))
    if problems:
        raise InvalidParamsError(WHERE, problems)
    return tuple(rule for _, rule in sorted(found.items()))


def _groups(
    path: str, content: Any, depth: int, part: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield path, part and limits of each group of limits; limits of all parts come first."""
    if not depth or not isinstance(content, Mapping):
        yield path, part, content
        return
    below = {name: each for name, each in content.items() if isinstance(each, Mapping)}
    own = {name: each for name, each in content.items() if name not in below}
    if own or not below:
        yield path, part, own
    for name, each in below.items():
        yield from _groups(f"{path}.{name}", each, depth - 1, (*part, str(name)))


def _group_problem(
    figure: str,
    part: tuple[str, ...],
    limits: Any,
    fields: Collection[str],
    known: tuple[Limit, ...],
) -> str | None:
    """Return the problem of a group of limits or of its part, or None."""
    if figure == SLICES and not fields:
        return "evaluation.slices is empty, so there are no slices; add a metadata field to it"
    if figure == SLICES and part and part[0] not in fields:
        hint = did_you_mean(part[0], fields)
        return f"unknown field '{part[0]}'{hint} (evaluation.slices has: {', '.join(fields)})"
    if not isinstance(limits, Mapping) or not limits:
        return f"expected limits, such as {{{known[:2][-1]}: 0.01}}, found {limits!r}"
    return None


def _figures(metric: str, mode: str) -> dict[str, tuple[Limit, ...]]:
    """Return the limits that each figure can have; the one that needs no opponent comes first."""
    modes = {LOSS: LESS, metric: LESS if mode == "min" or metric == LOSS else MORE}
    figures: dict[str, tuple[Limit, ...]]
    figures = {f"{scope}_{name}": limits for name, limits in modes.items() for scope in SCOPES}
    figures |= {name: (limit,) for name, limit in FLIPS.items()}
    return {**figures, CLASSES: MORE, SLICES: MORE, CALIBRATION: LESS}


def _of_other_metric(limits: Any) -> tuple[Limit, ...]:
    """Return the limits that another metric than the headline can have.

    Whether lower is better is not known of it, so the first of its limits decides; `max_worsening`
    alone cannot.
    """
    given = limits if isinstance(limits, Mapping) else ()
    deciding = [limit for limit in given if limit in LESS[:2] + MORE[:2]]
    lower = bool(deciding) and deciding[0] in LESS
    return (LESS if lower else MORE)[: 3 if deciding else 2]


def _number(value: Any) -> tuple[Any, bool]:
    """Return the number of a limit such as 0.02 or 2%, and whether it is a percentage."""
    if isinstance(value, str) and value.rstrip().endswith("%"):
        try:
            return float(value.rstrip()[:-1]), True
        except ValueError:
            return value, False
    return value, False


def _problem(rule: Rule, known: tuple[Limit, ...]) -> str | None:
    """Return the problem of a limit, or None."""
    figure, limit, allowed = rule.figure, rule.limit, rule.allowed
    if limit == "max_worsening" and limit not in known:
        return (
            "it is unknown whether lower values of this metric are better: use max_drop or max_rise"
        )
    if limit not in known:
        better = "higher" if "min" in known else "lower"
        hint = did_you_mean(str(limit), known)
        if not hint and len(rule.part) < PARTS.get(figure, 0):
            hint = f"; for limits of one part, write {limit}: {{{known[0]}: 0.8}}"
        return (
            f"unknown limit{hint} (limits of {figure}, for which {better} is better: "
            f"{', '.join(known)})"
        )
    if not is_number(allowed):
        percent = " or a percentage such as 2%" if limit in COMPARING else ""
        return f"expected a finite number{percent}, found {allowed!r}"
    if limit in COMPARING and allowed < 0:
        return f"expected a number >= 0, found {allowed!r}"
    if figure in SHARES and not rule.percent and not 0 <= allowed <= 1:
        return f"expected a share from 0 to 1, found {allowed!r}"
    return None
