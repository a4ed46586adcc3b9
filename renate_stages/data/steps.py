"""Batches of training steps: choose the rows first, then gather them once per dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from renate_stages.data.batch import Batch, StepBatch
from renate_stages.data.ranks import Ranks, ranks
from renate_stages.data.stored import ConcatStored, StoredDataset


class StepRows(NamedTuple):
    """The rows of one step: rows of the new data, int64 `(B,)`, and of each memory draw."""

    new: np.ndarray
    memory: tuple[np.ndarray, ...] = ()


class RowSource(Protocol):
    """Endless batches of rows, int64 `(B,)`, that can be saved and resumed."""

    def __next__(self) -> np.ndarray: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class Memory(Protocol):
    """A memory from which draws are read."""

    def read(self, places: np.ndarray) -> Batch: ...


class RandomRows:
    """Endless batches of random rows; each row occurs once per pass.

    A pass is a new permutation. If a pass does not fill a batch, the next pass does, so every batch
    has `min(batch_size, length)` rows.

    Args:
        length: Number of rows to draw from, >= 1.
        batch_size: Rows per batch, >= 1.
        generator: Source of the permutations.
        rows: The rows to draw from, int64 `(length,)`; None: those in [0, length).

    Raises:
        ValueError: If `length` or `batch_size` is below 1.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        generator: torch.Generator,
        rows: np.ndarray | None = None,
    ) -> None:
        if length < 1 or batch_size < 1:
            raise ValueError(f"cannot draw batches of {batch_size} from {length} rows")
        self._length = length
        self._batch_size = min(batch_size, length)
        self._generator = generator
        self._rows = rows
        self._order = np.empty(0, dtype=np.int64)  # row order of the current pass
        self._next = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> np.ndarray:
        """Return the rows of the next batch, int64 `(min(batch_size, length),)`."""
        if self._next + self._batch_size > len(self._order):
            fresh = torch.randperm(self._length, generator=self._generator).numpy()
            self._order = np.concatenate([self._order[self._next :], fresh])
            self._next = 0
        drawn = self._order[self._next : self._next + self._batch_size]
        self._next += self._batch_size
        return drawn if self._rows is None else self._rows[drawn]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the rest of the pass, int64, and the generator's state, uint8."""
        left = torch.from_numpy(self._order[self._next :].copy())
        return {"generator": self._generator.get_state(), "order": left}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict()`."""
        self._generator.set_state(state["generator"])
        self._order, self._next = state["order"].numpy().copy(), 0


class BalancedRows:
    """Endless batches of random rows, drawn with replacement, with equal probability per class.

    Args:
        labels: Labels of all rows, int64 `(length,)`, at least one.
        batch_size: Rows per batch, >= 1.
        generator: Source of the draws.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, generator: torch.Generator) -> None:
        self._order = np.argsort(labels, kind="stable")
        _, self._counts = np.unique(labels, return_counts=True)
        self._first = np.cumsum(self._counts) - self._counts
        self._batch_size = batch_size
        self._generator = generator

    def __next__(self) -> np.ndarray:
        """Return the rows of the next batch, int64 `(batch_size,)`."""
        number = len(self._counts)
        chosen = torch.randint(number, (self._batch_size,), generator=self._generator).numpy()
        place = torch.rand(self._batch_size, generator=self._generator, dtype=torch.float64)
        within = (place.numpy() * self._counts[chosen]).astype(np.int64)
        return self._order[self._first[chosen] + within]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the generator's state, uint8."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict()`."""
        self._generator.set_state(state["generator"])


class EpochRows(ABC):
    """The rows of each step of an epoch; each iteration is one epoch.

    Nothing is drawn before the first step is requested.
    """

    source: RowSource | None = None  # where draws come from
    draws = 1  # draws per step

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[StepRows]: ...


class InOrder(EpochRows):
    """All rows once, in order; the last batch may be smaller.

    Args:
        length: Number of rows.
        batch_size: Rows per batch, >= 1.
    """

    def __init__(self, length: int, batch_size: int) -> None:
        self._length = length
        self._batch_size = batch_size

    def __len__(self) -> int:
        return (self._length + self._batch_size - 1) // self._batch_size

    def __iter__(self) -> Iterator[StepRows]:
        for start in range(0, self._length, self._batch_size):
            yield StepRows(np.arange(start, min(start + self._batch_size, self._length)))


class Pass(EpochRows):
    """All rows once per epoch in a new random order, in equal steps.

    An epoch has ceil(length / batch_size) steps whose sizes differ by at most one row. A short last
    step would give its few rows the weight of a whole step, and may be a single row, with which
    batch normalization fails.

    Args:
        length: Number of rows, >= 1.
        batch_size: Maximum number of rows per batch, >= 1.
        generator: Source of the order.
        replay: Source of draws from the memory; None for no draws.
        draws: Draws per step, if there is a `replay` source.
        rows: The rows, int64 `(length,)`; None: those in [0, length).
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        generator: torch.Generator,
        replay: RowSource | None = None,
        draws: int = 1,
        rows: np.ndarray | None = None,
    ) -> None:
        self._length = length
        self._rows = rows
        self._batch_size = batch_size
        self._generator = generator
        self.source = replay
        self.draws = draws

    def __len__(self) -> int:
        return (self._length + self._batch_size - 1) // self._batch_size

    def __iter__(self) -> Iterator[StepRows]:
        order = torch.randperm(self._length, generator=self._generator).numpy()
        order = order if self._rows is None else self._rows[order]
        for new in np.array_split(order, len(self)):
            if self.source is None:
                yield StepRows(new)
            else:
                replay = self.source
                yield StepRows(new, tuple(next(replay) for _ in range(self.draws)))


class Budget(EpochRows):
    """An epoch with a fixed number of steps.

    Args:
        rows: Endless source of rows.
        steps: Number of steps per epoch.
    """

    def __init__(self, rows: RowSource, steps: int) -> None:
        self.source: RowSource = rows
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[StepRows]:
        for _ in range(self._steps):
            yield StepRows(next(self.source))


class Steps(Dataset):
    """Reads the batches of a step, with one gather per dataset.

    Args:
        new: The new examples.
        memory: The memory to read draws from; None if there are no draws.
    """

    def __init__(self, new: StoredDataset | ConcatStored, memory: Memory | None = None) -> None:
        self._new = new
        self._memory = memory
        self.ranks = Ranks()  # set by a loader in distributed training

    def __getitem__(self, rows: StepRows) -> StepBatch:
        new = read_share(self._read_new, rows.new, self.ranks)
        if self._memory is None:
            return StepBatch(new)
        read = self._memory.read
        return StepBatch(new, tuple(read_share(read, drawn, self.ranks) for drawn in rows.memory))

    def _read_new(self, rows: np.ndarray) -> Batch:
        return Batch.of(self._new, rows)


def read_share(read: Callable[[np.ndarray], Batch], rows: np.ndarray, ranks: Ranks) -> Batch:
    """Read a process's share of rows, or a placeholder row if the share is empty."""
    if ranks.count == 1:
        return read(rows)
    own = ranks.own(rows)
    batch = read(own if len(own) else rows[:1])
    return batch.of_rows(own, rows)


def share(*batches: Batch) -> float:
    """Return the weight of this process's mean over batches when processes' means are averaged.

    The weight is the number of processes times this process's share of all examples: 1 if there is
    one process or all have equally many. The average of the weighted means is then the mean over
    all examples.
    """
    if batches[0].whole is None:
        return 1.0
    own = sum(len(batch) for batch in batches)
    return ranks().count * own / sum(len(batch.all_rows) for batch in batches)


def distinct_rows(length: int, size: int, generator: torch.Generator) -> np.ndarray:
    """Return `size` random rows of [0, length), int64, without repeats; size <= length."""
    if 4 * size > length:
        return torch.randperm(length, generator=generator)[:size].numpy()
    rows = np.empty(0, dtype=np.int64)
    while len(rows) < size:  # repeats are rare, because few of many are drawn
        more = torch.randint(length, (size,), generator=generator).numpy()
        both = np.concatenate([rows, more])
        _, first = np.unique(both, return_index=True)
        rows = both[np.sort(first)][:size]
    return rows


class InProcess:
    """Reads steps one by one, like a `DataLoader` without workers, but faster."""

    def __init__(self, steps: Steps, rows: EpochRows) -> None:
        self._steps = steps
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[StepBatch]:
        return map(self._steps.__getitem__, self._rows)
