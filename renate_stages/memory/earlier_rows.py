"""Find new training rows that are in a kept holdout or validation split of an earlier update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from renate_stages.memory.identity import IdSet, content_ids, stored_content_ids, stored_ids
from renate_stages.memory.ragged import Column, Ragged
from renate_stages.memory.spec import METADATA, ExampleSpec
from renate_stages.memory.store import ExampleStore

NOTHING = np.empty((0, 2), dtype=np.uint64)


class HeldOut:
    """The rows of holdouts and validation splits, which must not be trained on.

    A row is recognized by its id, and by its content. A holdout whose rows have ids of their own is
    read once for that.

    Args:
        stores: The stores of these splits.
        by_content: Whether a row with another id but equal content is the same example. In a table
            with few columns, different rows are often equal.
    """

    def __init__(self, stores: Iterable[ExampleStore] = (), *, by_content: bool = True) -> None:
        self._by_content = by_content
        ids, contents = [NOTHING], [NOTHING]
        for store in stores:
            rows = np.arange(int(store.offsets[-1]) if len(store) else 0)
            if len(rows):
                ids.append(stored_ids(store))
            if len(rows) and by_content:
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
        found = self.ids.among(given)
        if self._by_content:
            # Ids that are those of the content need not be computed again.
            own = bool(len(given)) and not np.array_equal(_content_ids(columns, spec, 1), given[:1])
            contents = _content_ids(columns, spec, len(given)) if own else given
            found |= self.contents.among(contents)
        self.rows += int(found.sum())
        return found


def _content_ids(columns: Mapping[str, Column], spec: ExampleSpec, rows: int) -> np.ndarray:
    """Return the content ids of the first rows of a block, uint64 `(rows, 2)`."""
    first = np.arange(rows)
    chosen = {
        path: column.take(first) if isinstance(column := columns[path], Ragged) else column[:rows]
        for path in spec.fields
    }
    return content_ids(chosen, spec.fields)
