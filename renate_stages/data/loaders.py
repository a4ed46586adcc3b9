"""Loaders of whole datasets, batch by batch."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

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


def _collate(batch: Any) -> Tree:
    """Pass on a finished batch, a pair; collate a list of items."""
    return batch if isinstance(batch, tuple) else default_collate(batch)
