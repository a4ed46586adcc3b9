"""Selection policies that balance classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from renate_stages.errors import LabelsNeededError
from renate_stages.memory.selection import SelectionPolicy, whole


class GreedyClassBalancing(SelectionPolicy):
    """GDumb's greedy sampler: balances the number of examples per class.

    Prabhu et al., "GDumb: A Simple Approach that Questions Our Progress in Continual Learning",
    ECCV 2020, Algorithm 1. A new example enters only if its class has fewer than size / classes
    examples in memory, counting all classes seen so far and its own. If the memory is full, it
    replaces a random example of the largest class; ties are broken at random. If the size has been
    reduced, rows of the largest classes are removed first in the same way.
    """

    name = "greedy"
    needs_labels = True

    def __init__(self, size: int | None, generator: np.random.Generator, seen: int = 0) -> None:
        super().__init__(size, generator, seen)
        self.classes: set[int] = set()  # all classes seen; some may have no rows in a small memory

    def _choose(self, old_labels, new_labels, num_old, num_new):
        members = _Members(self.name, old_labels, new_labels, num_old, num_new, self.generator)
        self.classes |= members.old_classes()
        members.cut(self.size)
        known = np.isin(members.values, sorted(self.classes))
        row, block = 0, 1024
        while row < num_new:
            counts = members.counts()
            quota = ~known | (counts * max(1, known.sum()) < self.size)
            candidates = row + np.flatnonzero(quota[members.new[row : row + block]])
            row = min(row + block, num_new)
            block = min(2 * block, 2**16)
            for candidate in candidates.tolist():
                code = members.new[candidate]
                known[code] = True
                number = int(known.sum())
                if len(members.rows[code]) * number >= self.size:
                    continue
                if members.total == self.size:
                    victim = members.evict()
                    opened = (len(members.rows[victim]) + 1) * number >= self.size
                    if opened and len(members.rows[victim]) * number < self.size:
                        row, block = candidate + 1, 1024  # the victim's class has room again
                members.add(code, num_old + candidate)
                if row == candidate + 1:
                    break
        self.classes |= set(members.values[known].tolist())
        return members.chosen()

    def _extra(self) -> dict[str, Any]:
        return {"classes": sorted(self.classes)}

    def _take_extra(self, state: dict[str, Any]) -> None:
        self.classes = set(map(int, state.get("classes", ())))


class ClassBalancedReservoir(SelectionPolicy):
    """A uniform sample of each class, with class sizes as equal as the stream allows.

    Chrysakis & Moens, "Online Continual Learning from Imbalanced Data", ICML 2020, Algorithm 1. A
    class is full once it has been among the largest classes of a full memory. A new example of a
    class that is not full replaces a random example of a largest class. A new example of a full
    class, of which n examples were seen and m are in memory, replaces a random example of its own
    class with probability m / n.
    """

    name = "class_balanced"
    needs_labels = True

    def __init__(self, size: int | None, generator: np.random.Generator, seen: int = 0) -> None:
        super().__init__(size, generator, seen)
        self.seen_of: dict[int, int] = {}
        self.full: set[int] = set()

    def _choose(self, old_labels, new_labels, num_old, num_new):
        members = _Members(self.name, old_labels, new_labels, num_old, num_new, self.generator)
        seen = np.array([self.seen_of.get(int(value), 0) for value in members.values], np.int64)
        seen = np.maximum(seen, members.counts())
        full = np.isin(members.values, sorted(self.full))
        members.cut(self.size)
        row = min(num_new, max(0, self.size - members.total))
        for new in range(row):
            members.add(members.new[new], num_old + new)
        seen += np.bincount(members.new[:row], minlength=len(seen))
        while row < num_new:
            full[members.largest()] = True
            waiting = np.flatnonzero(~full[members.new[row:]])
            stop = row + int(waiting[0]) if len(waiting) else num_new
            self._replace_own(members, seen, row, stop, num_old)
            if stop < num_new:
                members.evict()
                members.add(members.new[stop], num_old + stop)
                seen[members.new[stop]] += 1
            row = stop + 1
        if members.total >= self.size:
            full[members.largest()] = True
        self.seen_of |= dict(zip(members.values.tolist(), seen.tolist(), strict=True))
        self.full |= set(members.values[full].tolist())
        return members.chosen()

    def _replace_own(
        self, members: _Members, seen: np.ndarray, start: int, stop: int, num_old: int
    ) -> None:
        """Offer rows of full classes, which can replace rows of their own class only."""
        codes = members.new[start:stop]
        if not len(codes):
            return
        order = np.argsort(codes, kind="stable")
        numbers = np.bincount(codes, minlength=len(seen))
        firsts = np.cumsum(numbers) - numbers
        rank = np.empty(len(codes), np.int64)
        rank[order] = np.arange(len(codes)) - firsts[codes[order]]
        chance = members.counts()[codes] / (seen[codes] + rank + 1)
        for enters in np.flatnonzero(self.generator.random(len(codes)) <= chance).tolist():
            own = members.rows[codes[enters]]
            if own:
                own[self.generator.integers(len(own))] = num_old + start + enters
        seen += numbers

    def _extra(self) -> dict[str, Any]:
        seen_of = {str(label): count for label, count in sorted(self.seen_of.items())}
        return {"full": sorted(self.full), "seen_of": seen_of}

    def _take_extra(self, state: dict[str, Any]) -> None:
        self.full = set(map(int, state.get("full", ())))
        seen_of = state.get("seen_of", {})
        self.seen_of = {int(label): whole(count) for label, count in seen_of.items()}


class _Members:
    """The rows in memory by class; new rows are numbered after the old ones.

    Classes are represented by codes, their positions in `values`.
    """

    def __init__(
        self,
        policy: str,
        old_labels: np.ndarray | None,
        new_labels: np.ndarray | None,
        num_old: int,
        num_new: int,
        generator: np.random.Generator,
    ) -> None:
        old = labels_of(policy, old_labels, num_old)
        new = labels_of(policy, new_labels, num_new)
        both = np.concatenate([old, new])
        self.values, first, codes = np.unique(both, return_index=True, return_inverse=True)
        self._by_arrival = np.argsort(first).tolist()
        self.new = codes[num_old:]
        self.rows: list[list[int]] = [[] for _ in self.values]
        for row, code in enumerate(codes[:num_old].tolist()):
            self.rows[code].append(row)
        self.total = num_old
        self._num_old = num_old
        self._generator = generator

    def old_classes(self) -> set[int]:
        """Return the labels that have rows in memory."""
        return {int(self.values[code]) for code, rows in enumerate(self.rows) if rows}

    def counts(self) -> np.ndarray:
        """Return the number of rows of each class, int64."""
        return np.array([len(rows) for rows in self.rows], dtype=np.int64)

    def largest(self) -> list[int]:
        """Return the classes with the most rows, in order of first arrival."""
        most = max(map(len, self.rows))
        return [code for code in self._by_arrival if len(self.rows[code]) == most]

    def add(self, code: int, row: int) -> None:
        """Add a row to a class."""
        self.rows[code].append(row)
        self.total += 1

    def evict(self) -> int:
        """Remove a random row of a random largest class, and return the class."""
        largest = self.largest()
        code = largest[self._generator.integers(len(largest))]
        self.rows[code].pop(self._generator.integers(len(self.rows[code])))
        self.total -= 1
        return code

    def cut(self, size: int) -> None:
        """Remove rows of the largest classes until at most `size` rows are left."""
        while self.total > size:
            self.evict()

    def chosen(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the old rows that stay and the new rows that enter."""
        rows = np.array([row for own in self.rows for row in own], dtype=np.int64)
        return rows[rows < self._num_old], rows[rows >= self._num_old] - self._num_old


def labels_of(policy: str, labels: np.ndarray | None, rows: int) -> np.ndarray:
    """Return the labels of rows, int64 `(rows,)`.

    Raises:
        LabelsNeededError: If the rows have no integer labels.
    """
    if not rows:
        return np.empty(0, dtype=np.int64)
    if labels is None or labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise LabelsNeededError(f"memory_policy: {policy}")
    return labels.astype(np.int64)
