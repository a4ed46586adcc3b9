"""Draw the results of a simulation: curves over the updates, and a matrix for each learner.

curves.png          average of the headline metric after each update, with 95 % intervals
matrix_<learner>.png   the metric on every holdout after each update, mean over the seeds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from renate_stages.evaluation import metrics
from renate_stages.evaluation.seeds import SeedInterval
from renate_stages.reporting.plots import (
    COLOURS,
    MARKERS,
    heat_map,
    new_figure,
    print_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_simulation(
    folder: Path,
    matrices: Mapping[str, Sequence[metrics.Matrix]],
    metric: str,
    *,
    lower_is_better: bool = False,
) -> list[Path]:
    """Draw all pictures for which there is data.

    Args:
        folder: Folder to write to; created if it is missing.
        matrices: For each learner, a matrix a[update][holdout] for each seed.
        metric: Name of the metric.
        lower_is_better: Whether a lower metric is better.

    Returns:
        The files written.
    """
    present = {label: each for label, each in matrices.items() if each}
    if not present:
        return []
    better = "lower" if lower_is_better else "higher"
    drawn = [print_figure(folder / "curves.png", _curves(present, metric, better))]
    for label, each in present.items():
        figure = heat_map(f"{label}: {metric}", _mean(each), better)
        drawn.append(print_figure(folder / f"matrix_{quote(label, safe=' +=.')}.png", figure))
    return drawn


def _curves(matrices: Mapping[str, Sequence[metrics.Matrix]], metric: str, better: str) -> Figure:
    figure = new_figure(width=7.2, height=4.2)
    axes = figure.add_subplot()
    for number, (label, seeds) in enumerate(matrices.items()):
        updates = sorted({update for matrix in seeds for update in matrix})
        values = [[metrics.average(m, t) for m in seeds if t in m] for t in updates]
        means = np.array([SeedInterval.of(each).mean for each in values])
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        axes.plot(updates, means, color=colour, marker=marker, markersize=4, label=label)
        half = np.nan_to_num([SeedInterval.of(each).half for each in values])
        low, high = means - half, means + half
        if all(0 <= value <= 1 for each in values for value in each):  # such as an accuracy
            low, high = low.clip(0, 1), high.clip(0, 1)
        axes.fill_between(updates, low, high, color=colour, alpha=0.15, lw=0)
    axes.set_xticks(sorted({t for seeds in matrices.values() for m in seeds for t in m}))
    axes.set_xlabel("update")
    axes.set_ylabel(f"average {metric} ({better} is better)")
    axes.set_title(f"average {metric} on all holdouts so far, with 95 % intervals")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    return figure


def _mean(seeds: Sequence[metrics.Matrix]) -> dict[int, dict[int, float]]:
    updates = sorted({update for matrix in seeds for update in matrix})
    mean: dict[int, dict[int, float]] = {}
    for update in updates:
        rows = [matrix[update] for matrix in seeds if update in matrix]
        holdouts = sorted({holdout for row in rows for holdout in row})
        mean[update] = {i: float(np.mean([row[i] for row in rows if i in row])) for i in holdouts}
    return mean
