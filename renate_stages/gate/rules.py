"""What `export.promote` in params.yaml asks of an update.

average_accuracy: {min: 0.90, max_drop: 0.01}
worst_holdout: {max_drop: 0.05}
negative_flips: {max: 0.02}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from renate_stages.errors import InvalidParamsError, did_you_mean

Limit = Literal["min", "max", "max_drop", "max_rise"]
SCOPES = ("average", "overall", "worst_holdout")
CLASSES = "classes"
FLIPS: dict[str, Limit] = {"negative_flips": "max", "positive_flips": "min"}
LOSS = "loss"
SHARES = (*FLIPS, CLASSES)  # figures that lie in [0, 1], whatever the metric


@dataclass(frozen=True)
class Rule:
    """One limit of one figure.

    Args:
        figure: Such as `average_accuracy`, `worst_holdout_accuracy`, `negative_flips`, `classes`.
        limit: `min` and `max` bound the figure itself; `max_drop` and `max_rise` how far it may be
            worse than the champion's.
        allowed: The bound.
    """

    figure: str
    limit: Limit
    allowed: float

    @property
    def relative(self) -> bool:
        """Whether it needs a champion to compare with."""
        return self.limit in ("max_drop", "max_rise") or self.figure in FLIPS


def read_rules(content: Any, metric: str, mode: Literal["max", "min"]) -> tuple[Rule, ...]:
    """Return the rules of `export.promote`, in order of their names.

    Args:
        content: A mapping from figures to their limits. `average`, `overall` and `worst_holdout`
            alone are of the headline metric.
        metric: The headline metric.
        mode: Whether more of it is better.

    Raises:
        InvalidParamsError: With all problems at once.
    """
    where = "export.promote"
    if not isinstance(content, Mapping):
        expected = "a figure and its limits, such as average_accuracy: {max_drop: 0.01}"
        raise InvalidParamsError(where, [f"{where}: expected {expected}, found {content!r}"])
    known = _figures(metric, mode)
    problems: list[str] = []
    found: dict[tuple[str, str], Rule] = {}
    for given, limits in content.items():
        figure = f"{given}_{metric}" if given in SCOPES else given
        if figure not in known:
            hint = did_you_mean(str(given), [*known, *SCOPES])
            listed = ", ".join(sorted(known))
            problems.append(f"{where}.{given}: unknown figure{hint} (known here: {listed})")
        elif not isinstance(limits, Mapping) or not limits:
            one = known[figure][-1]
            problems.append(
                f"{where}.{given}: expected limits, such as {{{one}: 0.01}}, found {limits!r}"
            )
        else:
            for limit, allowed in limits.items():
                problem = _problem(figure, limit, allowed, known[figure])
                if problem is None and (figure, limit) in found:
                    problem = f"given twice, as {figure} too"
                if problem is not None:
                    problems.append(f"{where}.{given}.{limit}: {problem}")
                else:
                    found[figure, limit] = Rule(figure, limit, float(allowed))
    if problems:
        raise InvalidParamsError(where, problems)
    return tuple(rule for _, rule in sorted(found.items()))


def _figures(metric: str, mode: str) -> dict[str, tuple[Limit, ...]]:
    """Return the limits that each figure knows, the one that needs no champion first."""
    more: tuple[Limit, ...] = ("min", "max_drop")
    less: tuple[Limit, ...] = ("max", "max_rise")
    modes = {LOSS: less, metric: less if mode == "min" or metric == LOSS else more}
    figures = {f"{scope}_{name}": limits for name, limits in modes.items() for scope in SCOPES}
    return {**figures, **{name: (limit,) for name, limit in FLIPS.items()}, CLASSES: more}


def _problem(figure: str, limit: Any, allowed: Any, known: tuple[Limit, ...]) -> str | None:
    """Return what is wrong with a limit, or None."""
    if limit not in known:
        better = "more" if "min" in known else "less"
        return (
            f"unknown limit{did_you_mean(str(limit), known)} (of {figure}, of which {better} is "
            f"better: {', '.join(known)})"
        )
    if isinstance(allowed, bool) or not isinstance(allowed, int | float):
        return f"expected a number, found {allowed!r}"
    if not math.isfinite(allowed):
        return f"expected a finite number, found {allowed!r}"
    if limit in ("max_drop", "max_rise") and allowed < 0:
        return f"expected a number >= 0, found {allowed!r}"
    if figure in SHARES and not 0 <= allowed <= 1:
        return f"expected a share from 0 to 1, found {allowed!r}"
    return None
