"""Outputs and targets of a holdout's rows, so that a metric can be computed again on a sample of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from renate_stages.tasks.task import Task

if TYPE_CHECKING:
    from torchmetrics import Metric

MOST_BYTES = 1 << 28  # of outputs and targets of one model on all holdouts


@dataclass(frozen=True)
class CountedRows:
    """What the user's metrics were updated with on a holdout, by row.

    A row has one entry in most tasks, none if its target is ignored, and several in `tokens`.

    Args:
        entries: Outputs and targets, a tree of CPU tensors `(entries, ...)` in the rows' order.
        counts: Number of entries of each row, int64 `(rows,)`.
        metrics: Metrics by name, to be computed again after a reset.
    """

    entries: tuple[Any, Any]
    counts: np.ndarray
    metrics: Mapping[str, Metric]

    def __len__(self) -> int:
        return len(self.counts)

    def taken(self, rows: np.ndarray) -> tuple[Any, Any] | None:
        """Return outputs and targets of some rows; None if these have no entries.

        Args:
            rows: Numbers of the rows, int64, which may repeat.
        """
        counts = self.counts[rows]
        if not counts.sum():
            return None
        starts = (np.cumsum(self.counts) - self.counts)[rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        where = torch.from_numpy(np.repeat(starts, counts) + within)
        return tree_map(lambda tensor: tensor[where], self.entries)


class RowCollector:
    """Collects the rows of one holdout; gives up if they take too much memory.

    Args:
        room: Bytes left for all holdouts of a model, as a list of one number, which this lowers.
    """

    def __init__(self, room: list[int]) -> None:
        self.room = room
        self.parts: list[tuple[Any, Any]] = []
        self.counts: list[np.ndarray] = []
        self.is_complete = True

    def add(self, task: Task, outputs: Any, targets: Any, counted: Any, rows: int) -> None:
        """Add a batch.

        Args:
            task: What targets and outputs mean.
            outputs: The model's outputs of the batch.
            targets: Its targets.
            counted: What the metrics were updated with: `task.for_metrics(outputs, targets)`.
            rows: Number of rows of the batch.
        """
        if not self.is_complete:
            return
        counts = _entries(counted)
        if counts == rows:
            self._keep(counted, np.ones(rows, np.int64))
            return
        if _entries((outputs, targets)) != rows:
            self.is_complete = False
            return
        each = [
            task.for_metrics(*tree_map(itemgetter(slice(row, row + 1)), (outputs, targets)))
            for row in range(rows)
        ]
        of_rows = [_entries(part) for part in each]
        if counts is None or None in of_rows or sum(filter(None, of_rows)) != counts:
            self.is_complete = False  # the entries do not belong to single rows
        elif counted is None:
            self.counts.append(np.zeros(rows, np.int64))
        else:
            self._keep(counted, np.array(of_rows, np.int64))

    def collected(self, metrics: Mapping[str, Metric]) -> CountedRows | None:
        """Return the rows; None if they were not kept."""
        if not self.is_complete or not self.parts:
            return None
        flat = [tree_flatten(part) for part in self.parts]
        if len({str(structure) for _, structure in flat}) > 1:
            return None
        columns = list(zip(*(leaves for leaves, _ in flat), strict=True))
        if any(len({tensor.shape[1:] for tensor in column}) > 1 for column in columns):
            return None  # lists of different lengths, for example
        entries = tree_unflatten([torch.cat(column) for column in columns], flat[0][1])
        return CountedRows(entries, np.concatenate(self.counts), metrics)

    def _keep(self, counted: tuple[Any, Any], counts: np.ndarray) -> None:
        self.room[0] -= sum(tensor.nbytes for tensor in tree_leaves(counted))
        self.is_complete = self.room[0] >= 0
        if self.is_complete:
            self.parts.append(tree_map(lambda tensor: tensor.detach().cpu(), counted))
            self.counts.append(counts)
        else:
            self.parts.clear()


def _entries(counted: tuple[Any, Any] | None) -> int | None:
    """Return the number of entries; None if the tensors differ in it, or are no tensors."""
    if counted is None:
        return 0
    leaves = tree_leaves(counted)
    if not all(isinstance(leaf, Tensor) and leaf.ndim for leaf in leaves):
        return None
    sizes = {len(leaf) for leaf in leaves}
    return sizes.pop() if len(sizes) == 1 else None
