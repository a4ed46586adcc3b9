"""Write a history of evaluations as plot data for DVC (CSV) and as pictures (PNG).

The CSVs are stage outputs: deterministic, small, and in Git. The pictures go to MLflow and into the
report. This module does not need torch, and only `draw` needs matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np

from renate_stages import files
from renate_stages.errors import MalformedFileError
from renate_stages.evaluation import metrics
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.files import typed
from renate_stages.files.csv_file import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRADE_OFF = "interpolation"  # the table of the learner WiSE-FT
OF_EVERY_UPDATE = {
    *("summary", "learning_curve", "confusion", "classes", "memory", "tuning", "tuning_trials"),
    "plasticity",
}
FIGURES = (
    *("average", "overall", "forgetting", "backward_transfer", "forward_transfer", "prequential"),
)
# Okabe & Ito's colours, which all types of colour vision can distinguish; without black (the average)
# and yellow (too faint on white). From the eighth holdout on, colours repeat with other markers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#999999")
MARKERS = "os^Dv<>pX"
DPI = 144
READABLE = 24  # maximum number of updates or holdouts that are labelled in a picture
LONGEST = 24  # characters of a label's name in a picture


def write_plot_data(
    folder: Path,
    history: EvaluationHistory,
    curves: Sequence[Mapping[str, Any]] = (),
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    *,
    lower_is_better: Collection[str] = ("loss",),
) -> list[Path]:
    """Write the CSVs that DVC plots.

        holdouts_<metric>.csv   update, holdout, value            a row for each measured pair
        summary.csv             update, <metric>_<figure> ...     a row for each update
        learning_curve.csv      epoch, <name> ...                 a row for each of `curves`
        <table>.csv             its columns                       a table from the learner

    A metric's name is percent-encoded in the file name; an unknown value is an empty cell.

    Args:
        folder: Folder to write to; created if it is missing.
        history: The history whose `after` evaluations are written.
        curves: Training measurements: for each epoch a mapping with `epoch` and values by name.
        tables: Rows by file name; columns are in the order of their first occurrence.
        lower_is_better: Metrics for which lower is better.

    Returns:
        The files written, in the order above.
    """
    texts = {}
    by_update: dict[int, dict[str, Any]] = {}
    for metric in history.metrics:
        matrix = history.matrix(metric)
        tidy = [
            {"update": update, "holdout": holdout, "value": value}
            for update, row in matrix.items()
            for holdout, value in row.items()
        ]
        texts[f"holdouts_{_file_name(metric)}.csv"] = csv_text(("update", "holdout", "value"), tidy)
        for update in matrix:
            summary = history.summary(update, metric, metric not in lower_is_better)
            row = by_update.setdefault(update, {"update": update})
            row |= {f"{metric}_{figure}": summary[figure] for figure in FIGURES}
    names = [f"{metric}_{figure}" for metric in history.metrics for figure in FIGURES]
    texts["summary.csv"] = csv_text(
        ("update", *names), (row for _, row in sorted(by_update.items()))
    )
    measured = sorted({name for row in curves for name in row} - {"epoch"})
    texts["learning_curve.csv"] = csv_text(("epoch", *measured), curves)
    for name, rows in (tables or {}).items():
        columns = dict.fromkeys(column for row in rows for column in row)
        texts[f"{_file_name(name)}.csv"] = csv_text(tuple(columns), rows)
    for name, text in texts.items():
        files.write_text(folder / name, text)
    return [folder / name for name in texts]


def read_curves(folder: Path) -> list[dict[str, float]]:
    """Return the training measurements of each epoch from `learning_curve.csv`.

    Args:
        folder: Folder that `write_plot_data` wrote to.

    Raises:
        MalformedFileError: If the file is malformed.
    """
    path = folder / "learning_curve.csv"
    rows = typed.read_table(path, {"epoch": int}, "plot data", typed.RUN_AGAIN, rest=float)
    known = [{n: value for n, value in row.items() if not math.isnan(value)} for row in rows]
    if not all(math.isfinite(row.get("step", math.nan)) for row in known):
        raise MalformedFileError(path, "plot data", "an epoch has no step", typed.RUN_AGAIN)
    return known


def read_tables(folder: Path) -> dict[str, list[dict[str, float]]]:
    """Return the learner's own tables, rows by the name of the table.

    Args:
        folder: Where the stage `train` wrote its plot data.

    Raises:
        MalformedFileError: If one is not what was written.
    """
    found = {}
    for path in sorted(folder.glob("*.csv")):
        name = unquote(path.stem)
        if name not in OF_EVERY_UPDATE and not name.startswith("holdouts_"):
            rows = typed.read_table(path, {}, "plot data", typed.RUN_AGAIN, rest=float)
            found[name] = [
                {n: value for n, value in row.items() if not math.isnan(value)} for row in rows
            ]
    return found


def draw(
    folder: Path,
    history: EvaluationHistory,
    plot_data: Path | None = None,
    *,
    lower_is_better: Collection[str] = ("loss",),
) -> list[Path]:
    """Draw two pictures of each metric: `matrix_<metric>.png` and `holdouts_<metric>.png`.

    If the learner wrote `interpolation.csv`, also draw `interpolation_<metric>.png`.

    Args:
        folder: Folder to write to; created if it is missing.
        history: The history whose `after` evaluations are drawn.
        plot_data: Folder that `write_plot_data` wrote to; None draws only the history.
        lower_is_better: Metrics for which lower is better, whose colour scale is reversed.

    Returns:
        The files written.
    """
    figures = {}
    for metric in history.metrics:
        matrix = history.matrix(metric)
        if not matrix:
            continue
        better = "lower" if metric in lower_is_better else "higher"
        figures[f"matrix_{_file_name(metric)}"] = heat_map(metric, matrix, better)
        figures[f"holdouts_{_file_name(metric)}"] = _lines(metric, matrix)
    table = plot_data / f"{TRADE_OFF}.csv" if plot_data is not None else None
    if table is not None and table.is_file():
        columns = {"coefficient": float, "chosen": float}
        rows = typed.read_table(table, columns, "plot data", typed.RUN_AGAIN, rest=float)
        known = rows[0] if rows else {}
        for metric in (name.removeprefix("old_") for name in known if name.startswith("old_")):
            if f"new_{metric}" in known:
                figures[f"{TRADE_OFF}_{_file_name(metric)}"] = _trade_off(metric, rows)
    return [print_figure(folder / f"{name}.png", figure) for name, figure in figures.items()]


def print_figure(path: Path, figure: Figure) -> Path:
    """Write a figure to a PNG file, atomically and with reproducible bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    FigureCanvasAgg(figure).print_png(temporary, metadata={"Software": None})
    return temporary.replace(path)


def heat_map(metric: str, matrix: metrics.Matrix, better: str) -> Figure:
    """Draw updates as rows and holdouts as columns; bright is good, blank is not measured."""
    from matplotlib import colormaps

    updates, holdouts = list(matrix), sorted({i for row in matrix.values() for i in row})
    values = np.array([[matrix[t].get(i, np.nan) for i in holdouts] for t in updates])
    values[~np.isfinite(values)] = np.nan
    cells = len(updates), len(holdouts)
    drawn = np.clip(cells, (3, 4), READABLE)
    figure = new_figure(width=2.6 + 0.62 * drawn[1], height=1.7 + 0.42 * drawn[0])
    axes: Axes = figure.add_subplot()
    colours = colormaps["cividis" if better == "higher" else "cividis_r"]
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    several = low < high
    if not several:  # with one value, use the good end of the scale
        low, high = (low - 1, high) if better == "higher" else (low, high + 1)
    image = axes.imshow(values, cmap=colours, aspect="auto", vmin=low, vmax=high)
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value) and max(cells) <= READABLE:
            red, green, blue, _ = image.to_rgba(value)  # type: ignore[misc]
            dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
            text = _short(value)
            axes.text(x, y, text, ha="center", va="center", color="white" if dark else "black")
    every = -(-max(cells) // READABLE)
    axes.set_xticks(range(0, cells[1], every), [str(i) for i in holdouts[::every]])
    axes.set_yticks(range(0, cells[0], every), [str(t) for t in updates[::every]])
    axes.set_xticks(np.arange(0.5, cells[1] - 1), minor=True)
    axes.set_yticks(np.arange(0.5, cells[0] - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5 / every)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("holdout of update")
    axes.set_ylabel("after update")
    axes.set_title(f"{metric} ({better} is better)", loc="left")
    if several:
        figure.colorbar(image, ax=axes, label=metric).outline.set_visible(False)  # type: ignore
    return figure


def _lines(metric: str, matrix: metrics.Matrix) -> Figure:
    """Draw each holdout's metric over the updates, and their average."""
    from matplotlib.ticker import MaxNLocator

    updates, holdouts = list(matrix), sorted({i for row in matrix.values() for i in row})
    every = -(-len(holdouts) // READABLE)
    columns = 1 + min(len(holdouts), READABLE) // 16
    figure = new_figure(width=6 + 1.2 * columns, height=4.2)
    axes: Axes = figure.add_subplot()
    for position, holdout in enumerate(holdouts):
        known = [(t, row[holdout]) for t, row in matrix.items() if holdout in row]
        named = position % every == 0  # other lines are thin and grey
        axes.plot(
            *zip(*known, strict=True),
            color=COLOURS[position // every % len(COLOURS)] if named else "#dddddd",
            marker=MARKERS[position // every // len(COLOURS) % len(MARKERS)] if named else None,
            markersize=5,
            linewidth=1.4 if named else 0.8,
            zorder=2 if named else 1.5,
            label=f"holdout {holdout}" if named else None,
        )
    means = [metrics.average(matrix, update) for update in updates]
    ring = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.2}
    if every > 1:
        ring = {}
    axes.plot(updates, means, color="black", linestyle="--", linewidth=2.2, label="average", **ring)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(x=0.04)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("after update")
    axes.set_ylabel(metric)
    axes.set_title(f"{metric} on each holdout over the updates", loc="left")
    figure.legend(loc="outside right upper", ncols=columns, frameon=False, fontsize="small")
    return figure


def _trade_off(metric: str, rows: Sequence[Mapping[str, float]]) -> Figure:
    """Draw a metric on old against new data, for weights from the parent's to the new ones."""
    figure = new_figure(width=6, height=4.6)
    axes: Axes = figure.add_subplot()
    old, new = ([row[f"{side}_{metric}"] for row in rows] for side in ("old", "new"))
    axes.plot(old, new, color=COLOURS[0], linewidth=1.6, zorder=2)
    axes.scatter(old, new, c=COLOURS[0], s=26, zorder=3)
    names = {0: "parent", len(rows) - 1: "new"}
    for place, row in enumerate(rows):
        if row["chosen"]:
            ring = {"facecolors": "none", "edgecolors": COLOURS[4], "linewidths": 2.0}
            axes.scatter(old[place], new[place], s=150, zorder=4, **ring)
            names[place] = "chosen, " + names[place] if place in names else "chosen"
    for place, name in names.items():
        text = f"{rows[place]['coefficient']:g} ({name})"
        away = (9, -17) if name == "chosen" else (9, 9)  # avoids overlap with the label of an end
        axes.annotate(text, (old[place], new[place]), away, textcoords="offset points")
    axes.margins(x=0.24, y=0.14)
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"{metric} on the validation data of earlier updates")
    axes.set_ylabel(f"{metric} on the validation data of this update")
    axes.set_title(f"{metric} for weights between the parent's and the new ones", loc="left")
    return figure


def drawn_name(name: str) -> str:
    """Return a label's name for a picture: at most `LONGEST` characters, and no formulas."""
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    return short.replace("$", r"\$")  # matplotlib takes text between two dollars for a formula


def new_figure(width: float, height: float) -> Figure:
    """Create a figure with sizes in inches, without using `pyplot` and its global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"


def _file_name(metric: str) -> str:
    return quote(metric, safe=" ")  # unique, and without path separators
