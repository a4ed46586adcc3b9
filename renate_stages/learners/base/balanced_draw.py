"""Class-balanced draws of a memory's members."""

from __future__ import annotations

import numpy as np
import torch

from renate_stages.data.steps import distinct_rows
from renate_stages.learners.base.working_memory import WorkingMemory


class BalancedDraw:
    """Draws members of a memory so that all classes are equally frequent.

    Classes are those of the stored labels. If targets are not stored as integers, all members count
    as one class; members with negative labels, which are ignored in training, are never drawn.

    Args:
        working: The memory.
        generator: Source of the draws; its state belongs to the learner's position.
    """

    def __init__(self, working: WorkingMemory, generator: torch.Generator) -> None:
        self.generator = generator
        self._working = working
        self._changes = -1  # of the memory, when the index was made

    def places(self, size: int, avoided: np.ndarray) -> np.ndarray:
        """Return places of members without repeats, int64 `(n,)`, n <= size.

        Every class has the same share; a remainder is divided among random classes. A class with
        fewer members than its share has all of them drawn.

        Args:
            size: Number of members to draw.
            avoided: Places of members to draw only if their class has no others, int64.
        """
        self._update_index()
        classes = len(self._counts)
        if not classes:
            return np.empty(0, dtype=np.int64)
        shares = np.full(classes, size // classes)
        shares[distinct_rows(classes, size % classes, self.generator)] += 1
        codes = self._codes[avoided]
        number_avoided = np.bincount(codes[codes >= 0], minlength=classes)
        drawn = []
        for code in np.flatnonzero(shares):
            count, share = int(self._counts[code]), int(shares[code])
            enough = min(count, share + int(number_avoided[code]))
            places = self._order[self._first[code] + distinct_rows(count, enough, self.generator)]
            if number_avoided[code] < count:
                places = places[~np.isin(places, avoided)]
            drawn.append(places[:share])
        return np.concatenate(drawn)

    def _update_index(self) -> None:
        if self._changes == self._working.changes:
            return
        self._changes = self._working.changes
        labels = self._working.labels
        if labels is None:
            labels = np.zeros(len(self._working), dtype=np.int64)
        counted = np.flatnonzero(labels >= 0)
        values, codes = np.unique(labels[counted], return_inverse=True)
        self._codes = np.full(len(labels), -1)
        self._codes[counted] = codes
        self._order = counted[np.argsort(codes, kind="stable")]
        self._counts = np.bincount(codes, minlength=len(values))
        self._first = np.cumsum(self._counts) - self._counts
