"""Compute figures of update and opponent on the same holdouts, for the gate's rules.

The opponent is the champion, or without one the parent's model.

With a[i] the metric on holdout i:

    average          mean over i of a[i]
    overall          the metric on the rows of all holdouts
    worst_holdout    `min`: the lowest a[i]; `max_drop`: the largest drop from the opponent on a
                     holdout. It is not the difference of the two lowest values: the opponent has
                     not learnt the newest holdout, so its lowest value would hide all other drops.
    classes          the same for the accuracy of each class over all holdouts together
    slices           the same for each value of each field in `evaluation.slices`
    calibration_error
                     over all holdouts together, see `evaluation.calibration`
    negative_flips   share of all rows on which the opponent is correct and the update wrong
    positive_flips   share of all rows on which the opponent is wrong and the update correct

A difference has an interval (95 %, paired bootstrap); for a class or a slice, it is computed from the
rows of that part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from renate_stages.evaluation.comparison import difference_interval, flips
from renate_stages.evaluation.examined import Examined, ExaminedHoldouts
from renate_stages.evaluation.figures import Answers
from renate_stages.evaluation.intervals import metric_difference_interval
from renate_stages.gate.parts import Part, Slices, accuracies, rows_of
from renate_stages.params.rules import CALIBRATION, CLASSES, FLIPS, PARTS, SCOPES

ModelScores = Mapping[int, Examined]
Place = int | Part  # a holdout, or a part


@dataclass(frozen=True)
class Measured:
    """Measurements of the update's model and its opponent: the champion, or else the parent's model.

    Args:
        update: Number of the update.
        new: Results of the update's model on each holdout.
        champion_update: Number of the champion's update; 0 without a champion.
        opponent: Results of the opponent on the same holdouts; None if there is no opponent, or it
            fails.
        problem: Why the opponent could not be measured.
        slices: For each field of `evaluation.slices` and holdout, the value of each row, `(rows,)`.
        relation: Whether the champion's model is the update's `parent`, the update `itself` or
            `another` one.
        parent_update: Number of the parent's update, if its model is the opponent; otherwise None.
        names: Names of the labels; empty if labels are numbers.
    """

    update: int
    new: ExaminedHoldouts
    champion_update: int = 0
    opponent: ExaminedHoldouts | None = None
    problem: str | None = None
    slices: Slices = field(default_factory=dict)
    relation: Literal["another", "parent", "itself"] = "another"
    parent_update: int | None = None
    names: Sequence[str] = ()

    @property
    def against(self) -> Literal["champion", "parent"] | None:
        """The opponent's role; None without an opponent."""
        if self.champion_update and self.relation != "itself":
            return "champion"
        return None if self.parent_update is None else "parent"


def figure(
    name: str,
    measured: Measured,
    lower: bool,
    generator: np.random.Generator,
    part: Part = (),
    percent: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return a figure: its `own` entry, and an entry `lost` for the place with the largest drop.

    Only `worst_holdout`, `classes` and `slices` have the entry `lost`.

    Args:
        name: `<scope>_<metric>`, `classes`, `slices`, `calibration_error`, or a figure of flips.
        measured: Measurements of both models.
        lower: Whether lower values of the metric are better.
        generator: Draws the resamples.
        part: The part of `classes` or `slices` to restrict the figure to.
        percent: Whether the largest drop is relative to the opponent's value.
    """
    new, opponent = measured.new, measured.opponent
    if name in FLIPS:
        return {"own": _entry(_flips(name, new, opponent), None)}
    if name == CALIBRATION:
        return {"own": _entry(_calibration(new), _calibration(opponent))}
    if name in PARTS:
        return _of_parts(name, part, measured, generator, percent)
    scope = next(scope for scope in SCOPES if name.startswith(f"{scope}_"))
    metric = name.removeprefix(f"{scope}_")
    ours, theirs = _values(new, metric), _values(opponent, metric)
    before = opponent or {}

    def bounds_on(*numbers: int) -> tuple[float, float] | None:
        old, now = ({n: each[n] for n in numbers if n in each} for each in (before, new))
        average = scope == "average"
        return metric_difference_interval(metric, old, now, generator, average=average)

    if scope == "worst_holdout":
        return _worst(ours, theirs, lower, percent, bounds_on)
    bounds = bounds_on(*new)
    if scope == "average":
        return {"own": _entry(_mean(ours), _mean(theirs), bounds=bounds)}
    own, old = (rounded(each.together.get(metric)) if each else None for each in (new, opponent))
    return {"own": _entry(own, old, bounds=bounds)}


def _of_parts(
    name: str, part: Part, measured: Measured, generator: np.random.Generator, percent: bool
) -> dict[str, dict[str, Any]]:
    new, opponent, slices = measured.new, measured.opponent, measured.slices
    ours, theirs = (
        {
            p: v
            for p, v in accuracies(name, each, slices, measured.names).items()
            if p[: len(part)] == part
        }
        for each in (new, opponent)
    )
    scores = _row_scores(new, opponent or {})

    def on_part(place: Part) -> tuple[float, float] | None:
        inside = rows_of(place, new, slices, measured.names)
        own = {n: (old[inside[n]], now[inside[n]]) for n, (old, now) in scores.items()}
        return _interval({n: pair for n, pair in own.items() if len(pair[0])}, generator)

    return _worst(ours, theirs, False, percent, on_part)


def _worst(
    ours: Mapping[Any, float],
    theirs: Mapping[Any, float],
    lower: bool,
    percent: bool,
    bounds: Callable[[Any], tuple[float, float] | None],
) -> dict[str, dict[str, Any]]:
    """Return the worst of several places and the one with the largest drop; first one in a tie."""
    sign = -1 if lower else 1
    known = {n: v for n, v in ours.items() if not math.isnan(v)}
    if not known:
        return {"own": _entry(None, None)}
    worst = min(known, key=lambda n: sign * known[n])
    parts = {"own": _entry(ours[worst], theirs.get(worst), at=worst)}
    changes = {
        n: sign * (known[n] - theirs[n]) for n in known if not math.isnan(theirs.get(n, math.nan))
    }
    if changes:

        def change(place: Any) -> float:
            if not percent or not changes[place]:
                return changes[place]
            base = abs(theirs[place])
            return changes[place] / base if base else math.copysign(math.inf, changes[place])

        lost = min(changes, key=change)
        parts["lost"] = _entry(ours[lost], theirs[lost], at=lost, bounds=bounds(lost))
    return parts


def _flips(name: str, new: ModelScores, opponent: ModelScores | None) -> float | None:
    before, after = _right(opponent or {}), _right(new)
    if not before.keys() & after.keys():
        return None
    result = flips(before, after)
    return result.negative if name == "negative_flips" else result.positive


def _right(examined: ModelScores) -> dict[int, np.ndarray]:
    return {
        number: each.predictions.correct
        for number, each in examined.items()
        if each.predictions is not None
    }


def _calibration(examined: ModelScores | None) -> float:
    return Answers(examined or {}).calibration()


def _values(examined: ModelScores | None, metric: str) -> dict[int, float]:
    return {n: each.metrics.get(metric, math.nan) for n, each in (examined or {}).items()}


def _row_scores(
    new: ModelScores, opponent: ModelScores
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return whether the opponent and the new model are correct on each row, by holdout."""
    before, after = _right(opponent), _right(new)
    return {number: (before[number], after[number]) for number in after if number in before}


def _interval(
    scores: Mapping[int, tuple[np.ndarray, np.ndarray]], generator: np.random.Generator
) -> tuple[float, float] | None:
    if not scores:
        return None
    before = {number: pair[0] for number, pair in scores.items()}
    after = {number: pair[1] for number, pair in scores.items()}
    return difference_interval(before, after, generator, average=False)


def _mean(values: Mapping[int, float]) -> float | None:
    if not values or any(math.isnan(value) for value in values.values()):
        return None
    return sum(values.values()) / len(values)


def _entry(
    value: float | None,
    opponent: float | None,
    *,
    at: Place | None = None,
    bounds: tuple[float, float] | None = None,
) -> dict[str, Any]:
    low, high = bounds or (None, None)
    entry = {"value": value, "opponent": opponent, "low": low, "high": high}
    return {**{name: rounded(each) for name, each in entry.items()}, "at": _written(at)}


def _written(place: Place | None) -> int | str | None:
    """Return a place in the verdict's form: a holdout's number, a label, or field and value."""
    if not isinstance(place, tuple):
        return place
    if len(place) == PARTS[CLASSES] and place[0].removeprefix("-").isdecimal():
        return int(place[0])
    return " ".join(place)


def difference(entry: Mapping[str, Any]) -> float | None:
    """Return the update's value minus the opponent's; None if one of them is unknown."""
    if entry["value"] is None or entry["opponent"] is None:
        return None
    return rounded(entry["value"] - entry["opponent"])


def rounded(value: float | None) -> float | None:
    """Round a value for JSON, so that 0.94 - 0.95 is -0.01; None if it is not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), 8) + 0.0
