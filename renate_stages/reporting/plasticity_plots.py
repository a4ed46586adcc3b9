"""Write and draw the figures of plasticity over the updates: `plasticity.csv`, `plasticity.png`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renate_stages import files
from renate_stages.evaluation.plasticity_history import FIGURES, FILE, PlasticityHistory
from renate_stages.files import typed
from renate_stages.files.csv_file import csv_text
from renate_stages.reporting.plots import COLOURS, new_figure, print_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS: dict[str, type] = {"update": int, **dict.fromkeys(FIGURES, float)}


def write_plasticity(folder: Path, history: PlasticityHistory) -> Path:
    """Write the figures of the result of each update: a row each, with empty cells for unknown ones.

    Args:
        folder: Folder to write to.
        history: The history.

    Returns:
        The file.
    """
    rows = ({"update": update, **figures} for update, figures in history.after().items())
    files.write_text(folder / FILE, csv_text(tuple(COLUMNS), rows))
    return folder / FILE


def draw_plasticity(folder: Path, plot_data: Path) -> list[Path]:
    """Draw the figures over the updates, a panel each, from the second measured update on.

    Args:
        folder: Folder to write to.
        plot_data: Folder that `write_plasticity` wrote to.

    Returns:
        The files written.
    """
    path = plot_data / FILE
    if not path.is_file():  # old releases did not write it
        return []
    rows = typed.read_table(path, COLUMNS, "plot data", typed.RUN_AGAIN)
    if len(rows) < 2:
        return []
    from matplotlib.ticker import MaxNLocator

    titles = {
        "dead_units": "dead units, share",
        "effective_rank": "effective rank\nof the features",
        "weight_norm": "weights, root\nmean square",
    }
    known = {
        name: title
        for name, title in titles.items()
        if any(not math.isnan(row[name]) for row in rows)
    }
    if not known:
        return []
    updates = [row["update"] for row in rows]
    figure = new_figure(width=6, height=0.6 + 1.9 * len(known))
    every: Any = figure.subplots(len(known), 1, sharex=True, squeeze=False)[:, 0]
    for place, (name, title) in enumerate(known.items()):
        axes: Axes = every[place]
        values = [row[name] for row in rows]
        axes.plot(updates, values, color=COLOURS[place], marker="o", markersize=5)
        largest = max(value for value in values if not math.isnan(value))
        axes.set_ylim(0, 1.1 * largest or 1)  # with space for the whole marker
        axes.set_ylabel(title)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    every[-1].set_xlabel("after update")
    every[0].set_title("plasticity of the model on new training data", loc="left")
    return [print_figure(folder / "plasticity.png", figure)]
