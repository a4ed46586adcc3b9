"""Find new rows that earlier updates have: held out to measure models, or in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from renate_stages.memory.identity import IdSet, content_ids, stored_content_ids, stored_ids
from renate_stages.memory.ragged import Column, Ragged
from renate_stages.memory.spec import METADATA, ExampleSpec, Field
from renate_stages.memory.store import ExampleStore

INPUTS = "inputs"
NOTHING = np.empty((0, 2), dtype=np.uint64)
Columns = Mapping[str, Column]
Fields = Mapping[str, Field]


class EarlierRows:
    """The rows of earlier holdouts and validation splits, which must not be trained on, and memory.

    A row that is held out is recognized by its id, and by its content: inputs and targets. Stores
    whose rows have ids of their own are read once for that.

    Args:
        held_out: The stores of holdouts and validation splits.
        memory: The memory; new rows with the content of one in it have been trained on before.
        by_content: Whether a row with another id but equal content is the same example. In a table
            with few columns, different rows are often equal; there, only ids count.
    """

    def __init__(
        self,
        held_out: Iterable[ExampleStore] = (),
        memory: ExampleStore | None = None,
        *,
        by_content: bool = True,
    ) -> None:
        self._held_out = _Rows([(store, _all_rows(store)) for store in held_out if len(store)])
        remembered = [(memory, memory.stored_live())] if memory is not None and len(memory) else []
        self._memory = _Rows(remembered)
        self._by_content = by_content
        self.held_out = 0
        """Number of rows that were left out."""
        self.in_memory: dict[str, int] = {}
        """Number of the other rows that are in memory, by split."""
        self.reused = NOTHING
        """Ids, uint64 `(n, 2)`, that an earlier row has with other inputs than the new row."""

    def left_out(self, split: str) -> Callable[[Columns, ExampleSpec], np.ndarray]:
        """Return a function that returns which rows of a block to leave out, bool `(rows,)`.

        It also counts. Of the split `test`, no row is left out.
        """
        return partial(self._left_out, split)

    def _left_out(self, split: str, columns: Columns, spec: ExampleSpec) -> np.ndarray:
        given = columns[METADATA + "id"]
        assert isinstance(given, np.ndarray)
        out = np.zeros(len(given), dtype=bool)
        if not len(given) or not (len(self._held_out.ids) or len(self._memory.ids)):
            return out
        held, remembered = self._held_out.ids.among(given), self._memory.ids.among(given)
        for earlier, found in ((self._held_out, held), (self._memory, remembered)):
            self._note_reused(earlier, np.flatnonzero(found), columns, spec)
        if self._by_content:
            # Ids that are those of the content need not be computed again.
            own = not np.array_equal(_content_ids(columns, spec.fields, 1), given[:1])
            contents = _content_ids(columns, spec.fields, len(given)) if own else given
            held |= self._held_out.contents.among(contents)
            remembered = self._memory.contents.among(contents)
        out = held if split != "test" else out
        self.held_out += int(out.sum())
        self.in_memory[split] = self.in_memory.get(split, 0) + int((remembered & ~out).sum())
        return out

    def _note_reused(
        self, earlier: _Rows, rows: np.ndarray, columns: Columns, spec: ExampleSpec
    ) -> None:
        """Add the ids of those of the rows whose inputs no earlier row has."""
        if len(rows):
            fields, given = _inputs_of(spec.fields), columns[METADATA + "id"]
            assert isinstance(given, np.ndarray)
            inputs = content_ids({path: _taken(columns[path], rows) for path in fields}, fields)
            others = given[rows[~earlier.inputs.among(inputs)]]
            self.reused = IdSet(np.concatenate([self.reused, others])).array


class _Rows:
    """Rows of some stores.

    Args:
        stores: Each store with the numbers of its rows.
    """

    def __init__(self, stores: Sequence[tuple[ExampleStore, np.ndarray]]) -> None:
        self._stores = stores

    @cached_property
    def ids(self) -> IdSet:
        return IdSet(np.concatenate([NOTHING, *(stored_ids(s)[rows] for s, rows in self._stores)]))

    @cached_property
    def contents(self) -> IdSet:
        """The ids of the rows' contents, which often are their ids."""
        found = [NOTHING]
        for store, rows in self._stores:
            ids = stored_ids(store)[rows]
            own = not np.array_equal(stored_content_ids(store, rows[:1]), ids[:1])
            found.append(stored_content_ids(store, rows) if own else ids)
        return IdSet(np.concatenate(found))

    @cached_property
    def inputs(self) -> IdSet:
        """Ids of the rows' inputs alone."""
        found = [
            stored_content_ids(store, rows, _inputs_of(store.spec.fields))
            for store, rows in self._stores
            if store.spec is not None
        ]
        return IdSet(np.concatenate([NOTHING, *found]))


def _all_rows(store: ExampleStore) -> np.ndarray:
    return np.arange(int(store.offsets[-1]))


def _inputs_of(fields: Fields) -> Fields:
    return {p: each for p, each in fields.items() if p == INPUTS or p.startswith(f"{INPUTS}.")}


def _content_ids(columns: Columns, fields: Fields, rows: int) -> np.ndarray:
    """Return the content ids of the first rows of a block, uint64 `(rows, 2)`."""
    first = np.arange(rows)
    return content_ids({path: _taken(columns[path], first) for path in fields}, fields)


def _taken(column: Column, rows: np.ndarray) -> Column:
    return column.take(rows) if isinstance(column, Ragged) else column[rows]
