"""The gate's rules in `export.promote`.

average_accuracy: {min: 0.90, max_drop: 0.01}
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

Limit = Literal["min", "max", "max_drop", "max_rise"]
SCOPES = ("average", "overall", "worst_holdout")
CLASSES, SLICES = "classes", "slices"
PARTS = {CLASSES: 1, SLICES: 2}  # figures of parts, and how many names one has: label; field, value
CALIBRATION = "calibration_error"
FLIPS: dict[str, Limit] = {"negative_flips": "max", "positive_flips": "min"}
LOSS = "loss"
SHARES = (*FLIPS, *PARTS, CALIBRATION)  # figures that lie in [0, 1], whatever the metric
WHERE = "export.promote"


@dataclass(frozen=True)
class Rule:
    """One limit of one figure.

    Args:
        figure: Such as `average_accuracy`, `worst_holdout_accuracy`, `negative_flips`, `slices`.
        limit: `min` and `max` bound the figure itself; `max_drop` and `max_rise` how far it may be
            worse than the champion's.
        allowed: The bound.
        part: Of `classes` and `slices`, which are meant: `("7",)` is one class, `("camera",)` all
            values of a field, `("camera", "night")` one of them, `()` every one there is.
    """

    figure: str
    limit: Limit
    allowed: float
    part: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The figure with its part, as params.yaml leads to it: `slices.camera.night`."""
        return ".".join((self.figure, *self.part))

    @property
    def relative(self) -> bool:
        """Whether it needs a champion to compare with."""
        return self.limit in ("max_drop", "max_rise") or self.figure in FLIPS

    @property
    def by_row(self) -> bool:
        """Whether it needs the update's answer to each row, champion or not."""
        return self.figure in PARTS or self.figure == CALIBRATION


def read_rules(
    content: Any, metric: str, mode: Literal["max", "min"], fields: Collection[str] = ()
) -> tuple[Rule, ...]:
    """Return the rules of `export.promote`, in order of their names.

    Args:
        content: A mapping from figures to their limits. `average`, `overall` and `worst_holdout`
            alone are of the headline metric. Below `classes` and `slices` may stand, beside limits
            of every one, a label, a field, or a field and a value with limits of their own.
        metric: The headline metric.
        mode: Whether more of it is better.
        fields: Of `evaluation.slices`: what there are slices by.

    Raises:
        InvalidParamsError: With all problems at once.
    """
    if not isinstance(content, Mapping):
        expected = "a figure and its limits, such as average_accuracy: {max_drop: 0.01}"
        raise InvalidParamsError(WHERE, [f"{WHERE}: expected {expected}, found {content!r}"])
    known = _figures(metric, mode)
    problems: list[str] = []
    found: dict[tuple[str, str], Rule] = {}
    for given, below in content.items():
        figure = f"{given}_{metric}" if given in SCOPES else given
        if figure not in known:
            hint = did_you_mean(str(given), [*known, *SCOPES])
            listed = ", ".join(sorted(known))
            problems.append(f"{WHERE}.{given}: unknown figure{hint} (known here: {listed})")
            continue
        for path, part, limits in _groups(f"{WHERE}.{given}", below, PARTS.get(figure, 0)):
            if problem := _group_problem(figure, part, limits, fields, known[figure]):
                problems.append(f"{path}: {problem}")
                continue
            for limit, allowed in limits.items():
                rule = Rule(figure, limit, allowed, part)
                problem = _problem(rule, known[figure])
                if problem is None and (rule.name, limit) in found:
                    problem = f"given twice, as {rule.name} too"
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
    """Yield where limits stand, the part they are of, and they themselves: first those of all."""
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
    """Return what is wrong with limits as a whole, or with the part they are of, or None."""
    if figure == SLICES and not fields:
        return "evaluation.slices is empty, so there are no slices: name a metadata field there"
    if figure == SLICES and part and part[0] not in fields:
        hint = did_you_mean(part[0], fields)
        return f"unknown field '{part[0]}'{hint} (evaluation.slices has: {', '.join(fields)})"
    if figure == CLASSES and part and not part[0].removeprefix("-").isdecimal():
        return f"expected a class label, a whole number, found '{part[0]}'"
    if not isinstance(limits, Mapping) or not limits:
        return f"expected limits, such as {{{known[-1]}: 0.01}}, found {limits!r}"
    return None


def _figures(metric: str, mode: str) -> dict[str, tuple[Limit, ...]]:
    """Return the limits that each figure knows, the one that needs no champion first."""
    more: tuple[Limit, ...] = ("min", "max_drop")
    less: tuple[Limit, ...] = ("max", "max_rise")
    modes = {LOSS: less, metric: less if mode == "min" or metric == LOSS else more}
    figures: dict[str, tuple[Limit, ...]]
    figures = {f"{scope}_{name}": limits for name, limits in modes.items() for scope in SCOPES}
    figures |= {name: (limit,) for name, limit in FLIPS.items()}
    return {**figures, CLASSES: more, SLICES: more, CALIBRATION: less}


def _problem(rule: Rule, known: tuple[Limit, ...]) -> str | None:
    """Return what is wrong with a limit, or None."""
    figure, limit, allowed = rule.figure, rule.limit, rule.allowed
    if limit not in known:
        better = "more" if "min" in known else "less"
        hint = did_you_mean(str(limit), known)
        if not hint and len(rule.part) < PARTS.get(figure, 0):
            hint = f"; a part has limits of its own: {limit}: {{{known[0]}: 0.8}}"
        return f"unknown limit{hint} (of {figure}, of which {better} is better: {', '.join(known)})"
    if not is_number(allowed):
        return f"expected a finite number, found {allowed!r}"
    if limit in ("max_drop", "max_rise") and allowed < 0:
        return f"expected a number >= 0, found {allowed!r}"
    if figure in SHARES and not 0 <= allowed <= 1:
        return f"expected a share from 0 to 1, found {allowed!r}"
    return None
