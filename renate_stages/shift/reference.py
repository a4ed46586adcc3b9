"""Choose the parent's examples that new ones are compared with: `shift.reference`."""

from __future__ import annotations

import numpy as np

from renate_stages.memory import ExampleStore
from renate_stages.state import State

Rows = tuple[ExampleStore, np.ndarray]  # a store and the rows of it, int64


def reference_rows(parent: State, of: str) -> list[Rows]:
    """Return the parent's examples to compare with.

    Holdouts are random samples that the model was not trained on. A memory's examples may be
    selected by a policy, and the model may have memorised them.

    Args:
        parent: The state.
        of: `holdouts`, or the memory without any; `memory`; `both`; `last`: only examples of the
            parent's own update, which are its holdout, or else its validation data, or else the rows of
            the memory that came with it.
    """
    if of == "last":
        return _of_last_update(parent)
    holdouts = [] if of == "memory" else list(parent.split("holdouts").values())
    memory = [parent.memory()] if of != "holdouts" or not any(map(len, holdouts)) else []
    return _all_rows(*holdouts, *memory)


def _of_last_update(parent: State) -> list[Rows]:
    number = parent.provenance.update
    for name in ("holdouts", "validation"):
        store = parent.split(name).get(number)
        if store is not None and len(store):
            return _all_rows(store)
    memory = parent.memory()
    updates = memory.metadata("update") if len(memory) else None
    if updates is None:
        return []
    rows = np.flatnonzero(memory.known("update") & (updates == number))
    return [(memory, rows)] if len(rows) else []


def _all_rows(*stores: ExampleStore) -> list[Rows]:
    return [(store, np.arange(len(store))) for store in stores if len(store)]
