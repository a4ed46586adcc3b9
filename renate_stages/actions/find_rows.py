"""Find which stores of a state have the examples with given ids. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from renate_stages.actions.forget import asked_ids, stores_of
from renate_stages.memory import ExampleStore
from renate_stages.memory.identity import stored_content_ids, stored_ids
from renate_stages.memory.spec import METADATA


class Place(NamedTuple):
    """Where a row is.

    Args:
        store: Path of the store in the state, such as `memory` or `holdouts/1`.
        update: Number of the update in which the row arrived; None if that is unknown.
        dropped: Whether the row was dropped and only its bytes are still in the store.
    """

    store: str
    update: int | None
    dropped: bool = False


def find_rows(folder: Path, texts: Iterable[str]) -> dict[str, Counter[Place]]:
    """Return for each text how many rows have it as their id, by place.

    Args:
        folder: A state.
        texts: The user's own ids, or hashed ids as `renate-stages memory --ids` prints them.

    Raises:
        MissingFileError: If the folder is not a state.
    """
    asked = {text: asked_ids([text]) for text in dict.fromkeys(texts)}
    found: dict[str, Counter[Place]] = {text: Counter() for text in asked}
    has_hashes = any(len(hashed) for _, hashed in asked.values())
    for name, store in stores_of(folder).items():
        ids = stored_ids(store)
        content = stored_content_ids(store, np.arange(len(ids))) if has_hashes else ids
        for text, (own, hashed) in asked.items():
            same = own.among(ids)
            if len(hashed):
                same |= hashed.among(content)
            found[text].update(_places(name, store, np.flatnonzero(same)))
    return found


def _places(name: str, store: ExampleStore, rows: np.ndarray) -> list[Place]:
    """Return the places of stored rows, int64 `(n,)`."""
    if not len(rows):
        return []
    path = METADATA + "update"
    known, live = store.stored_known(path)[rows], np.isin(rows, store.stored_live())
    updates = np.full(len(rows), None)
    if known.any():
        updates[known] = store.stored_column(path)[rows[known]]
    return [Place(name, *each) for each in zip(updates.tolist(), (~live).tolist(), strict=True)]
