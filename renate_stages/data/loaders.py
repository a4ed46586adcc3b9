"""Batches for training and evaluation: loaders over datasets, and endless draws from memory."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from renate_stages.data.stored import ConcatStored, StoredDataset
from renate_stages.memory import Tree


def make_loader(
    dataset: Dataset,
    batch_size: int,
    *,
    shuffle: bool,
    generator: torch.Generator | None,
    num_workers: int = 0,
    pin_memory: bool = False,
    drop_last: bool = False,
) -> DataLoader:
    """Return a loader of batches `(inputs, targets)`.

    Stored datasets make their batches themselves, in one gather; items of other datasets are
    collated in torch's default way.

    Args:
        dataset: A map-style dataset.
        batch_size: Examples a batch, >= 1.
        shuffle: Whether each pass is in a fresh random order.
        generator: Source of the order, and of the workers' seeds; needed to shuffle. The global
            generator is never drawn from.
        num_workers: Processes that load; 0 loads in this one.
        pin_memory: Whether batches are put in pinned memory, for faster copies to a GPU.
        drop_last: Whether a last batch that is not full is left out.

    Raises:
        ValueError: `shuffle` without a generator.
    """
    if generator is None:
        if shuffle:
            raise ValueError("shuffling needs a generator")
        generator = torch.Generator().manual_seed(0)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        generator=generator,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        drop_last=drop_last,
        collate_fn=_collate,
    )


class MemorySampler:
    """Endless random rows, batch after batch, each row once a pass.

    A pass is a fresh permutation; a batch that a pass does not fill is filled from the next, so
    every batch has `min(batch_size, length)` rows.

    Args:
        length: Number of rows to draw from, >= 1.
        batch_size: Rows a batch, >= 1.
        generator: Source of the permutations.

    Raises:
        ValueError: `length` or `batch_size` is below 1.
    """

    def __init__(self, length: int, batch_size: int, generator: torch.Generator) -> None:
        if length < 1 or batch_size < 1:
            raise ValueError(f"cannot draw batches of {batch_size} from {length} rows")
        self._length = length
        self._batch_size = min(batch_size, length)
        self._generator = generator
        self._order = torch.empty(0, dtype=torch.int64)  # what is left of the current pass

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        """Return the rows of the next batch, int64 `(min(batch_size, length),)`."""
        if len(self._order) < self._batch_size:
            fresh = torch.randperm(self._length, generator=self._generator)
            self._order = torch.cat([self._order, fresh])
        rows, self._order = self._order.split(
            [self._batch_size, len(self._order) - self._batch_size]
        )
        return rows

    def state_dict(self) -> dict[str, Tensor]:
        """Return the rest of the pass, int64, and the generator's state, uint8."""
        return {"generator": self._generator.get_state(), "order": self._order.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`."""
        self._generator.set_state(state["generator"])
        self._order = state["order"].clone()


class ReplayBatches:
    """Replay batches without end, in the order of a `MemorySampler`; one gather each.

    Args:
        dataset: The memory; at least one example.
        batch_size: Examples a batch, >= 1; no more than there are.
        generator: Source of the order.
    """

    def __init__(
        self,
        dataset: StoredDataset | ConcatStored,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self.sampler = MemorySampler(len(dataset), batch_size, generator)
        self._dataset = dataset

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tree:
        """Return the next batch `(inputs, targets)`."""
        return self._dataset.__getitems__(next(self.sampler))


def _collate(batch: Any) -> Tree:
    """Pass on a finished batch, a pair; collate a list of items."""
    return batch if isinstance(batch, tuple) else default_collate(batch)
