"""Draw the memory: rows by update and class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from renate_stages.memory.composition import UNKNOWN, Part
from renate_stages.reporting.plots import COLOURS, DPI, drawn_name


def draw(parts: list[Part], path: Path) -> None:
    """Draw a memory's composition as one bar per update, divided by class; write atomically.

    Args:
        parts: What `composition` returned for a memory.
        path: The PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    names = [UNKNOWN if part.update is None else str(part.update) for part in parts]
    base = np.zeros(len(parts))
    for number, label in enumerate(_all_classes(parts) or [""]):
        rows = np.array([part.classes.get(label, 0) if label else part.rows for part in parts])
        hatch = ("", "//", "..", "xx")[number // len(COLOURS) % 4]
        colour = COLOURS[number % len(COLOURS)]
        axes.bar(
            names, rows, bottom=base, color=colour, hatch=hatch, label=drawn_name(label) or None
        )
        base += rows
    axes.set(xlabel="update that the rows came with", ylabel="rows in memory")
    # Leaves space above the tallest bar, which would otherwise look truncated.
    axes.set_ylim(0, 1.05 * base.max(initial=1))
    if any(part.classes for part in parts):
        axes.legend(title="class", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    temporary = path.with_name(f".{path.name}.new")
    FigureCanvasAgg(figure).print_png(
        temporary, metadata={"Software": None}, pil_kwargs={"dpi": (DPI,) * 2}
    )
    temporary.replace(path)


def _all_classes(parts: list[Part]) -> list[str]:
    """Return the labels in the order of their numbers, which each part has."""
    labels = dict.fromkeys(label for part in parts for label in part.classes)
    return sorted(labels, key=int) if all(map(str.isdecimal, labels)) else list(labels)
