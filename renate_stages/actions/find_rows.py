"""Find which stores of a state have the examples with given ids. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from renate_stages.actions.forget import asked_ids, stores_of
from renate_stages.memory import ExampleStore
from renate_stages.memory.identity import stored_content_ids, stored_ids


def find_rows(folder: Path, texts: Iterable[str]) -> dict[str, Counter[tuple[str, int | None]]]:
    """Return for each text how many live rows have it as their id.

    Args:
        folder: A state.
        texts: The user's own ids, or hashed ids as `renate-stages memory --ids` prints them.

    Returns:
        By text, the number of rows by store, such as `memory` or `holdouts/1`, and the update in which
        they arrived, None if that is unknown.

    Raises:
        MissingFileError: If the folder is not a state.
    """
    stores = stores_of(folder)

    @cache
    def own(name: str) -> np.ndarray:
        return stored_ids(stores[name])[stores[name].stored_live()]

    @cache
    def content(name: str) -> np.ndarray:
        return stored_content_ids(stores[name], stores[name].stored_live())

    found = {}
    for text in dict.fromkeys(texts):
        asked, hashed = asked_ids([text])
        found[text] = Counter()
        for name, store in stores.items():
            if not len(store):
                continue
            same = asked.among(own(name))
            if len(hashed):
                same |= hashed.among(content(name))
            found[text].update((name, update) for update in _updates(store)[same].tolist())
    return found


def _updates(store: ExampleStore) -> np.ndarray:
    """Return the update in which each live row arrived, object `(len,)`."""
    found = np.full(len(store), None)
    updates, known = store.metadata("update"), store.known("update")
    if updates is not None:
        found[known] = updates[known]
    return found
