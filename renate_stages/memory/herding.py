"""Herding: keep the examples whose mean feature is closest to that of their class."""

from __future__ import annotations

from typing import Any

import numpy as np

from renate_stages.memory.balancing import labels_of
from renate_stages.memory.selection import SelectionPolicy, whole


class Herding(SelectionPolicy):
    """Keeps for each class an ordered list of examples whose mean approximates the class's mean.

    Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017,
    Algorithms 4 (construct exemplar set) and 5 (reduce exemplar set), with features of length 1.
    Each class has m = size / classes examples; an old class drops the last examples of its order.

    In the paper each class appears in one update only. If a class returns, its m places are divided
    between remembered and new examples in proportion to the numbers of examples seen before and of
    new ones, and the two orders are merged evenly.
    """

    name = "herding"
    needs_labels = True
    needs_features = True
    online = False  # it needs all examples of a class at once

    def __init__(self, size: int | None, generator: np.random.Generator, seen: int = 0) -> None:
        super().__init__(size, generator, seen)
        self.ranks: list[int] = []  # each memory row's position in the order of its class
        self.seen_of: dict[int, int] = {}

    def _choose(self, old_labels, new_labels, num_old, num_new):
        old = labels_of(self.name, old_labels, num_old)
        new = labels_of(self.name, new_labels, num_new)
        features = self.features if self.features is not None else np.zeros((num_new, 1))
        ranks = np.arange(num_old) if len(self.ranks) != num_old else np.array(self.ranks, int)
        classes = sorted({*old.tolist(), *new.tolist()})
        places = max(1, self.size // max(1, len(classes)))
        chosen: list[tuple[int, int]] = []  # (rank, row); new rows are numbered from num_old
        for label in classes:
            mine, fresh = np.flatnonzero(old == label), np.flatnonzero(new == label)
            before = max(self.seen_of.get(label, 0), len(mine))
            share = round(places * before / (before + len(fresh)))
            kept = mine[np.argsort(ranks[mine], kind="stable")][: max(share, places - len(fresh))]
            added = fresh[herd(features[fresh], min(places - len(kept), len(fresh)))]
            turns = [((i + 0.5) / len(kept), row) for i, row in enumerate(kept.tolist())]
            turns += [((i + 0.5) / len(added), num_old + r) for i, r in enumerate(added.tolist())]
            chosen += [(rank, row) for rank, (_, row) in enumerate(sorted(turns))]
            self.seen_of[label] = before + len(fresh)
        chosen = sorted(chosen)[: self.size]  # if there are more classes than places
        by_row = dict(sorted((row, rank) for rank, row in chosen))
        self.ranks = list(by_row.values())
        rows = np.array(list(by_row), dtype=np.int64)
        return rows[rows < num_old], rows[rows >= num_old] - num_old

    def forget(self, left: np.ndarray) -> None:
        if len(self.ranks) == len(left):
            self.ranks = np.array(self.ranks, int)[left].tolist()

    def _extra(self) -> dict[str, Any]:
        seen_of = {str(label): count for label, count in sorted(self.seen_of.items())}
        return {"ranks": self.ranks, "seen_of": seen_of}

    def _take_extra(self, state: dict[str, Any]) -> None:
        self.ranks = list(map(whole, state.get("ranks", ())))
        seen_of = state.get("seen_of", {})
        self.seen_of = {int(label): whole(count) for label, count in seen_of.items()}


def herd(features: np.ndarray, count: int) -> np.ndarray:
    """Return rows in the order of iCaRL's Algorithm 4.

    The k-th row is the one that brings the mean of the first k rows closest to the mean of all.

    Args:
        features: `(rows, d)`; each row is normalized to length 1 first.
        count: Number of rows to choose, at most all.

    Returns:
        Row numbers, int64 `(count,)`.
    """
    features = features.astype(np.float64)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    features = np.divide(features, norms, out=np.zeros_like(features), where=norms > 0)
    squares = (features**2).sum(1)
    mean = features.mean(0) if len(features) else np.zeros(features.shape[1])
    taken = np.zeros_like(mean)
    free = np.ones(len(features), dtype=bool)
    order = np.empty(count, dtype=np.int64)
    for k in range(count):
        # |(k+1) mean - taken - f|^2 without the terms that are equal for all f
        distance = squares - 2 * features @ ((k + 1) * mean - taken)
        order[k] = np.argmin(np.where(free, distance, np.inf))
        taken += features[order[k]]
        free[order[k]] = False
    return order
