"""The figures of update and champion on the same holdouts, which the rules are applied to.

With a[i] the metric on holdout i, n[i] its rows:

    average          mean over i of a[i]
    overall          sum over i of n[i] a[i] / sum over i of n[i]
    worst_holdout    `min`: the lowest a[i]; `max_drop`: the holdout that lost most to the champion.
                     Not the difference of the two lowest: the champion never learnt the newest
                     holdout, and against its figure there every loss elsewhere would pass.
    classes          likewise, over the accuracy of each class on all holdouts as one
    slices           likewise, of each value of each field of `evaluation.slices`
    calibration_error
                     of all holdouts as one, see `evaluation.calibration`
    negative_flips   share of all rows that the champion had right and the update has wrong
    positive_flips   the reverse

Beside a difference stands its interval (95 %, paired bootstrap), where the figure is a share of right
answers; that of a class or a slice is drawn from its own rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from renate_stages.evaluation.comparison import difference_interval, flips
from renate_stages.evaluation.examined import Examined
from renate_stages.evaluation.figures import Answers
from renate_stages.gate.parts import Part, Slices, accuracies, rows_of
from renate_stages.params.rules import CALIBRATION, CLASSES, FLIPS, PARTS, SCOPES

ModelScores = Mapping[int, Examined]
Place = int | Part  # a holdout, or a part


@dataclass(frozen=True)
class Measured:
    """What there is to judge.

    Args:
        update: Number of the update.
        new: Its model on each holdout.
        champion_update: Number of the champion's update, 0 where there is no champion.
        champion: The champion's model on the same holdouts; None: there is none, it fails, or it is
            the update's own.
        problem: Why the champion could not be measured.
        slices: For each field of `evaluation.slices` and holdout, the value of each row, `(rows,)`.
        relation: What the champion's model is to the update: its parent's, or its own.
    """

    update: int
    new: ModelScores
    champion_update: int = 0
    champion: ModelScores | None = None
    problem: str | None = None
    slices: Slices = field(default_factory=dict)
    relation: Literal["another", "parent", "itself"] = "another"


def figure(
    name: str,
    measured: Measured,
    lower: set[str],
    generator: np.random.Generator,
    part: Part = (),
) -> dict[str, dict[str, Any]]:
    """Return a figure as its `own` part and, where the two differ, as `lost` that which lost most.

    Args:
        name: `<scope>_<metric>`, `classes`, `slices`, `calibration_error`, or of flips.
        measured: Both models.
        lower: Names of the metrics of which less is better.
        generator: Draws the resamples.
        part: Of `classes` and `slices`, to which it is narrowed.
    """
    new, champion = measured.new, measured.champion
    if name in FLIPS:
        return {"own": _entry(_flips(name, new, champion), None)}
    if name == CALIBRATION:
        return {"own": _entry(_calibration(new), _calibration(champion))}
    if name in PARTS:
        return _of_parts(name, part, measured, generator)
    scope = next(scope for scope in SCOPES if name.startswith(f"{scope}_"))
    metric = name.removeprefix(f"{scope}_")
    ours, theirs = _values(new, metric), _values(champion, metric)
    scores = _paired_scores(metric, new, champion)
    if scope == "worst_holdout":

        def on_holdout(number: int) -> tuple[float, float] | None:
            return _interval({n: scores[n] for n in scores if n == number}, generator)

        return _worst(ours, theirs, metric in lower, on_holdout)
    average = scope == "average"
    rows = {number: 1 if average else each.rows for number, each in new.items()}
    bounds = _interval(scores, generator, average=average)
    return {"own": _entry(_mean(ours, rows), _mean(theirs, rows), bounds=bounds)}


def _of_parts(
    name: str, part: Part, measured: Measured, generator: np.random.Generator
) -> dict[str, dict[str, Any]]:
    new, champion, slices = measured.new, measured.champion, measured.slices
    ours, theirs = (
        {p: v for p, v in accuracies(name, each, slices).items() if p[: len(part)] == part}
        for each in (new, champion)
    )
    scores = _row_scores(new, champion or {})

    def on_part(place: Part) -> tuple[float, float] | None:
        inside = rows_of(place, new, slices)
        own = {n: (old[inside[n]], now[inside[n]]) for n, (old, now) in scores.items()}
        return _interval({n: pair for n, pair in own.items() if len(pair[0])}, generator)

    return _worst(ours, theirs, False, on_part)


def _worst(
    ours: Mapping[Any, float],
    theirs: Mapping[Any, float],
    lower: bool,
    bounds: Callable[[Any], tuple[float, float] | None],
) -> dict[str, dict[str, Any]]:
    """Return the worst of several places, and that which lost most; of equals the first."""
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
        lost = min(changes, key=lambda n: changes[n])
        parts["lost"] = _entry(ours[lost], theirs[lost], at=lost, bounds=bounds(lost))
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


def _calibration(examined: ModelScores | None) -> float:
    return Answers(examined or {}).calibration()


def _values(examined: ModelScores | None, metric: str) -> dict[int, float]:
    return {n: each.metrics.get(metric, math.nan) for n, each in (examined or {}).items()}


def _row_scores(
    new: ModelScores, champion: ModelScores
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return whether the champion and the new model are right on each row, by holdout."""
    before, after = _right(champion), _right(new)
    return {number: (before[number], after[number]) for number in after if number in before}


def _paired_scores(
    metric: str, new: ModelScores, champion: ModelScores | None
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return the champion's and the new score of each row, where the metric is their mean."""
    if champion is None:
        return {}
    scores = _row_scores(new, champion)
    for place, model in enumerate((champion, new)):
        for number, each in model.items():
            value = each.metrics.get(metric, math.nan)
            if number not in scores or not math.isclose(
                scores[number][place].mean(), value, abs_tol=1e-6
            ):
                return {}
    return scores


def _interval(
    scores: Mapping[int, tuple[np.ndarray, np.ndarray]],
    generator: np.random.Generator,
    *,
    average: bool = False,
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
    at: Place | None = None,
    bounds: tuple[float, float] | None = None,
) -> dict[str, Any]:
    low, high = bounds or (None, None)
    entry = {"value": value, "champion": champion, "low": low, "high": high}
    return {**{name: rounded(each) for name, each in entry.items()}, "at": _written(at)}


def _written(place: Place | None) -> int | str | None:
    """Return a place as the verdict has it: a holdout's number, a label, or field and value."""
    if not isinstance(place, tuple):
        return place
    return int(place[0]) if len(place) == PARTS[CLASSES] else " ".join(place)


def difference(entry: Mapping[str, Any]) -> float | None:
    """Return the update's value minus the champion's, where both are known."""
    if entry["value"] is None or entry["champion"] is None:
        return None
    return rounded(entry["value"] - entry["champion"])


def rounded(value: float | None) -> float | None:
    """Return what JSON can hold, without the noise of sums: -0.01 for 0.94 - 0.95."""
    return None if value is None or not math.isfinite(value) else round(float(value), 8) + 0.0
