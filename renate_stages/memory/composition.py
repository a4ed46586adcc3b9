"""What a store holds: rows, bytes, classes, sources and age, by the update that rows came with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renate_stages.memory.store import ExampleStore

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Part:
    """The rows of a store that came with one update.

    Args:
        update: Its number; None of rows of which it is unknown, because an old release stored them.
        rows: How many.
        nbytes: Bytes of their examples, about where rows differ in length.
        classes: Rows by label, ascending; empty where targets are not labels.
        sources: Rows by source, sorted; empty without sources.
    """

    update: int | None
    rows: int
    nbytes: int
    classes: dict[str, int]
    sources: dict[str, int]


def composition(store: ExampleStore) -> list[Part]:
    """Return what a store holds, the oldest update first."""
    if not len(store) or store.spec is None:
        return []
    updates, known = store.metadata("update"), store.known("update")
    labels = _labels(store)
    sources = store.metadata("source")
    groups: list[tuple[int | None, np.ndarray]] = [] if known.all() else [(None, ~known)]
    if updates is not None:
        numbers = np.unique(updates[known]).tolist()
        groups += [(number, known & (updates == number)) for number in numbers]
    return [
        Part(
            update,
            int(rows.sum()),
            round(store.nbytes * int(rows.sum()) / len(store)),
            _counts(labels, rows),
            _counts(sources, rows, store.known("source")),
        )
        for update, rows in groups
    ]


def table(parts: list[Part], number: int) -> str:
    """Return a composition as lines for a terminal.

    Args:
        parts: What `composition` returned.
        number: The open update, from which ages count.
    """
    lines = [f"{'update':>7} {'age':>4} {'rows':>9} {'MB':>9}  classes · sources"]
    for part in parts:
        age = "" if part.update is None else str(number - part.update)
        name = UNKNOWN if part.update is None else str(part.update)
        held = [_said(counts) for counts in (part.classes, part.sources) if counts]
        size = f"{part.nbytes / 1e6:9.3f}"
        lines.append(f"{name:>7} {age:>4} {part.rows:>9} {size}  {' · '.join(held)}".rstrip())
    rows, nbytes = sum(part.rows for part in parts), sum(part.nbytes for part in parts)
    lines.append(f"{'all':>7} {'':>4} {rows:>9} {nbytes / 1e6:9.3f}")
    return "\n".join(lines)


def draw(parts: list[Part], path: Path) -> None:
    """Draw a composition as bars, an update each, divided by class; written whole.

    Args:
        parts: What `composition` returned.
        path: A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from renate_stages.reporting.plots import COLOURS, DPI

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    names = [UNKNOWN if part.update is None else str(part.update) for part in parts]
    base = np.zeros(len(parts))
    for number, label in enumerate(_all_classes(parts) or [""]):
        rows = np.array([part.classes.get(label, 0) if label else part.rows for part in parts])
        hatch = ("", "//", "..", "xx")[number // len(COLOURS) % 4]
        colour = COLOURS[number % len(COLOURS)]
        axes.bar(names, rows, bottom=base, color=colour, hatch=hatch, label=label or None)
        base += rows
    axes.set(xlabel="update that the rows came with", ylabel="rows in memory")
    # Else the tallest bar ends at the frame, as if cut off.
    axes.set_ylim(0, 1.05 * base.max(initial=1))
    if any(part.classes for part in parts):
        axes.legend(title="class", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    beside = path.with_name(f".{path.name}.new")
    FigureCanvasAgg(figure).print_png(
        beside, metadata={"Software": None}, pil_kwargs={"dpi": (DPI,) * 2}
    )
    beside.replace(path)


def _labels(store: ExampleStore) -> np.ndarray | None:
    each = store.spec.fields.get("targets") if store.spec else None
    if each is None or each.ragged or each.shape or each.dtype.kind not in "iu":
        return None
    return store.column("targets")


def _counts(
    column: np.ndarray | None, rows: np.ndarray, known: np.ndarray | None = None
) -> dict[str, int]:
    """Return the rows of each value, ascending, and of those without one at the end."""
    if column is None or column.ndim > 1:
        return {}
    known = np.ones(len(column), dtype=bool) if known is None else known
    values, counts = np.unique(column[rows & known], return_counts=True)
    found = {
        (value.decode() or "''") if isinstance(value, bytes) else str(value): count
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }
    unknown = int((rows & ~known).sum())
    return {**found, **({UNKNOWN: unknown} if unknown else {})}


def _all_classes(parts: list[Part]) -> list[str]:
    return sorted(
        {label for part in parts for label in part.classes}, key=lambda each: (len(each), each)
    )


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())
