"""Find new training rows that are in a kept holdout or validation split of an earlier update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from renate_stages.memory.identity import IdSet, content_ids, stored_content_ids, stored_ids
from renate_stages.memory.ragged import Column
from renate_stages.memory.spec import METADATA, ExampleSpec
from renate_stages.memory.store import ExampleStore

NOTHING = np.empty((0, 2), dtype=np.uint64)


class HeldOut:
    """The rows of holdouts and validation splits, which must not be trained on.

    A row is recognized by its id, and by its content. A holdout whose rows have ids of their own is
    read once for that.

    Args:
        stores: The stores of these splits.
    """

    def __init__(self, stores: Iterable[ExampleStore] = ()) -> None:
        ids, contents = [NOTHING], [NOTHING]
        for store in stores:
            rows = np.arange(int(store.offsets[-1]) if len(store) else 0)
            if len(rows):
                ids.append(stored_ids(store))
                first = stored_content_ids(store, rows[:1])
                own = not np.array_equal(first, ids[-1][:1])
                contents.append(stored_content_ids(store, rows) if own else ids[-1])
        self.ids, self.contents = IdSet(np.concatenate(ids)), IdSet(np.concatenate(contents))
        self.rows = 0  # rows found so far

    def __call__(self, columns: Mapping[str, Column], spec: ExampleSpec) -> np.ndarray:
        """Return which rows of a block are held out, bool `(rows,)`, and count them."""
        given = columns[METADATA + "id"]
        assert isinstance(given, np.ndarray)
        if not len(self.ids):
            return np.zeros(len(given), dtype=bool)
        contents = content_ids({path: columns[path] for path in spec.fields}, spec.fields)
        found = self.ids.among(given) | self.contents.among(contents)
        self.rows += int(found.sum())
        return found
