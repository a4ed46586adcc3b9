"""Draw the shift of single features.

shift_features.png     a bar for each of the most shifted features, and for images their positions
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renate_stages.files import typed
from renate_stages.reporting.plots import COLOURS, READABLE, new_figure, print_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from renate_stages.shift.data_metrics import ShiftFigures

CHANNELS = 4  # a first or last axis of at most this size is the colour axis
PLACE = re.compile(r"\[(\d+(?:, \d+)+)\]")
COLUMNS = {"feature": str, "distance": float, "p_value": float, "mean_change": float}
Rows = Sequence[Mapping[str, Any]]


def draw_shift(
    folder: Path,
    features: Path,
    figures: ShiftFigures | None,
    shape: tuple[int, ...] = (),
) -> list[Path]:
    """Draw the shift of each feature from `prepare`; nothing if no features were compared.

    Args:
        folder: Folder to write to; created if it is missing.
        features: `metrics/shift.csv`; may be missing.
        figures: The block `shift` of `metrics/data.json`; None if nothing was compared.
        shape: Shape of an example's inputs if they are one array; for an image, the positions of
            features are drawn too.

    Returns:
        The files written.
    """
    if not features.is_file():  # old releases did not write it
        return []
    rows = _read(features)
    summary = figures.features if figures is not None else None
    if not rows or not summary:
        return []
    figure = _figure(rows, summary.shifted, summary.compared, _places(rows, shape))
    return [print_figure(folder / "shift_features.png", figure)]


def _read(features: Path) -> Rows:
    """Return the rows of the file; old releases did not write how many values are missing."""
    what, cure = "the shift of features", typed.RUN_AGAIN
    rows = typed.read_table(features, COLUMNS, what, cure)
    if rows and "missing_change" in rows[0]:
        return typed.read_table(features, {**COLUMNS, "missing_change": float}, what, cure)
    return rows


def _figure(rows: Rows, shifted: int, compared: int, places: np.ndarray | None) -> Figure:
    shown = rows[:READABLE]
    height = 1.7 + 0.26 * max(len(shown), 4)
    figure = new_figure(width=7.5 if places is None else 12.5, height=height)
    several = figure.subplots(1, 1 if places is None else 2, squeeze=False)[0]
    _bars(several[0], shown, shifted)
    if places is not None:
        _map(figure, several[1], places, len(rows))
    title = f"shift from the parent's examples: {shifted} of {compared} features differ"
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _bars(axes: Axes, rows: Rows, shifted: int) -> None:
    """Draw a bar per feature, labelled by p-value and change of mean; `shifted` ones coloured."""
    from matplotlib.patches import Patch

    distances = [row["distance"] for row in rows]
    colours = [COLOURS[0] if place < shifted else "#bbbbbb" for place in range(len(rows))]
    axes.barh(range(len(rows)), distances, color=colours)
    for place, (distance, row) in enumerate(zip(distances, rows, strict=True)):
        text = _p_value(row["p_value"])
        if np.isfinite(row["mean_change"]):  # categories have no mean
            change = round(row["mean_change"], 2) + 0.0  # + 0.0 removes -0.00
            text += f", mean {change:+.2f} sd"
        if abs(missing := row.get("missing_change", 0.0)) >= 0.005:
            text += f", missing {missing:+.0%}"
        where = (distance, place)
        axes.annotate(
            text, where, (4, 0), textcoords="offset points", va="center", fontsize="small"
        )
    axes.set_yticks(range(len(rows)), [_short(row["feature"]) for row in rows])
    axes.set_xlim(0, 1.5)  # the same scale for every update, so that small shifts look small
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("distance (0: same distribution, 1: no overlap)")
    axes.set_ylabel("feature, the most shifted first")
    names = {COLOURS[0]: "differs", "#bbbbbb": "may be chance"}
    handles = [Patch(color=each, label=names[each]) for each in dict.fromkeys(colours)]
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 2}
    axes.legend(handles=handles, frameon=False, fontsize="small", **above)


def _map(figure: Figure, axes: Axes, places: np.ndarray, count: int) -> None:
    """Draw the positions of the most shifted features in an image; other pixels are grey."""
    from matplotlib import colormaps

    colours = colormaps["cividis"].with_extremes(bad="#e6e6e6")
    image = axes.imshow(np.ma.masked_invalid(places), cmap=colours, vmin=0, vmax=1)
    axes.set_xlabel("column of the image, in pixels")
    axes.set_ylabel("row, in pixels")
    axes.set_title(f"the {count} most shifted pixels", loc="left", fontsize="medium")
    bar = figure.colorbar(image, ax=axes, label="distance", shrink=0.8)
    bar.outline.set_visible(False)  # type: ignore[attr-defined]


def _places(rows: Rows, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the distance at each pixel, the largest over its colours, `(rows, columns)`.

    Pixels without a row are NaN. Returns None if inputs are not an image, or features are not its
    pixels.
    """
    sides = [axis for axis in range(len(shape)) if not _colours(shape, axis)]
    matched = [PLACE.fullmatch(row["feature"]) for row in rows]
    if len(sides) != 2 or not all(matched):
        return None
    distances = np.full([shape[axis] for axis in sides], np.nan)
    for row, match in zip(rows, matched, strict=True):
        place = [int(each) for each in match[1].split(",")] if match else []
        if len(place) != len(shape) or any(map(operator.ge, place, shape)):
            return None
        pixel = tuple(place[axis] for axis in sides)
        distances[pixel] = np.fmax(distances[pixel], row["distance"])
    return distances


def _colours(shape: tuple[int, ...], axis: int) -> bool:
    """Return whether an image's axis is its colour axis: the first or last of three."""
    if len(shape) != 3 or axis == 1:
        return False
    return shape[axis] <= CHANNELS and (axis == 0 or shape[0] > CHANNELS)


def _p_value(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p {value:.2g}"


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"
