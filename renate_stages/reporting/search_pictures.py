"""Draw a search: results of the trials, and importance of hyperparameters.

tuning_parallel.png     parallel coordinates: a line for each trial; bright is good
tuning_importance.png   rank correlation of each hyperparameter with the objective
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renate_stages.files import typed
from renate_stages.reporting.plots import COLOURS, new_figure, print_figure

OTHER_COLUMNS = ("trial", "status", "epochs", "value")  # columns that are not hyperparameters
Rows = Sequence[Mapping[str, Any]]


def draw_search(
    folder: Path, trials: Path, metric: str, *, lower_is_better: bool = False
) -> list[Path]:
    """Draw the trials of one update; nothing if there are too few or they do not differ.

    Args:
        folder: Folder to write to; created if it is missing.
        trials: `tuning_trials.csv`; may be missing.
        metric: Name of the objective.
        lower_is_better: Whether a lower objective is better.

    Returns:
        The files written.
    """
    if not trials.is_file():
        return []
    rows = typed.read_table(trials, {"value": float}, "plot data", typed.RUN_AGAIN)
    rows = [row for row in rows if math.isfinite(row["value"])]
    names = [n for n in rows[0] if n not in OTHER_COLUMNS] if rows else []
    searched = {n: places([row[n] for row in rows]) for n in names}
    searched = {name: place for name, place in searched.items() if len(set(place)) > 1}
    values = np.array([row["value"] for row in rows])
    if len(rows) < 3 or not searched or np.ptp(values) == 0:
        return []
    goodness = -values if lower_is_better else values
    parallel = _parallel(rows, searched, values, goodness, metric)
    return [
        print_figure(folder / "tuning_parallel.png", parallel),
        print_figure(folder / "tuning_importance.png", _importance(searched, values, metric)),
    ]


def places(values: Sequence[str]) -> list[float]:
    """Return the positions of values on an axis in [0, 1]: numbers by size, names alphabetically.

    The axis is logarithmic if numbers span more than two orders of magnitude. Empty values are at 0.
    """
    try:
        numbers = [float(value or "nan") for value in values]
    except ValueError:
        names = sorted(set(values))
        numbers = [float(names.index(value)) for value in values]
    known = [number for number in numbers if math.isfinite(number)]
    if not known:
        return [0.0] * len(numbers)
    if min(known) > 0 and max(known) / min(known) > 100:
        numbers, known = ([math.log(n) for n in each] for each in (numbers, known))
    low, span = min(known), max(known) - min(known) or 1.0
    return [(number - low) / span if math.isfinite(number) else 0.0 for number in numbers]


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation, in [-1, 1]; ties get their mean rank."""
    first, second = (_ranks(np.asarray(each, dtype=float)) for each in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    below = (values[:, None] > values[None, :]).sum(axis=1)
    same = (values[:, None] == values[None, :]).sum(axis=1)
    return below + (same - 1) / 2


def _parallel(
    rows: Rows,
    searched: Mapping[str, list[float]],
    values: np.ndarray,
    goodness: np.ndarray,
    metric: str,
) -> Any:
    """Draw an axis for each hyperparameter and the objective, and a line for each trial."""
    from matplotlib import colormaps

    names = [*searched, "value"]
    figure = new_figure(width=2 + 1.5 * len(names), height=4.4)
    axes = figure.add_subplot()
    share = (goodness - goodness.min()) / np.ptp(goodness)
    reached = (values - values.min()) / np.ptp(values)
    for line in np.argsort(goodness, kind="stable"):  # the best is drawn last
        heights = [*(searched[name][line] for name in searched), reached[line]]
        colour = colormaps["cividis"](share[line])
        axes.plot(range(len(names)), heights, color=colour, linewidth=1.2 + 1.4 * share[line])
    for place, name in enumerate(names):
        axes.axvline(place, color="#999999", linewidth=0.8, zorder=0)
        for height, row in _ends(searched.get(name, list(reached))):
            text = _short(str(rows[row][name]))
            axes.annotate(text, (place, height), (4, 0), textcoords="offset points", fontsize=8)
    axes.set_xticks(range(len(names)), [*searched, metric], rotation=20, ha="right")
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(f"{len(rows)} trials; bright is good", loc="left")
    return figure


def _ends(places: Sequence[float]) -> list[tuple[float, int]]:
    """Return the lowest and the highest position, each with a row at that position."""
    return [(each(places), list(places).index(each(places))) for each in (min, max)]


def _importance(searched: Mapping[str, list[float]], values: np.ndarray, metric: str) -> Any:
    """Draw the absolute rank correlation of each hyperparameter with the objective as bars."""
    strength = {n: rank_correlation(each, list(values)) for n, each in searched.items()}
    names = sorted(strength, key=lambda name: abs(strength[name]))
    figure = new_figure(width=6, height=1.4 + 0.4 * len(names))
    axes = figure.add_subplot()
    colours = [COLOURS[0] if strength[name] >= 0 else COLOURS[4] for name in names]
    axes.barh(names, [abs(strength[name]) for name in names], color=colours)
    axes.set_xlim(0, 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"absolute rank correlation with {metric} (blue: positive, red: negative)")
    axes.set_title("importance of hyperparameters", loc="left")
    return figure


def _short(text: str) -> str:
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text
