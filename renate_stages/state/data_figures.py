"""What `metrics/data.json` says about the splits of an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from renate_stages.memory import ExampleStore, row_weights
from renate_stages.memory.earlier_rows import EarlierRows
from renate_stages.memory.forget_list import CountedForgetList
from renate_stages.state.prepared import SPLITS
from renate_stages.tasks import labels


def figures(
    stores: Mapping[str, ExampleStore],
    forget: CountedForgetList,
    earlier: EarlierRows,
    update: int,
    labelled: bool = True,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the entries of `metrics/data.json` about the splits.

    Args:
        stores: Stores by the name of the split.
        forget: The forget list, which has counted the examples that were left out.
        earlier: Rows of earlier updates, which has counted those among the new ones.
        update: Number of the update.
        labelled: Whether integer targets are class labels.
        names: Names of the labels.
    """
    splits = {name: describe(store, labelled, names) for name, store in stores.items()}
    left_out = {"forgotten": {"rows": forget.rows}, "held_out": {"rows": earlier.held_out}}
    again = {"in_memory": {name: earlier.in_memory.get(name, 0) for name in stores}}
    reused = {"reused_ids": {"rows": len(earlier.reused)}}
    return {**splits, **left_out, **again, **reused, "update": update}


def summary(figures: Mapping[str, Any]) -> str:
    """Return one line for the user with the number of rows of each split."""
    parts = [f"{split} {figures[split]['rows']} rows" for split in SPLITS]
    if weights := figures["train"].get("weights"):
        least, largest = (f"{weights[name]:g}" for name in ("least", "largest"))
        parts[0] += f" with weights from {least} to {largest}"
    return ", ".join(parts + notes_on_earlier(figures))


def notes_on_earlier(figures: Mapping[str, Any]) -> list[str]:
    """Return notes on new rows that were left out or that earlier updates have."""
    forgotten, held_out, reused = (
        (figures.get(name) or {}).get("rows", 0) for name in ("forgotten", "held_out", "reused_ids")
    )
    notes = [f"{forgotten} left out because forget.yaml lists them"] if forgotten else []
    notes += [f"{held_out} left out because they are in earlier holdouts"] if held_out else []
    again = {split: rows for split, rows in (figures.get("in_memory") or {}).items() if rows}
    if again:
        counts = " and ".join(f"{rows} of {split}" for split, rows in again.items())
        notes.append(f"{counts} trained on before (they are in memory)")
    if reused:
        notes.append(f"{reused} with the id of an earlier row but other inputs")
    return notes


def describe(store: ExampleStore, labelled: bool, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the number of rows, their bytes, and the rows per class if targets are labels.

    If rows have weights, also what `row_weights.figures_of` returns.
    """
    found: dict[str, Any] = {"bytes": store.nbytes, "rows": len(store)}
    if weights := row_weights.figures_of(store):
        found["weights"] = weights
    if labelled and store.spec is not None and "targets" in store.spec.fields:
        targets = store.column("targets")
        if isinstance(targets, np.ndarray) and targets.ndim == 1 and targets.dtype.kind in "iu":
            values, counts = np.unique(targets, return_counts=True)
            found["classes"] = {
                labels.shown(int(value), names): int(count)
                for value, count in zip(values, counts, strict=True)
            }
    return found
