"""Selection policies: the interface, and policies that do not need labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from renate_stages.errors import InvalidMemorySizeError, MalformedFileError


class Selection(NamedTuple):
    """Rows that make up the memory from now on; both int64, strictly increasing."""

    kept: np.ndarray  # of the old memory
    added: np.ndarray  # of the new examples


class Placement(NamedTuple):
    """New rows that enter a memory whose rows have places; both int64, of one length."""

    places: np.ndarray  # distinct; those from the memory's length on follow each other
    added: np.ndarray  # of the new examples


class SelectionPolicy(ABC):
    """Chooses, at each update, which rows of the memory stay and which new examples enter.

    A policy is one class with a `name` and a `_choose`; it draws from `self.generator` only, may
    read `self.seen`, and keeps what else it needs over updates in `_extra`.

    Args:
        size: Most examples the memory may hold, >= 1; may differ from the update before.
        generator: Source of randomness, `np.random.default_rng(...)`; its state is saved.
        seen: Examples that have been offered in earlier updates.

    Raises:
        InvalidMemorySizeError: `size` is missing or below 1.
    """

    name: ClassVar[str]
    needs_features: ClassVar[bool] = False  # whether `select` is to be given `new_features`
    needs_labels: ClassVar[bool] = False
    online: ClassVar[bool] = True  # whether it may choose batch by batch

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
            old_labels: Labels of the memory's rows, integers `(num_old,)`, if there are any.
            new_labels: Labels of the new examples, integers `(num_new,)`, if there are any.
            num_old: Rows in the memory, in order of arrival.
            num_new: New examples, in order of arrival.
            new_features: Of the new examples, float `(num_new, d)`; only where the policy needs
                them.

        Raises:
            LabelsNeededError: The policy balances classes and labels are missing.
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
        """Choose as `select` does, for a memory that changes in place, batch by batch.

        The memory holds no more than `size` rows, in any order.

        Args:
            old_labels: As in `select`.
            new_labels: As in `select`.
            num_old: Rows in the memory.
            num_new: New examples.
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
        """Return the rows kept and the rows added, in any order; `self.seen` is before this update."""

    def forget(self, left: np.ndarray) -> None:  # noqa: B027 -- optional
        """Learn which rows of the memory, bool `(num_old,)`, are left after some were removed."""

    def state(self) -> dict[str, Any]:
        """Return what the next update continues from, as JSON values."""
        generator = self.generator.bit_generator.state
        return {"generator": generator, "policy": self.name, "seen": self.seen, **self._extra()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`; one of another policy gives its count and its generator.

        Raises:
            MalformedFileError: If it is not what `state()` returned.
        """
        try:
            self.generator.bit_generator.state = state["generator"]
            self.seen = whole(state["seen"])
            self._take_extra(state)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            kind = f"the state of memory policy '{self.name}'"
            raise MalformedFileError("learner.json", kind, repr(error)) from error

    def _take_extra(self, state: dict[str, Any]) -> None:  # noqa: B027 -- optional
        """Continue from what `_extra` returned, as far as it is there."""

    def _extra(self) -> dict[str, Any]:
        return {}


def whole(value: Any) -> int:
    """Return a whole number >= 0; raise `ValueError` if it is not one."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a whole number >= 0")
    return value


_DENSE = 8  # sizes of a memory: until the stream is so long, one row in eight enters and more


class Reservoir(SelectionPolicy):
    """A uniform sample of all examples ever offered: Algorithm R.

    Vitter, "Random Sampling with a Reservoir", ACM TOMS 1985. Example number t of the stream
    (from 1) takes slot t of an unfilled memory, and else draws j from {1, …, t}, t included, and
    replaces what is in slot j if j <= size. All draws of an update are made at once, later in a long
    stream only for candidates; a slot goes to the last to draw it. After t examples each of them is in memory with probability size / t,
    however they were spread over updates.

    With a smaller size than before, the old rows are first thinned uniformly, which keeps this
    exact. A memory with fewer rows than it could hold, because the size was raised or rows were
    forgotten, cannot be uniform at once: old and new rows are then taken in the numbers that a
    uniform sample of the stream would have, as far as there are enough old ones.
    """

    name = "reservoir"

    def place(self, old_labels, new_labels, num_old, num_new):
        if num_old < min(self.seen, self.size):
            return super().place(old_labels, new_labels, num_old, num_new)
        self.seen = max(self.seen, num_old)
        added, places = self._draw_each(num_new)
        self.seen += num_new
        _, last = np.unique(places[::-1], return_index=True)  # to the last to draw it
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
        # NumPy keeps the last of repeats
        holder[np.concatenate(slots)] = num_old + np.concatenate(rows)
        return holder[holder < num_old], holder[holder >= num_old] - num_old

    def _draw_each(self, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which of the first new rows enter, ascending, and the slots that they take."""
        number = self.seen + 1 + np.arange(stop)  # t, the place in the stream
        slot = number - 1  # slots count from 0 here
        late = number > self.size
        slot[late] = self.generator.integers(0, number[late])  # 0 … t − 1: t values
        enters = np.flatnonzero(slot < self.size)
        return enters, slot[enters]

    def _draw_rare(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the same of later rows, of which few enter, without a draw for each row.

        Row t enters with probability size / t. Where a block begins at t₀, each of its rows is a
        candidate with probability size / t₀, and a candidate enters with probability t₀ / t. As a
        block is as long as the stream before it, about `size` candidates are drawn for each.
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
        past = min(self.seen, 10**9 - 1)  # the most that NumPy draws from
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
