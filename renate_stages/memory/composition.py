"""Summarize a store's contents by update: rows, bytes, classes, sources and age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renate_stages.memory.store import ExampleStore

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Part:
    """The rows of a store that came with one update.

    Args:
        update: The update's number; None if it is unknown, because an old release stored the rows.
        rows: Number of rows.
        nbytes: Size of their examples in bytes; an estimate if rows differ in length.
        classes: Number of rows by label, ascending; empty if targets are not labels.
        sources: Number of rows by source, sorted; empty without sources.
    """

    update: int | None
    rows: int
    nbytes: int
    classes: dict[str, int]
    sources: dict[str, int]


def composition(
    store: ExampleStore, labelled: bool = True, names: Sequence[str] = ()
) -> list[Part]:
    """Return the composition of a store, the oldest update first.

    Args:
        store: The store.
        labelled: Whether integer targets are class labels.
        names: Names of the labels; empty if labels are numbers.
    """
    if not len(store) or store.spec is None:
        return []
    updates, known = store.metadata("update"), store.known("update")
    labels = _labels(store) if labelled else None
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
            {_name(label, names): count for label, count in _counts(labels, rows).items()},
            _counts(sources, rows, store.known("source")),
        )
        for update, rows in groups
    ]


def table(parts: list[Part], number: int) -> str:
    """Return a composition as a table for a terminal.

    Args:
        parts: What `composition` returned.
        number: Number of the open update, from which ages are counted.
    """
    lines = [f"{'update':>7} {'age':>4} {'rows':>9} {'MB':>9}  classes · sources"]
    for part in parts:
        age = "" if part.update is None else str(number - part.update)
        name = UNKNOWN if part.update is None else str(part.update)
        columns = [_as_text(counts) for counts in (part.classes, part.sources) if counts]
        size = f"{part.nbytes / 1e6:9.3f}"
        lines.append(f"{name:>7} {age:>4} {part.rows:>9} {size}  {' · '.join(columns)}".rstrip())
    rows, nbytes = sum(part.rows for part in parts), sum(part.nbytes for part in parts)
    lines.append(f"{'all':>7} {'':>4} {rows:>9} {nbytes / 1e6:9.3f}")
    return "\n".join(lines)


def _labels(store: ExampleStore) -> np.ndarray | None:
    targets = store.spec.fields.get("targets") if store.spec else None
    if targets is None or targets.ragged or targets.shape or targets.dtype.kind not in "iu":
        return None
    return store.column("targets")


def _counts(
    column: np.ndarray | None, rows: np.ndarray, known: np.ndarray | None = None
) -> dict[str, int]:
    """Return the number of rows by value, ascending; rows without a value come last."""
    if column is None or column.ndim > 1:
        return {}
    known = np.ones(len(column), dtype=bool) if known is None else known
    values, counts = np.unique(column[rows & known], return_counts=True)
    result = {
        (value.decode() or "''") if isinstance(value, bytes) else str(value): count
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }
    unknown = int((rows & ~known).sum())
    return {**result, **({UNKNOWN: unknown} if unknown else {})}


def _name(label: str, names: Sequence[str]) -> str:
    return names[int(label)] if label.isdecimal() and int(label) < len(names) else label


def _as_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())
