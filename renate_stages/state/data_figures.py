"""What `metrics/data.json` says about the splits of an update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from renate_stages.memory import ExampleStore, row_weights
from renate_stages.memory.forget_list import CountedForgetList
from renate_stages.memory.held_out import NOTHING, HeldOut
from renate_stages.memory.identity import IdSet, stored_ids
from renate_stages.state.prepared import SPLITS
from renate_stages.tasks import labels


def figures(
    stores: Mapping[str, ExampleStore],
    forget: CountedForgetList,
    held_out: HeldOut,
    update: int,
    labelled: bool = True,
    names: Sequence[str] = (),
    memory: ExampleStore | None = None,
) -> dict[str, Any]:
    """Return the entries of `metrics/data.json` about the splits.

    Args:
        stores: Stores by the name of the split.
        forget: The forget list, which has counted the examples that were left out.
        held_out: Rows of earlier holdouts, which has counted those among the training rows.
        update: Number of the update.
        labelled: Whether integer targets are class labels.
        names: Names of the labels.
        memory: The parent's memory; new rows that are in it have been trained on before.
    """
    splits = {name: describe(store, labelled, names) for name, store in stores.items()}
    left_out = {"forgotten": {"rows": forget.rows}, "held_out": {"rows": held_out.rows}}
    in_memory = {"in_memory": rows_among(stores, memory) if memory is not None else {}}
    return {**splits, **left_out, **in_memory, "update": update}


def rows_among(stores: Mapping[str, ExampleStore], memory: ExampleStore) -> dict[str, int]:
    """Return how many rows of each split are in a memory, by their ids."""
    known = IdSet(stored_ids(memory)[memory.stored_live()]) if len(memory) else IdSet(NOTHING)
    return {
        split: int(known.among(stored_ids(store)).sum()) if len(store) else 0
        for split, store in stores.items()
    }


def summary(figures: Mapping[str, Any]) -> str:
    """Return one line for the user with the number of rows of each split."""
    parts = [f"{split} {figures[split]['rows']} rows" for split in SPLITS]
    if weights := figures["train"].get("weights"):
        least, largest = (f"{weights[name]:g}" for name in ("least", "largest"))
        parts[0] += f" with weights from {least} to {largest}"
    forgotten = figures["forgotten"]["rows"]
    held_out = figures["held_out"]["rows"]
    parts += [f"{forgotten} forgotten left out"] if forgotten else []
    parts += [f"{held_out} left out because they are in earlier holdouts"] if held_out else []
    again = {split: rows for split, rows in figures["in_memory"].items() if rows}
    if again:
        counts = " and ".join(f"{rows} of {split}" for split, rows in again.items())
        parts.append(f"{counts} trained on before (they are in memory)")
    return ", ".join(parts)


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
