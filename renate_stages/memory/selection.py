"""Selection policies: the base class, and the policies that do not need labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from renate_stages.errors import InvalidMemorySizeError, MalformedFileError


class Selection(NamedTuple):
    """Rows that make up the new memory; both arrays int64, strictly increasing."""

    kept: np.ndarray  # rows of the old memory
    added: np.ndarray  # rows of the new examples


class Placement(NamedTuple):
    """New rows and the places in memory that they take; both arrays int64, of equal length."""

    places: np.ndarray  # distinct; places beyond the memory's length are consecutive
    added: np.ndarray  # rows of the new examples


class SelectionPolicy(ABC):
    """Chooses at each update which rows of the memory stay and which new examples enter.

    A policy is a class with a `name` and a `_choose` method. It draws random numbers only from
    `self.generator`, may read `self.seen`, and returns further state for later updates in `_extra`.

    Args:
        size: Maximum number of examples in the memory, >= 1; may differ from the last update.
        generator: Source of randomness, `np.random.default_rng(...)`; its state is saved.
        seen: Number of examples that were offered in earlier updates.

    Raises:
        InvalidMemorySizeError: If `size` is missing or below 1.
    """

    name: ClassVar[str]
    needs_features: ClassVar[bool] = False  # whether `select` needs `new_features`
    needs_labels: ClassVar[bool] = False
    online: ClassVar[bool] = True  # whether it can choose batch by batch

    def __init__(self, size: int | None, generator: np.random.Generator, seen: int = 0) -> None:
        if size is None or size < 1:
            raise InvalidMemorySizeError(self.name, size)
        self.size = size
        self.generator = generator
        self.seen = seen

    def select(
        self,
        old_labels: np.ndarray | None,
        new_labels: np.ndarray | None,
        num_old: int,
        num_new: int,
        new_features: np.ndarray | None = None,
    ) -> Selection:
        """Choose the memory's rows, and count the new examples as seen.

        Args:
            old_labels: Labels of the memory's rows, integers `(num_old,)`, or None.
            new_labels: Labels of the new examples, integers `(num_new,)`, or None.
            num_old: Number of rows in the memory, which are in order of arrival.
            num_new: Number of new examples, which are in order of arrival.
            new_features: Features of the new examples, float `(num_new, d)`, if `needs_features`.

        Raises:
            LabelsNeededError: If the policy needs labels and they are missing.
        """
        self.seen = max(self.seen, num_old)
        self.features = new_features
        kept, added = self._choose(old_labels, new_labels, num_old, num_new)
        self.seen += num_new
        return Selection(np.sort(kept).astype(np.int64), np.sort(added).astype(np.int64))

    def place(
        self,
        old_labels: np.ndarray | None,
        new_labels: np.ndarray | None,
        num_old: int,
        num_new: int,
    ) -> Placement:
        """Choose like `select`, for a memory that is changed in place, batch by batch.

        The memory has at most `size` rows, in any order.

        Args:
            old_labels: As in `select`.
            new_labels: As in `select`.
            num_old: Number of rows in the memory.
            num_new: Number of new examples.
        """
        kept, added = self.select(old_labels, new_labels, num_old, num_new)
        free = np.setdiff1d(np.arange(num_old), kept, assume_unique=True)
        behind = np.arange(num_old, num_old + len(added) - len(free))
        return Placement(np.concatenate([free, behind]), added)

    @abstractmethod
    def _choose(
        self,
        old_labels: np.ndarray | None,
        new_labels: np.ndarray | None,
        num_old: int,
        num_new: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the kept and the added rows, in any order; `self.seen` excludes new examples."""

    def forget(self, left: np.ndarray) -> None:  # noqa: B027 -- optional
        """Update the state after rows were removed; `left` marks the others, bool `(num_old,)`."""

    def state(self) -> dict[str, Any]:
        """Return the state for the next update, as JSON values."""
        generator = self.generator.bit_generator.state
        return {"generator": generator, "policy": self.name, "seen": self.seen, **self._extra()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state()` returned; from another policy, only count and generator.

        Raises:
            MalformedFileError: If it does not have the form of a state.
        """
        try:
            self.generator.bit_generator.state = state["generator"]
            self.seen = whole(state["seen"])
            self._take_extra(state)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            kind = f"the state of memory policy '{self.name}'"
            raise MalformedFileError("learner.json", kind, repr(error)) from error

    def _take_extra(self, state: dict[str, Any]) -> None:  # noqa: B027 -- optional
        """Restore what `_extra` returned; missing keys are allowed."""

    def _extra(self) -> dict[str, Any]:
        return {}


def whole(value: Any) -> int:
    """Return a whole number >= 0; raise `ValueError` if it is not one."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number >= 0")
    return value


_DENSE = 8  # memory sizes; in a shorter stream, more than one row in eight enters


class Reservoir(SelectionPolicy):
    """A uniform sample of all examples ever offered, by Algorithm R.

    Vitter, "Random Sampling with a Reservoir", ACM TOMS 1985. Example number t of the stream
    (from 1) takes slot t while the memory is not full. Later it draws j from {1, …, t}, t included,
    and replaces the example in slot j if j <= size. All draws of an update are made at once, and
    late in a long stream only for candidates; the last example to draw a slot gets it. After t
    examples, each of them is in memory with probability size / t, however they were split into
    updates.

    If the size has been reduced, old rows are first removed at random, which keeps the sample
    uniform. If the memory has free places, because the size was raised or rows were forgotten, the
    sample cannot be uniform immediately. In that case old and new rows are drawn in the numbers that
    a uniform sample of the stream would have, as far as there are enough old rows.
    """

    name = "reservoir"

    def place(self, old_labels, new_labels, num_old, num_new):
        if num_old < min(self.seen, self.size):
            return super().place(old_labels, new_labels, num_old, num_new)
        self.seen = max(self.seen, num_old)
        added, places = self._draw_each(num_new)
        self.seen += num_new
        _, last = np.unique(places[::-1], return_index=True)  # the last row to draw a slot gets it
        taken = np.sort(len(places) - 1 - last)
        return Placement(places[taken], added[taken])

    def _choose(self, old_labels, new_labels, num_old, num_new):
        old = np.arange(num_old)
        if num_old > self.size:
            old = self.generator.choice(num_old, self.size, replace=False)
        if len(old) < min(self.seen, self.size):
            return self._refill(old, num_new)
        dense = min(num_new, max(0, _DENSE * self.size - self.seen))
        rows, slots = zip(self._draw_each(dense), *self._draw_rare(dense, num_new), strict=True)
        holder = np.full(min(self.size, self.seen + num_new), -1)
        holder[: len(old)] = old
        # For repeated indices, NumPy keeps the last value.
        holder[np.concatenate(slots)] = num_old + np.concatenate(rows)
        return holder[holder < num_old], holder[holder >= num_old] - num_old

    def _draw_each(self, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the new rows before `stop` enter, ascending, and the slots they take."""
        number = self.seen + 1 + np.arange(stop)  # t, the position in the stream
        slot = number - 1  # slots count from 0 here
        late = number > self.size
        slot[late] = self.generator.integers(0, number[late])  # 0 … t − 1: t values
        enters = np.flatnonzero(slot < self.size)
        return enters, slot[enters]

    def _draw_rare(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the same for later rows, of which few enter, without a draw for each row.

        Row t enters with probability size / t. In a block that begins at t₀, each row is a
        candidate with probability size / t₀, and a candidate enters with probability t₀ / t. A
        block is as long as the stream before it, so it has about `size` candidates.
        """
        while start < stop:
            first = self.seen + start + 1
            count = min(stop - start, first)
            drawn = self.generator.binomial(count, self.size / first)
            rows = start + self.generator.choice(count, drawn, replace=False, shuffle=False)
            rows.sort()
            rows = rows[self.generator.integers(0, self.seen + 1 + rows) < first]
            yield rows, self.generator.integers(0, self.size, len(rows))
            start += count

    def _refill(self, old: np.ndarray, num_new: int) -> tuple[np.ndarray, np.ndarray]:
        past = min(self.seen, 10**9 - 1)  # NumPy's limit for hypergeometric draws
        fair = min(self.size, past + num_new)
        fair_old = fair - self.generator.hypergeometric(num_new, past, fair)
        total = min(self.size, len(old) + num_new)
        num_kept = min(max(fair_old, total - num_new), len(old))
        kept = self.generator.choice(old, num_kept, replace=False)
        return kept, self.generator.choice(num_new, total - num_kept, replace=False)


class SlidingWindow(SelectionPolicy):
    """The last `size` examples."""

    name = "sliding_window"
    online = False  # it needs the order of arrival

    def _choose(self, old_labels, new_labels, num_old, num_new):
        first = max(0, num_old + num_new - self.size)
        return np.arange(min(first, num_old), num_old), np.arange(max(0, first - num_old), num_new)


class Infinite(SelectionPolicy):
    """Every example; a given size is ignored."""

    name = "infinite"

    def __init__(self, size: int | None, generator: np.random.Generator, seen: int = 0) -> None:
        super().__init__(1, generator, seen)
        self.size = None

    def _choose(self, old_labels, new_labels, num_old, num_new):
        return np.arange(num_old), np.arange(num_new)
