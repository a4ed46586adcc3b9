"""Draw pictures of one update: confusion matrix, accuracy by class, learning curve, forgetting.

confusion.png          actual classes as rows, predicted classes as columns
classes.png            accuracy on each class
learning_curve.png     losses, and metrics below them, over the epochs
forgetting_<m>.png     forgetting of the headline metric after each update
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from renate_stages.evaluation import metrics
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.files import typed
from renate_stages.reporting.plots import (
    COLOURS,
    MARKERS,
    READABLE,
    drawn_name,
    new_figure,
    print_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS: dict[str, dict[str, type]] = {
    "confusion": {"actual": str, "predicted": str},
    "classes": {"class": str, "accuracy": float, "rows": int},
    "learning_curve": {"epoch": int},
}
WIDEST = 4  # characters up to which the names of columns do not overlap
Rows = Sequence[Mapping[str, Any]]


def draw_update(
    folder: Path,
    history: EvaluationHistory,
    plot_data: Path,
    metric: str,
    *,
    lower_is_better: bool = False,
) -> list[Path]:
    """Draw all pictures for which there is data.

    Args:
        folder: Folder to write to; created if it is missing.
        history: The history whose `after` evaluations give the forgetting.
        plot_data: Folder that `write_plot_data` and `write_update_plots` wrote to.
        metric: The headline metric.
        lower_is_better: Whether a lower headline metric is better.

    Returns:
        The files written.
    """
    figures: dict[str, Figure] = {}
    confusion, classes, curve = (_read(plot_data / f"{name}.csv") for name in COLUMNS)
    if confusion:
        figures["confusion"] = _confusion(confusion)
    if classes:
        figures["classes"] = _classes(classes)
    if curve:
        figures["learning_curve"] = _learning_curve(curve)
    matrix = history.matrix(metric)
    if len(matrix) > 1:
        lost = {
            t: metrics.forgetting(matrix, t, higher_is_better=not lower_is_better) for t in matrix
        }
        figures[f"forgetting_{quote(metric, safe=' ')}"] = _forgetting(metric, lost)
    return [print_figure(folder / f"{name}.png", figure) for name, figure in figures.items()]


def _read(path: Path) -> Rows:
    if not path.is_file():  # old releases did not write it
        return []
    return typed.read_table(path, COLUMNS[path.stem], "plot data", typed.RUN_AGAIN, rest=float)


def _confusion(rows: Rows) -> Figure:
    """Draw the matrix with each row normalised: dark is none of a class's examples, bright all."""
    labels = _labels(rows)
    place_of = {label: place for place, label in enumerate(labels)}
    places = np.array([(place_of[row["actual"]], place_of[row["predicted"]]) for row in rows])
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, (places[:, 0], places[:, 1]), 1)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    drawn = min(max(len(labels), 4), READABLE)
    figure = new_figure(width=2.8 + 0.5 * drawn, height=1.6 + 0.42 * drawn)
    axes: Axes = figure.add_subplot()
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
    for (y, x), count in np.ndenumerate(counts):
        if count and len(labels) <= READABLE:
            colour = "black" if share[y, x] > 0.55 else "white"
            axes.text(x, y, str(count), ha="center", va="center", color=colour, fontsize="small")
    every = -(-len(labels) // READABLE)
    names = [drawn_name(label) for label in labels[::every]]
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    is_wide = max(map(len, names)) > WIDEST
    axes.set_xticks(range(0, len(labels), every), names, **(slanted if is_wide else {}))
    axes.set_yticks(range(0, len(labels), every), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("actual class")
    axes.set_title(f"{len(rows)} examples of all holdouts", loc="left")
    bar = figure.colorbar(image, ax=axes, label="share of the actual class")
    bar.outline.set_visible(False)  # type: ignore[attr-defined]
    return figure


def _labels(rows: Rows) -> list[str]:
    """Return the labels ascending, or names in the order of their numbers, as the rows are."""
    found = dict.fromkeys(row[part] for part in ("actual", "predicted") for row in rows)
    is_number = all(label.removeprefix("-").isdecimal() for label in found)
    return sorted(found, key=int) if is_number else list(found)


def _classes(rows: Rows) -> Figure:
    """Draw a bar for each class, with the worst class in the title."""
    names = [drawn_name(row["class"]) for row in rows]
    values = np.array([row["accuracy"] for row in rows])
    figure = new_figure(width=6, height=1.3 + 0.26 * min(max(len(rows), 3), 2 * READABLE))
    axes: Axes = figure.add_subplot()
    axes.barh(range(len(rows)), values, color=COLOURS[0])
    every = -(-len(rows) // (2 * READABLE))
    axes.set_yticks(range(0, len(rows), every), names[::every])
    if every == 1:
        for place, (value, row) in enumerate(zip(values, rows, strict=True)):
            text = f"{value:.3f} of {row['rows']}"
            axes.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.24)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("accuracy, over all holdouts")
    axes.set_ylabel("class")
    worst = int(values.argmin())
    axes.set_title(f"accuracy on each class; worst: {names[worst]}", loc="left")
    return figure


def _learning_curve(rows: Rows) -> Figure:
    """Draw losses above and other metrics below, with gaps for epochs that were not measured."""
    from matplotlib.ticker import MaxNLocator

    names = [name for name in rows[0] if name not in ("epoch", "step")]
    epochs = [row["epoch"] for row in rows]
    panels = [
        (title, selected)
        for title, selected in (
            ("loss, mean over examples", [name for name in names if name.endswith("loss")]),
            ("metrics", [name for name in names if not name.endswith("loss")]),
        )
        if selected
    ]
    figure = new_figure(width=7, height=0.6 + 2.6 * len(panels))
    every: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, selected) in zip(every, panels, strict=True):
        for place, name in enumerate(selected):
            values = [row[name] for row in rows]
            marker = MARKERS[place // len(COLOURS) % len(MARKERS)]
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(epochs, values, color=colour, marker=marker, markersize=4, label=name)
        axes.set_ylabel(title)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    every[-1].set_xlabel("epoch")
    every[0].set_title("training of this update", loc="left")
    return figure


def _forgetting(metric: str, lost: Mapping[int, float]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(width=6, height=3.4)
    axes: Axes = figure.add_subplot()
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.plot(list(lost), list(lost.values()), color=COLOURS[4], marker="o", markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("after update")
    axes.set_ylabel(f"drop of {metric} from its best value")
    axes.set_title(f"forgetting of {metric}, mean over earlier holdouts (0: none)", loc="left")
    return figure
